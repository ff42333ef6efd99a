"""Predictions that the cells kept, as the units that the statistics take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...training.scores.metrics import pearson
from ..statistics import Unit, UnitsError
from ..written import Result, Scored
from .groups import Group, Grouped

_CLOSE = 1e-3


@dataclass(frozen=True)
class Kept:
    """Units by group and target, and which files were refused: cells without predictions are in none."""

    units: Mapping[tuple[int, str], Sequence[Unit]]
    problems: tuple[str, ...]

    def once(self, group: Group, target: str) -> list[Unit]:
        """The units of a group, those of one cell that stands for several once."""
        found: dict[int, Unit] = {}
        for unit in self.units.get((group.number, target), ()):
            found.setdefault(id(unit.predicted), unit)
        return list(found.values())


def kept(grouped: Grouped) -> Kept:
    """Read every finished cell's predictions.parquet; a file that is damaged, or not of its result, is refused."""
    read: dict[str, Mapping[str, Unit]] = {}
    problems: list[str] = []
    for cell in grouped.results.cells.values():
        path = grouped.results.predictions(cell.id)
        if cell.result is not None:
            try:
                read[cell.id] = _read(path, cell.result)
            except (UnitsError, _Refused) as error:
                problems.append(f"{path}: {error}")
    units: dict[tuple[int, str], list[Unit]] = {}
    for group in grouped.groups:
        for unit, cell_id in group.units.items():
            fold, seed = _names(unit, grouped.over)
            for target, made in read.get(cell_id, {}).items():
                # The same arrays under the names that they have in this group.
                units.setdefault((group.number, target), []).append(
                    Unit(fold, seed, made.ids, made.observed, made.predicted)
                )
    return Kept(units, tuple(problems))


class _Refused(Exception):
    """A file that is not what it should be."""


def _read(path: Path, result: Result) -> dict[str, Unit]:
    """A cell's test rows by target."""
    import pyarrow
    import pyarrow.parquet

    try:
        columns = pyarrow.parquet.ParquetFile(path).read(use_threads=False)
        ids = columns.column("id").to_pylist()
        made = {}
        for score in result.scores.get("test", ()):
            pair = [columns.column(f"{part}_{score.target}").to_numpy() for part in ("observed", "predicted")]
            observed, predicted = (np.asarray(values, np.float64) for values in pair)
            made[score.target] = Unit("", "", ids, observed, predicted)
            _check(score, observed, predicted)
    except FileNotFoundError:
        raise _Refused("there is no such file, so this cell has no interval") from None
    except (OSError, pyarrow.ArrowException, KeyError, ValueError, TypeError) as error:
        raise _Refused(f"cannot be read: {str(error).partition(chr(10))[0]}") from None
    return made


def _check(score: Scored, observed: np.ndarray, predicted: np.ndarray) -> None:
    """The rows are those that were scored."""
    there = ~np.isnan(observed)
    if there.sum() != score.n:
        raise _Refused(f"{int(there.sum())} rows of {score.target}, but its result was scored on {score.n}")
    if score.pearson is not None:
        found = pearson(predicted[there], observed[there])
        if not abs(found - score.pearson) < _CLOSE:
            raise _Refused(
                f"Pearson's r of {score.target} is {found:.4f} in these rows, {score.pearson:.4f} in the result"
            )


def _names(unit: Sequence[str], over: Sequence[str]) -> tuple[str, str]:
    """Fold and seed of a unit; other axes that are averaged over count as part of the seed."""
    held = dict(zip(over, unit, strict=True))
    fold = held.pop("fold", "")
    return fold, "/".join(held.values())
