"""The signature of a block: one string that is interface, documentation, shape rule and test generator.

    x: B C L, skip?: B S L*2 -> out: B S L*2, pair: B P P F

An axis is `B`, a symbol, a whole number, or arithmetic over symbols and the block's arguments with `+ - *`,
`ceil(a/b)`, `floor(a/b)`, and `a/b`, which must divide. `a|b` is the first one that is not None. `L>=n` sets a lower
bound. `organism: B < organisms` marks whole numbers from 0 on. `skips: pyramid` is a composite's set of stage tracks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from .dims import Dim, ceil_div, floor_div, number
from .rules import Condition

Values = Mapping[str, Dim | None]
Imposed = list[Condition]


@dataclass(frozen=True)
class Axis:
    """One axis of a port: an expression over symbols and arguments, perhaps with a lower bound."""

    text: str

    @cached_property
    def _parsed(self) -> tuple[Evaluator, Evaluator | None, tuple[str, ...]]:
        body, at_least, bound = self.text.partition(">=")
        value, names = _compile(body)
        low, low_names = _compile(bound) if at_least else (None, ())
        return value, low, (*names, *low_names)

    @property
    def names(self) -> tuple[str, ...]:
        return self._parsed[2]

    @property
    def symbol(self) -> str | None:
        """The name, where the axis is nothing but a name (and perhaps a bound)."""
        body = self.text.partition(">=")[0]
        return body if body.isidentifier() else None

    def evaluate(self, values: Values, imposed: Imposed) -> Dim:
        """The dimension under these values; what an exact division imposes is appended to `imposed`."""
        return self._parsed[0](values, imposed)

    def lower_bound(self, values: Values, imposed: Imposed) -> Dim | None:
        low = self._parsed[1]
        return None if low is None else low(values, imposed)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Port:
    """One input or output: its name, its axes, whether it may be left out, and the bound of its whole numbers."""

    name: str
    axes: tuple[Axis, ...]
    optional: bool = False
    below: Axis | None = None  # values are whole numbers in [0, below)
    pyramid: bool = False

    @property
    def kind(self) -> str:
        """track, pair map, vector, label, or what its axes are."""
        names = [str(a) for a in self.axes]
        if self.pyramid:
            return "pyramid"
        by_rank = {1: "label", 2: "vector", 3: "track", 4: "pair map" if names[1:2] == names[2:3] else "map"}
        return by_rank.get(len(names), f"tensor of {len(names)} axes")

    @property
    def integer(self) -> bool:
        return self.below is not None or len(self.axes) == 1

    def __str__(self) -> str:
        body = "pyramid" if self.pyramid else " ".join(map(str, self.axes))
        return f"{self.name}{'?' * self.optional}: {body}{f' < {self.below}' if self.below else ''}"

    @property
    def shape(self) -> str:
        return f"[{str(self).partition(': ')[2]}]"


@dataclass(frozen=True)
class Signature:
    """Input and output ports of a block, in order."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names that wiring binds: the bare ones of the input ports, `B` aside."""
        bare = [axis.symbol for port in self.inputs for axis in port.axes]
        return tuple(dict.fromkeys(name for name in bare if name and name != "B"))

    def __str__(self) -> str:
        left = ", ".join(map(str, self.inputs))
        return f"{left} -> {', '.join(map(str, self.outputs))}" if self.outputs else left


_PORT = re.compile(r"\s*(?P<name>[a-z_]\w*)(?P<optional>\?)?\s*:\s*(?P<axes>[^:]+?)\s*")


@lru_cache(maxsize=1024)
def parse_signature(text: str) -> Signature:
    """Read a signature. Raises ValueError with the part that is not one."""
    left, arrow, right = text.partition("->")
    ports = [[_port(part) for part in _split(side)] if side.strip() else [] for side in (left, right)]
    names = [port.name for port in ports[0]], [port.name for port in ports[1]]
    for side in names:
        for name in side:
            if side.count(name) > 1:
                raise ValueError(f"two ports are named {name!r} in {text!r}")
    if arrow and not ports[1]:
        raise ValueError(f"no output after '->' in {text!r}")
    return Signature(tuple(ports[0]), tuple(ports[1]))


