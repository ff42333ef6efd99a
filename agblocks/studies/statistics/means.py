"""The mean score of each group of units, with its interval."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from .family import half_width
from .paired import LEVEL, RESAMPLES
from .tables import lay
from .units import Groups


@dataclass(frozen=True)
class Mean:
    """The mean of a group's units and its interval, of this group alone; nan with fewer than two units.

    Use when: drawing error bars. Two groups whose bars overlap may well differ: `paired` knows what they share.
    """

    group: Hashable
    metric: str
    mean: float
    low: float
    high: float
    units: int
    folds: int
    seeds: int
    rows: int
    missing: int


def means(
    groups: Groups, *, metric: str = "pearson", level: float = LEVEL, resamples: int = RESAMPLES, seed: int = 0
) -> dict[Any, Mean]:
    """The mean over folds and seeds of each group, with an interval by the same `Spread` as differences have.

    `missing` counts units without a score. Errors: as `paired`.
    """
    made = {}
    for name, table in zip(groups, lay(groups, [(g, None) for g in groups], metric, resamples, seed), strict=True):
        mean, wide = table.mean(), float("nan")
        if table.units > 1:
            found = table.spread()
            wide = half_width(found.error, found.freedom, level)
        counts = (table.units, table.folds, table.seeds, table.rows, table.missing)
        made[name] = Mean(name, metric, mean, mean - wide, mean + wide, *counts)
    return made
