"""A second reading of signatures, in numbers: what the shapes should be, found without the graph's algebra.

It shares no code with `agblocks.graph`: its own splitting of ports, its own evaluation (Python's, over fractions).
So a mistake in the symbolic arithmetic, or in how a block declares itself, shows as a difference between the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Shape = tuple[int, ...]


class Unfit(ValueError):
    """These shapes do not fit the signature."""


class _Value(Fraction):
    def __or__(self, other: Any) -> Any:
        return self


class _Missing:
    """A name without a value: `missing | other` is the other, and nothing else can be done with it."""

    def __or__(self, other: Any) -> Any:
        return other


@dataclass(frozen=True)
class PortText:
    """A port as its text says it: axes, whether it is optional, and the bound of its whole numbers."""

    axes: tuple[str, ...]
    optional: bool
    below: str | None


def ports(signature: str) -> tuple[dict[str, PortText], dict[str, PortText]]:
    """Input and output ports of a signature's text."""
    left, _, right = signature.partition("->")
    return _side(left), _side(right)


def _side(text: str) -> dict[str, PortText]:
    found = {}
    starts = [m.start() for m in re.finditer(r"[a-z_]\w*\??\s*:", text)]
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        name, _, body = text[start:end].strip().rstrip(",").partition(":")
        axes, _, below = body.partition(" < ")
        found[name.strip().rstrip("?")] = PortText(tuple(axes.split()), "?" in name, below.strip() or None)
    return found


def evaluate(axis: str, values: Mapping[str, int | None]) -> int:
    """An axis in numbers. Raises Unfit where it is no whole number, or a name of it has no value."""
    names = {name: _Missing() if value is None else _Value(value) for name, value in values.items()}
    text = re.sub(r"\b(\d+)\b", r"number(\1)", axis.partition(">=")[0])
    scope = {"__builtins__": {}, "ceil": math.ceil, "floor": math.floor, "number": _Value}
    try:
        result = eval(text, scope, names)  # the text of a registered signature, not of a recipe
    except (NameError, TypeError, ZeroDivisionError) as error:
        raise Unfit(f"{axis!r} has no value: {error}") from None
    if isinstance(result, _Missing) or Fraction(result).denominator != 1:
        raise Unfit(f"{axis!r} is {result}, no whole number")
    return int(result)


def bind(signature: str, args: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, int | None]:
    """The values of a signature's names under these shapes. Raises Unfit where a port does not fit."""
    inputs, _ = ports(signature)
    values: dict[str, int | None] = {k: v for k, v in args.items() if v is None or type(v) is int}
    wired = {name: port for name, port in inputs.items() if name in shapes}
    for name, port in wired.items():
        if len(port.axes) != len(shapes[name]):
            raise Unfit(f"{name!r} has {len(shapes[name])} axes, not {len(port.axes)}")
        for axis, size in zip(port.axes, shapes[name], strict=True):
            bare = axis.partition(">=")[0]
            if bare.isidentifier() and bare not in args:
                values.setdefault(bare, size)
    for port in inputs.values():  # what an absent port would have bound
        for axis in port.axes:
            bare = axis.partition(">=")[0]
            if bare.isidentifier() and bare not in args:
                values.setdefault(bare, None)
    for name, port in wired.items():
        for axis, size in zip(port.axes, shapes[name], strict=True):
            if evaluate(axis, values) != size:
                raise Unfit(f"axis {axis!r} of {name!r} is {size}, not {evaluate(axis, values)}")
            if ">=" in axis and size < evaluate(axis.partition(">=")[2], values):
                raise Unfit(f"axis {axis!r} of {name!r} is {size}")
    return values


def outputs(signature: str, args: Mapping[str, Any], shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    """The declared shapes of a block's outputs. Raises Unfit where inputs do not fit, or an output would be empty."""
    values = bind(signature, args, shapes)
    found = {name: tuple(evaluate(axis, values) for axis in port.axes) for name, port in ports(signature)[1].items()}
    for name, shape in found.items():
        if min(shape, default=1) < 1:
            raise Unfit(f"{name!r} would be {list(shape)}")
    return found
