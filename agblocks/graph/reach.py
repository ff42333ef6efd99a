"""What a position of an edge can see of the input: receptive fields by composition.

A block declares its reach as a chain over its arguments, in the order the data takes:
`pool(pool) conv(kernel) conv(kernel)`. The words are `conv(kernel[, dilation])`, `pool(window[, stride])`,
`up(factor)`, `shift(n)` (n positions cropped on the left) and `center(n)` (the middle n positions, so that what is
cropped on the left hangs on the length, and no field can be said without one). The empty chain is pointwise; `all` sees
everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import ceil, floor

from .signature import parse_axes

EVERYTHING = "all"
WORDS = {"conv": (1, 2), "pool": (1, 2), "up": (1, 1), "shift": (1, 1), "center": (1, 1)}


@dataclass(frozen=True)
class Field:
    """Position i of an edge sees input positions from stride * i + low to stride * i + high."""

    stride: Fraction = Fraction(1)
    low: Fraction = Fraction(0)
    high: Fraction = Fraction(0)

    @property
    def width(self) -> int:
        """The receptive field in input positions, at most (an upsampled position may see less)."""
        return ceil(self.high) - floor(self.low) + 1

    def conv(self, kernel: int, dilation: int = 1) -> Field:
        step = self.stride * dilation
        return Field(self.stride, self.low - step * ((kernel - 1) // 2), self.high + step * (kernel // 2))

    def pool(self, window: int, stride: int | None = None) -> Field:
        return Field(self.stride * (stride or window), self.low, self.high + self.stride * (window - 1))

    def up(self, factor: int) -> Field:
        return Field(self.stride / factor, self.low - self.stride * Fraction(factor - 1, factor), self.high)

    def shift(self, by: int) -> Field:
        return Field(self.stride, self.low + self.stride * by, self.high + self.stride * by)


@lru_cache(maxsize=1024)
def parse_chain(chain: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Read a chain into (word, argument expressions). Raises ValueError with the part that is not one."""
    found: list[tuple[str, tuple[str, ...]]] = []
    rest = chain.strip()
    while rest:
        match = re.match(r"(\w+)\(", rest)
        end = _closing(rest)
        if not match or match[1] not in WORDS or end < 0:
            raise ValueError(f"{rest!r} does not begin with one of {', '.join(WORDS)} and its numbers")
        arguments = tuple(part.strip().replace(" ", "") for part in _commas(rest[match.end() : end]))
        low, high = WORDS[match[1]]
        if not low <= len(arguments) <= high:
            raise ValueError(f"{match[0]}...) takes {low} to {high} numbers, not {len(arguments)}")
        for argument in arguments:
            if len(parse_axes(argument)) != 1:
                raise ValueError(f"{match[0]}...) has a number missing")
        if match[1] == "center" and found:
            raise ValueError("center(...) stands first in its chain: elsewhere nobody knows of how many positions")
        found.append((match[1], arguments))
        rest = rest[end + 1 :].strip()
    return tuple(found)


def follow(field: Field, chain: str, values: Mapping[str, object]) -> Field | None:
    """The field behind a block with this chain and these arguments; None sees everything."""
    if chain == EVERYTHING:
        return None
    for word, numbers in steps(chain, values):
        if word == "center":
            return None
        field = getattr(field, word)(*numbers)
    return field


def steps(chain: str, values: Mapping[str, object]) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a chain with their numbers, for these arguments of the block."""
    return [
        (word, tuple(parse_axes(argument)[0].evaluate(values, []) for argument in arguments))  # type: ignore[arg-type,misc]
        for word, arguments in parse_chain(chain)
    ]


def union(fields: Iterable[Field | None]) -> Field | None:
    """What several inputs see together; they have come to one stride."""
    known = list(fields)
    if not known or any(field is None for field in known):
        return None
    return Field(
        known[0].stride,  # type: ignore[union-attr]
        min(field.low for field in known),  # type: ignore[union-attr]
        max(field.high for field in known),  # type: ignore[union-attr]
    )


def _closing(text: str) -> int:
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == ")" and depth == 0:
            return index
    return -1


def _commas(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