def parse_axes(text: str) -> tuple[Axis, ...]:
    """Read axes such as `B 4 L/128`. Raises ValueError with the part that is not an axis."""
    if len(text) > 200:
        raise ValueError("axes are longer than 200 characters")
    axes = tuple(Axis(part) for part in text.split())
    for axis in axes:
        axis.names  # noqa: B018  compiles the expression, which is where a bad one shows
    return axes


def _port(text: str) -> Port:
    match = _PORT.fullmatch(text)
    if match is None:
        raise ValueError(f"{text.strip()!r} is not 'name: axes'")
    body = match["axes"]
    if body == "pyramid":
        return Port(match["name"], (), bool(match["optional"]), pyramid=True)
    axes, less, below = body.partition(" < ")
    bound = parse_axes(below)[0] if less else None
    return Port(match["name"], parse_axes(axes), bool(match["optional"]), bound)


def _split(text: str) -> list[str]:
    return re.split(r",(?=\s*[a-z_]\w*\??\s*:)", text)


Evaluator = Callable[[Values, Imposed], Dim]


@lru_cache(maxsize=4096)
def _compile(text: str) -> tuple[Evaluator, tuple[str, ...]]:
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        names: list[str] = []
        return _evaluator(tree, text, names), tuple(dict.fromkeys(names))
    except (SyntaxError, MemoryError, RecursionError, ValueError) as error:
        reason = error.args[0] if isinstance(error, ValueError) and error.args else "not an expression"
        raise ValueError(f"{text.strip()!r} is not an axis: {reason}") from None


def _evaluator(tree: ast.AST, text: str, names: list[str]) -> Evaluator:
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        value = tree.value
        return lambda values, imposed: value
    if isinstance(tree, ast.Name):
        name = tree.id
        names.append(name)
        return lambda values, imposed: _known(name, values)
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and len(tree.args) == 1:
        rounding = {"ceil": ceil_div, "floor": floor_div}.get(tree.func.id)
        inner = tree.args[0]
        if rounding and isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Div):
            top, bottom = (_evaluator(side, text, names) for side in (inner.left, inner.right))
            return lambda values, imposed: rounding(top(values, imposed), _number(bottom(values, imposed), text))
    if isinstance(tree, ast.BinOp):
        left, right = (_evaluator(side, text, names) for side in (tree.left, tree.right))
        if isinstance(tree.op, ast.Add):
            return lambda values, imposed: left(values, imposed) + right(values, imposed)
        if isinstance(tree.op, ast.Sub):
            return lambda values, imposed: left(values, imposed) - right(values, imposed)
        if isinstance(tree.op, ast.Mult):
            return lambda values, imposed: _product(left(values, imposed), right(values, imposed), text)
        if isinstance(tree.op, ast.Div):
            return lambda values, imposed: _exact(left(values, imposed), _number(right(values, imposed), text), imposed)
        if isinstance(tree.op, ast.BitOr) and isinstance(tree.left, ast.Name):
            first = tree.left.id
            return lambda values, imposed: (
                right(values, imposed) if values.get(first) is None else left(values, imposed)
            )
    raise ValueError("use names, whole numbers, + - * /, ceil(a/b), floor(a/b), a|b")


class Unbound(KeyError):
    """An axis speaks of a symbol that nothing has bound: an optional port that is not wired."""


def _known(name: str, values: Values) -> Dim:
    value = values.get(name)
    if value is None:
        raise Unbound(name)
    return value


def _number(value: Dim, text: str) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{text.strip()!r} divides by {value}, which is not a positive number")
    return value


def _product(left: Dim, right: Dim, text: str) -> Dim:
    if isinstance(right, int):
        return left * right
    if isinstance(left, int):
        return right * left
    raise ValueError(f"{text.strip()!r} multiplies two lengths")


def _exact(top: Dim, by: int, imposed: Imposed) -> Dim:
    if (known := number(top)) is not None and known % by:
        raise ValueError(f"{known} is not a multiple of {by}")
    if isinstance(top, int):
        return top // by
    if by > 1 and known is None:
        imposed.append(Condition("divides", top, by))
    return top.exactly(by)
