"""Names with numbers in them: for each i `tower.blocks.{i-1}.mha` is `tower.layer{i}.attention`."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import lru_cache

Variables = Mapping[str, int | str]

MOST = 256  # numbers tried for a variable
_HOLE = re.compile(r"\{([^{}]+)\}")
_OPERATIONS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Pow: lambda a, b: a**b if 0 <= b < 32 else -1,
}


class Pattern:
    """A name with holes. `{i}` is a whole number, `{i+2}` or `{2**(last-i)}` arithmetic over one, `{head}` a word.

    One letter is a number, more are a word. `last` is the greatest number that the source has there, told by whoever
    matches; `{last}` alone is that number. Use when: a map says which of their names is which of ours.
    """

    def __init__(self, text: str):
        self.text = text
        self.holes = tuple(_HOLE.findall(text))
        regex, end = "", 0
        for hole in _HOLE.finditer(text):
            wanted = r"([0-9]{1,9})" if is_number(hole[1]) else r"([A-Za-z][A-Za-z0-9_]*?)"
            regex, end = regex + re.escape(text[end : hole.start()]) + wanted, hole.end()
        self.regex = regex + re.escape(text[end:])
        self._compiled = re.compile(self.regex)

    def number(self, name: str) -> int | None:
        """The first number that stands in the name's holes, where the name fits."""
        found = self._compiled.fullmatch(name)
        texts = (
            [text for hole, text in zip(self.holes, found.groups(), strict=True) if is_number(hole)] if found else []
        )
        return int(texts[0]) if texts else None

    def match(self, name: str, last: int | None = None) -> dict[str, int | str] | None:
        """What the variables are where the whole name fits, else None."""
        found = self._compiled.fullmatch(name)
        if found is None:
            return None
        values: dict[str, int | str] = {}
        for hole, text in zip(self.holes, found.groups(), strict=True):
            if not is_number(hole):
                variable, value = hole, text
            else:
                if len(text) > 1 and text[0] == "0":
                    return None
                if hole == "last":
                    if int(text) != last:
                        return None
                    continue
                variable = variable_of(hole)
                value = solved(hole, last).get(int(text))
            if value is None or values.setdefault(variable, value) != value:
                return None
        return values

    def fill(self, values: Variables, last: int | None = None) -> str | None:
        """The name for these variables; None where a number would be negative, a variable unknown left as it is."""
        parts, end = [], 0
        for hole in _HOLE.finditer(self.text):
            parts.append(self.text[end : hole.start()])
            end = hole.end()
            value = last if hole[1] == "last" else values.get(variable_of(hole[1]))
            if value is None:
                parts.append(hole[0])
            elif isinstance(value, str) or hole[1] == "last":
                parts.append(str(value))
            else:
                number = calculated(hole[1], value, last)
                if number is None or number < 0:
                    return None
                parts.append(str(number))
        return "".join([*parts, self.text[end:]])

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"


def is_number(hole: str) -> bool:
    """Whether a hole is for a whole number."""
    return len(hole) == 1 or hole == "last" or not hole.isidentifier()


@lru_cache(maxsize=4096)
def variable_of(hole: str) -> str:
    """The one variable of a hole."""
    names = {node.id for node in ast.walk(ast.parse(hole, mode="eval")) if isinstance(node, ast.Name)} - {"last"}
    if len(names) != 1:
        raise ValueError(f"{{{hole}}} should have one variable, and has {sorted(names)}")
    return names.pop()


def calculated(hole: str, value: int, last: int | None) -> int | None:
    """A hole's number for its variable's; None where `last` is needed and not known."""
    known = {variable_of(hole): value, "last": last}

    def of(node: ast.expr) -> int | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, int):
            return node.value
        if isinstance(node, ast.Name):
            return known[node.id]
        if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
            left, right = of(node.left), of(node.right)
            return None if left is None or right is None else _OPERATIONS[type(node.op)](left, right)
        raise ValueError(f"{{{hole}}}: numbers, variables, + - * ** are understood")

    return of(ast.parse(hole, mode="eval").body)


@lru_cache(maxsize=4096)
def solved(hole: str, last: int | None) -> dict[int, int]:
    """A hole's variable by the number that stands there."""
    numbers = {value: calculated(hole, value, last) for value in range(MOST)}
    return {number: value for value, number in reversed(numbers.items()) if number is not None and number >= 0}
