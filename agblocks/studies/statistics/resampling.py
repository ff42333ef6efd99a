"""Scores of many units at once, and the same under resamples of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...errors import near
from ...training.scores.metrics import METRICS, why_no_correlation
from ...training.scores.resampled import draw_counts, weighted_pearson, weighted_spearman
from .units import Unit, UnitsError

Array = NDArray[np.float64]
_CELLS = 4_000_000  # numbers a temporary may hold


@dataclass(frozen=True)
class Resampled:
    """Shapes: values (units,), nan where there is no correlation; draws (resamples, units); rows (units,)."""

    values: Array
    draws: Array
    rows: NDArray[np.int64]


def resampled(units: Sequence[Unit], metric: str, resamples: int, seed: int) -> Resampled:
    """Scores of units, and their scores under resamples of rows; units of the same rows are resampled together.

    Resamples hang on the rows and the seed alone, not on which other units there are.
    Errors: `UnitsError` for an unknown metric.
    Costs: Pearson and squared error are matrix products; Spearman sorts every resample of every unit.
    """
    if metric not in METRICS:
        raise UnitsError(f"there is no metric {metric!r}; {near(metric, METRICS)}")
    values, sizes = np.full(len(units), np.nan), np.zeros(len(units), np.int64)
    draws = np.full((resamples, len(units)), np.nan)
    blocks: dict[bytes, list[int]] = {}
    for i, unit in enumerate(units):
        blocks.setdefault(unit.rows, []).append(i)
    for rows, members in blocks.items():
        observed = np.asarray(units[members[0]].observed, np.float64)
        there = ~np.isnan(observed)
        observed = observed[there]
        sizes[members] = len(observed)
        predicted = np.stack([np.asarray(units[i].predicted, np.float64)[there] for i in members], axis=1)
        if metric != "mse":
            good = [c for c in range(len(members)) if not why_no_correlation(predicted[:, c], observed)]
            members, predicted = [members[c] for c in good], predicted[:, good]
        if not members or not len(observed):
            continue
        rng = np.random.default_rng([seed, int.from_bytes(rows[:8], "big")])
        counts = draw_counts(rng, len(observed), resamples)
        step = max(1, _CELLS // max(len(counts), len(observed)))
        for start in range(0, len(members), step):
            some, columns = members[start : start + step], predicted[:, start : start + step]
            values[some] = _scores(np.ones((1, len(observed))), columns, observed, metric)[0]
            draws[:, some] = _scores(counts, columns, observed, metric)
    return Resampled(values, draws, sizes)


def _scores(counts: Array, predicted: Array, observed: Array, metric: str) -> Array:
    """Shapes: counts (times, n), predicted (n, columns), observed (n,) -> (times, columns)."""
    if metric == "mse":
        return counts @ (predicted - observed[:, None]) ** 2 / counts.sum(axis=1, keepdims=True)
    if metric == "pearson":
        return weighted_pearson(counts, predicted, observed[:, None])
    return weighted_spearman(counts, predicted, observed)
