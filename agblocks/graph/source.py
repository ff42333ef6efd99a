"""Text to tree: strict YAML 1.2 in which every key and value remembers where it stands.

A recipe is untrusted input. Size, depth and number of values are bounded while reading, before anything is built from
them; tags, anchors, aliases, merge keys, directives, repeated keys and numbers that are not finite are refused.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

from ..errors import Mark, Problem, RecipeError, shown

LARGEST_FILE = 128 * 1024  # bytes
DEEPEST = 24
MOST_VALUES = 8_000
LONGEST_SCALAR = 4_096
LARGEST_INTEGER = 2**63 - 1

Scalar = str | int | float | bool | None


@dataclass
class Tree:
    """A value with its place: a scalar, a list of trees, or a mapping from text to trees."""

    value: Any
    mark: Mark | None = None
    keys: dict[str, Mark] = field(default_factory=dict)

    @property
    def is_map(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)

    @property
    def kind(self) -> str:
        """What the value is, in words for messages."""
        if self.is_map:
            return "a mapping"
        if self.is_list:
            return "a list"
        names = {str: "text", bool: "a truth value", int: "a whole number", float: "a number", type(None): "nothing"}
        return f"{names.get(type(self.value), type(self.value).__name__)} ({shown(self.value)})"

    def plain(self) -> Any:
        """The value without marks."""
        if self.is_map:
            return {key: child.plain() for key, child in self.value.items()}
        return [child.plain() for child in self.value] if self.is_list else self.value

    def find(self, path: tuple[str | int, ...]) -> Tree:
        """The deepest tree along a path, as far as it goes."""
        here = self
        for step in path:
            inside = here.is_list and isinstance(step, int) and step < len(here.value)
            if not inside and not (here.is_map and step in here.value):
                break
            here = here.value[step]
        return here

    def key_mark(self, key: str) -> Mark | None:
        return self.keys.get(key, self.mark)


def read_file(path: Path, label: str | None = None) -> Tree:
    """The tree of a recipe file. Raises RecipeError for what is not strict YAML or passes the bounds."""
    label = label or str(path)
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise RecipeError([Problem(f"{label} cannot be read: {error.strerror}")]) from None
    if len(raw) > LARGEST_FILE:
        raise RecipeError([_too_large(label)])
    try:
        return read_text(raw.decode("utf-8"), label)
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise RecipeError([Problem(f"{label}:{line} is not UTF-8 text")]) from None


def read_text(source: str, label: str = "recipe") -> Tree:
    """The tree of a text; `label` stands for the file in messages."""
    if len(source) > LARGEST_FILE:
        raise RecipeError([_too_large(label)])
    for number, line in enumerate(source.split("\n"), 1):  # not splitlines, which swallows stranger separators
        for column, character in enumerate(line.removesuffix("\r"), 1) if not line.isprintable() else ():
            if not character.isprintable() and character != "\t":
                mark = Mark(label, number, column)
                raise RecipeError([Problem(f"control character {character!a} in the text", mark)])
    return _Reader(source, label).read()


def from_python(value: Any, path: str = "recipe", depth: int = 0, values: Iterator[int] | None = None) -> Tree:
    """The tree of a Python value of the same form as a recipe; it has no marks."""
    values = values or count()

    def refuse(what: str) -> RecipeError:
        return RecipeError([Problem(what, path=path)])

    if next(values) > MOST_VALUES:
        raise refuse(f"more than {MOST_VALUES} values, which no recipe needs")
    if depth > DEEPEST:
        raise refuse(f"nested deeper than {DEEPEST}")
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise refuse(f"a key should be text, not {shown(key)}")
        return Tree({key: from_python(child, f"{path}.{key}", depth + 1, values) for key, child in value.items()})
    if isinstance(value, list | tuple):
        return Tree([from_python(child, f"{path}[{i}]", depth + 1, values) for i, child in enumerate(value)])
    if value is None or isinstance(value, bool | int | float | str):
        if message := _unfit(value):
            raise refuse(message)
        return Tree(value)
    raise refuse(f"a recipe is made of mappings, lists, text and numbers, not {type(value).__name__}")


def _too_large(label: str) -> Problem:
    return Problem(f"larger than {LARGEST_FILE // 1024} KiB, which no recipe needs", Mark(label, 1, 1))


def from_override(text: str, where: Mark) -> Tree:
    """The tree of an override's value, `depth=4` or `hidden=[64, 64]`; every part bears the override's mark."""
    tree = _Reader(text or "''", where.file, where).read(empty="")
    return tree


def _unfit(value: Scalar) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return f"{value} is not a finite number"
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        return "a whole number larger than 64 bits"
    if isinstance(value, str) and len(value) > LONGEST_SCALAR:
        return f"a text longer than {LONGEST_SCALAR} characters"
    return None


class _Reader:
    """Builds the tree from ruamel's events, without recursion and within the bounds."""

    def __init__(self, source: str, label: str, fixed: Mark | None = None):
        self.source, self.label, self.fixed = source, label, fixed
        self.lines = [line.removesuffix("\r") for line in source.split("\n")]

    def mark(self, at: Any) -> Mark:
        if self.fixed is not None:
            return self.fixed
        line = min(at.line, len(self.lines) - 1)
        return Mark(self.label, line + 1, at.column + 1, self.lines[line])

    def refuse(self, message: str, at: Any) -> RecipeError:
        return RecipeError([Problem(message, self.mark(at))])

    def read(self, empty: Scalar = None) -> Tree:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import MarkedYAMLError, YAMLError

        root: Tree | None = None
        stack: list[tuple[Tree, list[tuple[str, Mark]]]] = []  # open collections, and a mapping's pending key
        values = 0
        try:
            for event in YAML(typ="safe", pure=True).parse(io.StringIO(self.source)):
                name = type(event).__name__
                if name == "DocumentStartEvent":
                    if root is not None:
                        raise self.refuse("a second document; a recipe is one", event.start_mark)
                    if event.version or event.tags:
                        raise self.refuse("a YAML directive, which a recipe does not use", event.start_mark)
                if name == "AliasEvent" or getattr(event, "anchor", None):
                    raise self.refuse("an anchor or alias (& or *), which a recipe does not use", event.start_mark)
                if getattr(event, "tag", None) and name != "ScalarEvent":
                    raise self.refuse("a tag (!), which a recipe does not use", event.start_mark)
                if name in ("MappingEndEvent", "SequenceEndEvent"):
                    stack.pop()
                    continue
                if name not in ("ScalarEvent", "MappingStartEvent", "SequenceStartEvent"):
                    continue
                values += 1
                if values > MOST_VALUES:
                    raise self.refuse(f"more than {MOST_VALUES} values, which no recipe needs", event.start_mark)
                if name == "ScalarEvent" and stack and stack[-1][0].is_map and not stack[-1][1]:
                    stack[-1][1].append(self.key(event, stack[-1][0]))
                    continue
                tree = self.node(event, name)
                if not stack:
                    root = tree
                else:
                    self.attach(tree, *stack[-1], event)
                if name != "ScalarEvent":
                    stack.append((tree, []))
                    if len(stack) > DEEPEST:
                        raise self.refuse(f"nested deeper than {DEEPEST}, which no recipe needs", event.start_mark)
        except MarkedYAMLError as error:
            at = error.problem_mark or error.context_mark
            said = " ".join(str(part) for part in (error.context, error.problem) if part)
            problem = Problem(f"not YAML: {said}", self.mark(at) if at else None)
            raise RecipeError([problem]) from None
        except (YAMLError, ValueError, OverflowError, RecursionError) as error:
            if isinstance(error, RecipeError):
                raise
            raise RecipeError([Problem(f"not YAML: {shown(str(error), 200)}", path=self.label)]) from None
        if root is None:
            return Tree(empty, self.fixed or Mark(self.label, 1, 1))
        return root

    def node(self, event: Any, name: str) -> Tree:
        mark = self.mark(event.start_mark)
        if name == "MappingStartEvent":
            return Tree({}, mark)
        return Tree([], mark) if name == "SequenceStartEvent" else Tree(self.scalar(event), mark)

    def key(self, event: Any, parent: Tree) -> tuple[str, Mark]:
        value = self.scalar(event)
        if not isinstance(value, str):
            raise self.refuse(f"a key should be text, not {shown(value)}; put it in quotes", event.start_mark)
        if value in parent.value:
            raise self.refuse(f"key {shown(value)} is given twice; first at {parent.keys[value]}", event.start_mark)
        if value == "<<":
            raise self.refuse("a merge key (<<), which a recipe does not use", event.start_mark)
        return value, self.mark(event.start_mark)

    def attach(self, tree: Tree, parent: Tree, pending: list[tuple[str, Mark]], event: Any) -> None:
        if parent.is_list:
            parent.value.append(tree)
        elif pending:
            key, mark = pending.pop()
            parent.value[key] = tree
            parent.keys[key] = mark
        else:
            raise self.refuse("a key should be text, not a list or a mapping", event.start_mark)

    def scalar(self, event: Any) -> Scalar:
        if event.tag:
            raise self.refuse(f"a tag ({shown(str(event.tag))}), which a recipe does not use", event.start_mark)
        if event.implicit[0] and len(event.value) <= LONGEST_SCALAR:
            value = _resolve(event.value)
        else:
            value = event.value
        if message := _unfit(value):
            raise self.refuse(message, event.start_mark)
        return value


@cache
def _yaml() -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True)


def _resolve(text: str) -> Scalar:
    """What a plain scalar is by YAML 1.2: `1e-3` a float, `on` a text."""
    from ruamel.yaml.nodes import ScalarNode

    tag = _yaml().resolver.resolve(ScalarNode, text, (True, False)).suffix.rpartition(":")[2]
    if tag in ("int", "float", "bool", "null"):
        return getattr(_yaml().constructor, f"construct_yaml_{tag}")(ScalarNode(tag, text))
    return text
