"""How far a mean over folds and seeds may be off: by the rows that were held out, by the folds, by the seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Spread:
    """Variances of a mean over units, and the degrees of freedom of their sum (Satterthwaite).

    * `rows`: by a bootstrap of the held-out rows within each fold, the same rows for all seeds and models.
    * `folds`: from how much the folds' means differ. These differ by their rows as well, so rows count twice. That is
      what makes up for folds that share training rows, whose scores are not independent: no unbiased estimate from
      the folds alone exists, and the correction of Nadeau and Bengio (2003), 1/k + test rows / training rows for
      1/k, comes to twice the variance for a full cross-validation. With one fold it is taken to be as large as `rows`.
    * `seeds`: from how much seeds differ in the mean over folds, as they do where a seed stands for one encoder drawn
      at random, or for one pretrained model, in all folds. 0 with one seed, and where models have nothing random.

    Simulated with ridge on exchangeable features, 95% intervals of this kind leave out zero for equal methods in 1 to 4
    of 100 cases; of rows alone in 6 to 35; of Nadeau and Bengio's t on folds in 1 to 14 (`python -m benchmarks
    intervals`).
    """

    rows: float
    folds: float
    seeds: float
    freedom: float

    @property
    def variance(self) -> float:
        return self.rows + self.folds + self.seeds

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.variance))


def mean_of(table: Array) -> float:
    """The mean of the folds' means. Shapes: table (folds, seeds), nan where a unit is missing."""
    return float(np.nanmean(table, axis=1).mean())


def weights_of(table: Array) -> Array:
    """What each unit counts in `mean_of`; 0 where it is missing. Shapes: (folds, seeds) -> (folds, seeds)."""
    there = ~np.isnan(table)
    return there / (there.sum(axis=1, keepdims=True) * len(table))


def spread(table: Array, draws: Array, rows: int) -> Spread:
    """The spread of the mean over units.

    Shapes: table (folds, seeds), nan where a unit is missing, no fold without any; draws (resamples,): that mean under
    resamples of the rows, of which there are `rows` in all folds.
    """
    known = draws[np.isfinite(draws)]
    by_rows = float(known.var(ddof=1)) if len(known) > 1 else 0.0
    means = np.nanmean(table, axis=1)
    folds = len(means)
    by_folds = float(means.var(ddof=1) / folds) if folds > 1 else by_rows
    apart = (table - means[:, None])[:, (~np.isnan(table)).any(axis=0)]
    seeds = apart.shape[1]
    by_seeds = float((np.nanmean(apart, axis=0) ** 2).sum() / (seeds * (seeds - 1))) if seeds > 1 else 0.0
    by_seeds = 0.0 if by_seeds < 1e-20 else by_seeds
    parts = [(by_rows, max(rows - 1, 1)), (by_folds, folds - 1 if folds > 1 else max(rows - 1, 1))]
    parts += [(by_seeds, seeds - 1)] if seeds > 1 else []
    below = sum(part**2 / freedom for part, freedom in parts)
    total = by_rows + by_folds + by_seeds
    return Spread(by_rows, by_folds, by_seeds, total**2 / below if below > 0 else float(max(rows - 1, 1)))
