"""The mean of every group, target and metric over its units, with an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...training.scores.metrics import METRICS
from .. import statistics
from .groups import Grouped
from .kept import Kept

# Ranks are sorted for every resample, so Spearman's interval is made of fewer.
RESAMPLES = {"pearson": 1000, "spearman": 100, "mse": 1000}
_NAN = float("nan")


@dataclass(frozen=True)
class Mean:
    """A mean over units (fold, seed), its interval (nan where there is none), and how many units were planned."""

    mean: float
    low: float
    high: float
    units: int
    planned: int


Means = Mapping[tuple[int, str, str], Mean]  # by group, target and metric


def means(grouped: Grouped, kept: Kept) -> Means:
    """Every mean there is; a cell that stands for several units counts once.

    Where predictions of a cell are not there, its group's mean is that of the scores, without an interval.
    """
    made: dict[tuple[int, str, str], Mean] = {}
    for metric in METRICS:
        units = {}
        for group in grouped.groups:
            planned = len(set(group.units.values()))
            for target in grouped.targets(group):
                scores = {group.units[u]: v for u, v in grouped.values(group, target, metric).items()}
                if not scores:
                    continue
                plain = sum(scores.values()) / len(scores)
                made[group.number, target, metric] = Mean(plain, _NAN, _NAN, len(scores), planned)
                found = kept.once(group, target)
                if len(found) == len(scores):
                    units[group.number, target] = found
        for (number, target), mean in statistics.means(units, metric=metric, resamples=RESAMPLES[metric]).items():
            planned = made[number, target, metric].planned
            made[number, target, metric] = Mean(mean.mean, mean.low, mean.high, mean.units, planned)
    return made
