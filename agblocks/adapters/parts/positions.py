"""Which positions of a track are meant: all, the middle, the ends, slices."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from ...graph.types import Examples

_TERM = re.compile(r"(center|first|last):([1-9]\d*)|(-?\d+)?:(-?\d+)?")


def _joined(value: Any) -> Any:
    return "+".join(value) if isinstance(value, list) and all(isinstance(v, str) for v in value) else value


Positions = Annotated[str, BeforeValidator(_joined), Examples(("all", "center:3", "first:2+last:1", "2:5"))]


def complaint(positions: str) -> str | None:
    """What cannot be read of it, or None."""
    if positions == "all" or all(term != ":" and _TERM.fullmatch(term) for term in positions.split("+")):
        return None
    return (
        f"positions {positions!r}: 'all', or 'center:n', 'first:n', 'last:n' or a slice like '2:-3', several joined "
        "by '+'"
    )


def ranges(positions: str, length: int) -> list[tuple[int, int]]:
    """The positions of a track as ranges (start, stop), in order and apart. Raises ValueError where there are none."""
    found = []
    for term in positions.split("+"):
        match = _TERM.fullmatch(term)
        assert match is not None
        if match[1]:
            n = int(match[2])
            start = {"first": 0, "last": length - n, "center": (length - n) // 2}[match[1]]
            stop = start + n
        else:
            start, stop = int(match[3] or 0), length if match[4] is None else int(match[4])
            start, stop = (end + length if end < 0 else end for end in (start, stop))
        if not 0 <= start < stop <= length:
            raise ValueError(f"there are {length} positions, and {term!r} of {positions!r} are not among them")
        found.append((start, stop))
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(found):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


__all__ = ["Positions", "complaint", "ranges"]
