"""The lengths of a model's inputs, found from the sizes of what it is given.

An input of a recipe says its length by a bare symbol. Where a recipe was cut, an input is an edge from the middle,
`B 64 ceil(L/8)`: several lengths of the DNA give one of those, and the model takes them if any of them fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .dims import Length
from .rules import LengthRule

LONGEST = 1 << 40
MOST = 1 << 16  # candidates looked at


@dataclass(frozen=True)
class Sized:
    """One axis of an input: whose it is, where, what it should be, and the size that was given."""

    name: str
    axis: int
    length: Length
    size: int


def lengths_of(
    axes: Sequence[Sized], known: Mapping[str, int], rule: LengthRule
) -> tuple[dict[str, int], Sized | None]:
    """Values of the open symbols under which every axis has its size, and the first axis that none gives.

    Of several values one that the rule admits is taken, if there is one, and else the smallest. `known` are values
    that bare axes say already. An axis over several symbols of which one is open is left unchecked.
    """
    values = dict(known)
    for axis in axes:
        if all(s in values for s in axis.length.symbols) and axis.length.at(values) != axis.size:
            return values, axis
    open_symbols = dict.fromkeys(s for axis in axes for s in axis.length.symbols if s not in values)
    for symbol in open_symbols:
        own = [axis for axis in axes if axis.length.symbols == (symbol,)]
        low, high = 1, LONGEST
        for axis in own:
            at = _along(axis.length, symbol)
            low, high = max(low, _first(at, axis.size)), min(high, _first(at, axis.size + 1) - 1)
            if low > high or not _some(own[: own.index(axis) + 1], symbol, low, high):
                return values, axis
        if own:
            fits = [n for n in range(low, min(high, low + MOST) + 1) if all(_is(axis, symbol, n) for axis in own)]
            values[symbol] = next((n for n in fits if rule.admits({**values, symbol: n})), fits[0])
    return values, None


def _along(length: Length, symbol: str) -> Callable[[int], object]:
    return lambda n: length.at({symbol: n})


def _is(axis: Sized, symbol: str, value: int) -> bool:
    return axis.length.at({symbol: value}) == axis.size


def _some(axes: Sequence[Sized], symbol: str, low: int, high: int) -> bool:
    return any(all(_is(axis, symbol, n) for axis in axes) for n in range(low, min(high, low + MOST) + 1))


def _first(at: Callable[[int], object], size: int) -> int:
    """The smallest value from 1 on at which a length, which grows with it, is at least so large."""
    low, high = 0, 1
    while at(high) < size:  # type: ignore[operator]
        low, high = high, high * 2
        if high > LONGEST:
            return LONGEST
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if at(middle) < size else (low, middle)  # type: ignore[operator]
    return high
