"""Stretches of chromosomes: from a BED file, from Python, or whole chromosomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...data import DataError
from ...data.errors import count
from ...data.tracks import ChromosomeNames
from ...data.tracks.bed import bed_lines, interval

Region = tuple[str, int, int]


def chosen(
    lengths: Mapping[str, int],
    chromosomes: Sequence[str] | None = None,
    regions: str | Path | Iterable[Region] | None = None,
    names: ChromosomeNames | None = None,
) -> dict[str, list[tuple[int, int]]]:
    """For each chromosome of the genome that is wanted, in the genome's order, its stretches, joined where they touch.

    lengths: the genome's chromosomes. Without chromosomes and regions all of them, whole; with both, the regions on
    these chromosomes.
    Errors: `DataError` for chromosomes that the genome lacks, and for regions beyond their ends, with file and line.
    """
    names = names or ChromosomeNames()
    wanted = None if chromosomes is None else {names.want(name, lengths, "the genome") for name in chromosomes}
    if regions is None:
        found = {name: [(0, length)] for name, length in lengths.items()}
    else:
        found = {}
        for name, start, end in _read(regions, lengths, names):
            found.setdefault(name, []).append((start, end))
    kept = {n: _joined(found[n]) for n in lengths if n in found and (wanted is None or n in wanted)}
    if not kept:
        raise DataError("nothing is wanted: no region lies on the chromosomes that are asked for")
    return kept


def _read(regions: str | Path | Iterable[Region], lengths: Mapping[str, int], names: ChromosomeNames) -> list[Region]:
    found: list[Region] = []
    problems: list[str] = []
    if isinstance(regions, (str, Path)):
        where = f"{regions}: "
        cells = [(f"line {number}", parts) for number, parts in bed_lines(regions)]
    else:
        where = ""
        cells = [(f"region {number}", [str(part) for part in region]) for number, region in enumerate(regions, start=1)]
    for place, parts in cells:
        try:
            found.append(interval(parts, lengths, names))
        except DataError as error:
            problems.append(f"{place}: {error}")
    if problems:
        raise DataError(f"{where}{count(len(problems), 'region')} cannot be used", problems)
    if not found:
        raise DataError(f"{where}no regions; wanted chromosome, start and end of each, from 0, without the end")
    return found


def _joined(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
