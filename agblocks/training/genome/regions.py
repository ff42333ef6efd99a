"""Stretches of chromosomes: from a BED file, from Python, or whole chromosomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ...data import DataError
from ...data.errors import count
from ...data.tracks import ChromosomeNames

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
        lines = _lines(Path(regions))
        cells = [(f"line {number}", line.split("\t") if "\t" in line else line.split()) for number, line in lines]
    else:
        where = ""
        cells = [(f"region {number}", [str(part) for part in region]) for number, region in enumerate(regions, start=1)]
    for place, parts in cells:
        try:
            found.append(_region(parts, lengths, names))
        except DataError as error:
            problems.append(f"{place}: {error}")
    if problems:
        raise DataError(f"{where}{count(len(problems), 'region')} cannot be used", problems)
    if not found:
        raise DataError(f"{where}no regions; wanted chromosome, start and end of each, from 0, without the end")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    skipped = ("#", "track ", "browser ")
    return [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.startswith(skipped)]


def _region(cells: Sequence[str], lengths: Mapping[str, int], names: ChromosomeNames) -> Region:
    if len(cells) < 3 or not (cells[1].isdecimal() and cells[2].isdecimal()):
        raise DataError(f"found {' '.join(cells)[:60]!r}; wanted chromosome, start and end")
    name, start, end = names.want(cells[0], lengths, "the genome"), int(cells[1]), int(cells[2])
    if not start < end <= lengths[name]:
        raise DataError(f"{cells[0]}:{start:,}-{end:,}; wanted a start below its end, and that up to {lengths[name]:,}")
    return name, start, end


def _joined(stretches: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(stretches):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
