"""Windows over a sequence, and which of each window's bins are kept: whole numbers, no tensors.

The result is to be that of one long window over the whole sequence. Where a model crops, the long window begins before
the sequence and ends behind it, in N, so that every base has a bin; where only some lengths go, it ends behind it.
Windows start at multiples of a grid from the long window's start, so that all pools cut where the long window's do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ...errors import AgblocksError


class TilingError(AgblocksError):
    """Windows that cannot cover a sequence: what was found, what was wanted, what would fit."""


@dataclass(frozen=True)
class Span:
    """An output over a window. Bin i stands for `stride` bases of it, from `offset + stride * i` on.

    Of `count` bins those from `start` up to `end` are as the long window has them, whatever stands around the window.
    """

    stride: int
    offset: int
    count: int
    start: int
    end: int


@dataclass(frozen=True)
class Shape:
    """What a tiler needs to know of a model.

    spans: from a window's length to its outputs, by name. grid: windows start at its multiples. admitted: the shortest
    length from a number on that the model takes. fixed: whether all windows must have the length of the first.
    """

    spans: Callable[[int], Mapping[str, Span]]
    grid: int = 1
    admitted: Callable[[int], int] = int
    fixed: bool = False


@dataclass(frozen=True)
class Bins:
    """An output over the whole sequence: `count` bins of `stride` bases, the first from `first` (<= 0) on.

    The last may end behind the sequence, or before its end where the model leaves a rest out. `zero` is the number of
    the first in the long window.
    """

    stride: int
    first: int
    count: int
    zero: int


@dataclass(frozen=True)
class Part:
    """What a window says of one output, in the sequence's bins.

    at: where its bin 0 would lie. start, end: those that are the long window's, and of the sequence; keep_start,
    keep_end: those of them that are this window's and no other's.
    """

    at: int
    start: int
    end: int
    keep_start: int
    keep_end: int


@dataclass(frozen=True)
class Window:
    """Bases from `start` up to `end` of a sequence; what lies before 0 or behind the sequence's end is N."""

    start: int
    end: int
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class Tiling:
    """Windows from left to right, whose kept bins are each bin of the sequence once.

    start, end: the long window of which they are parts. overlap: bases that the neighbours share at least.
    """

    length: int
    start: int
    end: int
    overlap: int
    bins: Mapping[str, Bins]
    windows: tuple[Window, ...]


