"""Many comparisons at once: how sure each must be so that all of them together are as sure as was asked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_DRAWS = 20_000


def two_sided(estimate: float, error: float, freedom: float) -> float:
    """The p-value of a t statistic; 1 where the error is 0, as nothing follows from it."""
    from scipy.special import stdtr

    return float(2 * stdtr(freedom, -abs(estimate) / error)) if error > 0 else 1.0


def half_width(error: float, freedom: float, level: float) -> float:
    """Half of a t interval at a level like 0.95."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + level) / 2)) * error if error > 0 else 0.0


def simultaneous(p: Array, draws: Array, shared: Array, level: float, seed: int) -> tuple[Array, float]:
    """Adjusted p-values, and the level that each interval must have for all to hold together at `level`.

    The single-step procedure of Westfall and Young: the least p-value of the family is what must be rare. Its
    distribution is simulated with normal variables that are correlated as the comparisons are under the bootstrap of
    rows (comparisons with one reference on the same rows are, much) as far as their variance comes from rows; the
    rest, from folds and seeds, counts as independent, because few folds cannot tell a correlation, and independence
    is the least favourable. So it lies between no correction and Bonferroni's, and never beyond either. An adjusted
    p-value is at most 1 - level exactly where the interval at that level leaves out zero.

    Shapes: p (comparisons,), draws (resamples, comparisons), shared (comparisons,): how much of the variance is rows'.
    """
    from scipy.special import ndtr

    family = len(p)
    if family < 2:
        return p.copy(), level
    rng = np.random.default_rng(seed)
    centred = np.where(np.isfinite(draws), draws, np.nanmean(draws, axis=0)) - np.nanmean(draws, axis=0)
    norm = np.sqrt((centred**2).sum(axis=0))
    unit = np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 0)
    # root'root is their correlation.
    root = unit if family > len(unit) else np.linalg.cholesky(unit.T @ unit + 1e-9 * np.eye(family)).T
    shared = np.where(norm > 0, shared, 0.0)
    largest = np.empty(_DRAWS)
    step = max(1, 20_000_000 // (family + len(root)))
    for start in range(0, _DRAWS, step):
        some = min(step, _DRAWS - start)
        made = rng.standard_normal((some, len(root))) @ root * np.sqrt(shared)
        made += rng.standard_normal((some, family)) * np.sqrt(1 - shared)
        largest[start : start + some] = np.abs(made).max(axis=1)
    least = np.sort(2 * ndtr(-largest))
    rare = least[max(0, int((1 - level) * (_DRAWS + 1)) - 1)]
    rare = float(np.clip(rare, (1 - level) / family, 1 - level))
    rarer = (np.searchsorted(least, p, side="right") + 1) / (_DRAWS + 1)
    adjusted = np.clip(rarer, p, np.minimum(1.0, p * family))
    # Both sides of one decision, whatever the simulation's last digit says.
    inside = p >= rare
    adjusted = np.where(inside, np.maximum(adjusted, np.nextafter(1 - level, 1)), np.minimum(adjusted, 1 - level))
    return adjusted, 1 - rare
