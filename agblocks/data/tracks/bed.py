"""BED files: their lines, and what one interval says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DataError
from .names import ChromosomeNames

_HEADS = ("track", "browser")


def bed_lines(path: str | Path) -> list[tuple[int, list[str]]]:
    """Each interval's line number and cells; comments, headers and empty lines left out. Errors: `DataError`."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    kept = [(n, line) for n, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    kept = [(n, line) for n, line in kept if line.split(None, 1)[0] not in _HEADS]
    return [(n, line.split("\t") if "\t" in line else line.split()) for n, line in kept]


def interval(cells: Sequence[str], lengths: Mapping[str, int], names: ChromosomeNames) -> tuple[str, int, int]:
    """Chromosome by the genome's name, start and stop, from 0 and without the stop. Errors: `DataError`."""
    if len(cells) < 3 or not (cells[1].isdecimal() and cells[2].isdecimal()):
        raise DataError(f"found {' '.join(cells)[:60]!r}; wanted chromosome, start and stop, apart by tabs")
    name, start, stop = names.want(cells[0], lengths, "the genome"), int(cells[1]), int(cells[2])
    if not start < stop <= lengths[name]:
        raise DataError(
            f"{cells[0]}:{start:,}-{stop:,}; wanted a start below its stop, and that up to {lengths[name]:,}"
        )
    return name, start, stop