def tile(length: int, window: int, shape: Shape, overlap: int = 0) -> Tiling:
    """Windows of `window` bases over a sequence of `length`, with at least `overlap` usable bases in common.

    The last window ends where the long one does, and is up to a grid's step longer than the others; a sequence shorter
    than a window is one window. Between two windows the cut is in the middle of what both may say.
    Errors: `TilingError` for a window that the model does not take or that is too short to get on, with one that fits.
    """
    if length < 1 or window < 1 or overlap < 0:
        raise TilingError(
            f"a sequence of {length} bases, windows of {window}, overlap {overlap}: wanted numbers from 1"
        )
    step = advance(window, shape, overlap)
    spans = shape.spans(window)
    lead = max(-(-span.offset // shape.grid) * shape.grid for span in spans.values())
    if shape.fixed:
        starts, end = _alike(length, window, lead, step, spans)
    else:
        end = _end(length, lead, shape)
        starts = _starts(end, window, lead, step, shape.grid)
    bounds = [(start, start + window) for start in starts]
    if not shape.fixed:
        bounds[-1] = (starts[-1], end)
    found = {bounds[0][1] - bounds[0][0]: spans, **{b - a: shape.spans(b - a) for a, b in bounds}}
    bins = {name: _bins(length, lead, bounds[-1][0], found[bounds[-1][1] - bounds[-1][0]][name]) for name in spans}
    parts = {name: _parts(bins[name], lead, bounds, [found[b - a][name] for a, b in bounds]) for name in spans}
    windows = tuple(Window(a, b, {name: parts[name][k] for name in spans}) for k, (a, b) in enumerate(bounds))
    return Tiling(length, -lead, end, overlap, bins, windows)


def advance(window: int, shape: Shape, overlap: int = 0) -> int:
    """How far one window may start from the one before.

    Errors: `TilingError` where that is nowhere, with a window that gets on.
    """
    if (fits := shape.admitted(window)) != window:
        raise TilingError(f"the model takes no window of {window:,} bases; from there on the shortest is {fits:,}")
    step = _advance(window, shape, overlap)
    if step > 0:
        return step
    longer = window
    for _ in range(40):
        longer = shape.admitted(2 * longer)
        if _advance(longer, shape, overlap) > 0:
            break
    else:
        raise TilingError(f"windows of {window:,} bases don't get on, nor do longer ones")
    low = window  # a short one that gets on lies between
    while (middle := shape.admitted((low + longer) // 2)) < longer and middle > low:
        low, longer = (low, middle) if _advance(middle, shape, overlap) > 0 else (middle, longer)
    raise TilingError(
        f"of a window of {window:,} bases nothing is left once what its ends decide and an overlap of {overlap:,} are "
        f"taken off; windows of {longer:,} bases get on"
    )


def _advance(window: int, shape: Shape, overlap: int) -> int:
    spans = shape.spans(window).values()
    first = max(span.offset + span.stride * span.start for span in spans)
    last = min(span.offset + span.stride * span.end for span in spans)
    return (last - first - overlap) // shape.grid * shape.grid


def _alike(length: int, window: int, lead: int, step: int, spans: Mapping[str, Span]) -> tuple[list[int], int]:
    """Starts of windows of one length that reach over the whole sequence, and the end of the last."""
    reach = min(span.offset + span.stride * span.count for span in spans.values())
    more = max(0, -(-(length + lead - reach) // step))
    return [k * step - lead for k in range(more + 1)], more * step - lead + window


def _end(length: int, lead: int, shape: Shape) -> int:
    """Where the long window ends: at the sequence's end, or as far behind it as the model needs."""
    total = _padded(length + lead, shape)
    for _ in range(100):
        reach = min(span.offset + span.stride * span.count for span in shape.spans(total).values())
        if not lead or reach - lead >= length:  # a rest that pools leave out is no crop
            return total - lead
        total = _padded(total + length + lead - reach, shape)
    raise TilingError(f"no window reaches over a sequence of {length:,} bases")


def _padded(total: int, shape: Shape) -> int:
    """This length if the model takes it; else the grid's next multiple, or what else it takes."""
    whole = -(-total // shape.grid) * shape.grid
    fits = shape.admitted(total)
    return whole if fits != total and shape.admitted(whole) == whole else fits


def _starts(end: int, window: int, lead: int, step: int, grid: int) -> list[int]:
    last = max(0, (end + lead - window) // grid * grid)
    return [*(start - lead for start in range(0, last, step)), last - lead]


def _bins(length: int, lead: int, start: int, last: Span) -> Bins:
    """The sequence's bins, where the last window begins at `start`."""
    stride = last.stride
    zero = max(0, (lead - last.offset) // stride)
    first = last.offset - lead + zero * stride
    there = (start + lead) // stride + last.count - zero
    return Bins(stride, first, max(0, min(there, -(-(length - first) // stride))), zero)


def _parts(bins: Bins, lead: int, bounds: list[tuple[int, int]], spans: list[Span]) -> list[Part]:
    usable = []
    for k, ((start, _), span) in enumerate(zip(bounds, spans, strict=True)):
        at = (start + lead) // bins.stride - bins.zero
        low = at + (span.start if k else 0)
        high = at + (span.end if k + 1 < len(bounds) else span.count)
        usable.append((at, min(max(low, 0), bins.count), min(max(high, 0), bins.count)))
    cuts = [0, *((low + high) // 2 for (_, _, high), (_, low, _) in zip(usable, usable[1:], strict=False)), bins.count]
    return [Part(at, low, high, cuts[k], cuts[k + 1]) for k, (at, low, high) in enumerate(usable)]
