"""Windows of one length along a genome: tiled, or from a BED file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, count, near
from .bed import bed_lines, interval
from .names import ChromosomeNames

Ends = Literal["drop", "pad"]
Whole = NDArray[np.int64]
PARTS = ("train", "valid", "test")


@dataclass(frozen=True, eq=False)
class Windows:
    """n windows of `length` bases: their chromosomes, by number in `names`, and where they start, from 0.

    A window may pass its chromosome's ends (`ends="pad"`): there it is N, and targets are missing. `part`: what a BED
    says of each, "" where it says nothing. dropped: windows that were left out because they pass an end.
    """

    length: int
    names: tuple[str, ...]
    chromosome: Whole
    start: Whole
    part: tuple[str, ...] = ()
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.start)

    def where(self, row: int) -> str:
        """`chrIV:2,048-4,096`, from 0, without the end."""
        start = int(self.start[row])
        return f"{self.names[self.chromosome[row]]}:{start:,}-{start + self.length:,}"


def tile(
    lengths: Mapping[str, int], length: int, stride: int | None = None, *, ends: Ends = "drop",
    only: Sequence[str] | None = None,
) -> Windows:  # fmt: skip
    """Windows from each chromosome's start on, one every `stride` bases (default: side by side).

    lengths: of the chromosomes (`Genome.lengths`); only: these of them.
    ends: what becomes of a last window that passes the end: "drop" leaves its bases out, "pad" fills it with N.
    Errors: `DataError` for sizes below 1, an unknown chromosome, or if there is no window.
    """
    step = length if stride is None else stride
    if length < 1 or step < 1:
        raise DataError(f"windows of {length} bases every {step}: wanted whole numbers from 1")
    _check_ends(ends)
    chosen = list(lengths) if only is None else [ChromosomeNames().want(n, lengths, "the genome") for n in only]
    starts, where, dropped = [], [], 0
    for number, name in enumerate(chosen):
        whole = max(0, (lengths[name] - length) // step + 1)
        covering = max(1, -(-(lengths[name] - length) // step) + 1)
        kept = whole if ends == "drop" else covering
        dropped += covering - kept
        starts.append(np.arange(kept, dtype=np.int64) * step)
        where.append(np.full(kept, number, dtype=np.int64))
    made = Windows(
        length, tuple(chosen), np.concatenate([*where, _NONE]), np.concatenate([*starts, _NONE]), (), dropped
    )
    if not len(made):
        longest = max((lengths[name] for name in chosen), default=0)
        raise DataError(
            f"no window of {length:,} bases: the longest chromosome has {longest:,}; ends='pad' would fill it"
        )
    return made


def read_bed(
    path: str | Path,
    lengths: Mapping[str, int],
    length: int | None = None,
    *,
    names: ChromosomeNames | None = None,
    ends: Ends = "drop",
) -> Windows:
    """The intervals of a BED file; with `length` the window of that many bases around the middle of each.

    Without `length` all have to be of one. A fourth column that says train, valid or test in every line is each one's
    part. Chromosomes may go by other names than in `lengths`. ends: as `tile`; it is about windows: an interval that
    passes its chromosome's end is an error.
    Errors: `DataError` with file and line for all lines that are no intervals.
    """
    _check_ends(ends)
    if length is not None and length < 1:
        raise DataError(f"windows of {length} bases: wanted a whole number from 1")
    names = names or ChromosomeNames()
    problems: list[str] = []
    found: list[tuple[int, str, int, int, str]] = []
    for number, cells in bed_lines(path):
        try:
            found.append((number, *interval(cells, lengths, names), cells[3].strip() if len(cells) > 3 else ""))
        except DataError as error:
            problems.append(f"line {number}: {error}")
    sizes = {stop - start for _, _, start, stop, _ in found}
    if length is None and len(sizes) > 1:
        size = found[0][3] - found[0][2]
        odd = next(f for f in found if f[3] - f[2] != size)
        problems.append(
            f"line {odd[0]}: {odd[3] - odd[2]:,} bases, the first interval has {size:,}; a length makes them one"
        )
    if problems:
        raise DataError(f"{path}: {count(len(problems), 'line')} of it cannot be used", problems)
    if not found:
        raise DataError(f"{path}: no intervals in it; wanted lines of chromosome, start and stop, apart by tabs")
    return _windows(found, lengths, length or sizes.pop(), ends, str(path))


def _windows(
    found: Iterable[tuple[int, str, int, int, str]], lengths: Mapping[str, int], length: int, ends: Ends, where: str
) -> Windows:
    order = {name: i for i, name in enumerate(lengths)}
    rows = [(order[name], start + (stop - start - length) // 2, part) for _, name, start, stop, part in found]
    chromosome, start = (np.array(values, dtype=np.int64) for values in list(zip(*rows, strict=True))[:2])
    ends_at = np.array(list(lengths.values()), dtype=np.int64)[chromosome]
    kept = np.full(len(rows), ends == "pad") | ((start >= 0) & (start + length <= ends_at))
    if not kept.any():
        raise DataError(
            f"{where}: all {len(rows)} windows of {length:,} bases pass a chromosome's end; ends='pad' keeps them"
        )
    parts = [row[2] for row, keep in zip(rows, kept, strict=True) if keep]
    said = tuple(parts) if all(part in PARTS for part in parts) else ()
    return Windows(length, tuple(lengths), chromosome[kept], start[kept], said, int((~kept).sum()))


def _check_ends(ends: str) -> None:
    if ends not in get_args(Ends):
        raise DataError(f"ends is {ends!r}; {near(ends, get_args(Ends))}")


_NONE = np.zeros(0, dtype=np.int64)
