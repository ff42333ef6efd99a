"""Which penalty of a ridge regression serves validation rows best."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..scores.resampled import weighted_pearson
from .spectrum import shrunk

Array = NDArray[np.float64]
_TIE = 1e-6  # correlations that differ by less are one
_FURTHEST = 6  # decades beyond either end of a grid that is widened
_LARGE = 100.0  # times the largest eigenvalue: from there on a penalty changes the scale of predictions alone


@dataclass
class Search:
    """The penalties of one target that were tried, and what they gave on the validation rows.

    Shapes: values and load (rank,) as `Spectrum` gives them, seen (rows, rank), wanted (rows,) less the fitted mean.
    """

    values: Array
    load: Array
    seen: Array
    wanted: Array
    pearson: dict[float, float] = field(default_factory=dict)
    squared: dict[float, float] = field(default_factory=dict)

    def run(self, grid: list[float], widen: bool) -> Search:
        """Try a grid in ascending order; then, as long as an end of it is best, go on from there by its own step.

        Upwards no further than where predictions only shrink, until nothing but their mean is left of them.
        """
        self._try(grid)
        low, high = grid[0], grid[-1]
        step = 10**0.5 if len(grid) < 2 else (high / low) ** (1 / (len(grid) - 1))
        most = min(high * 10**_FURTHEST, self._large) * (1 + 1e-9)
        while widen:
            chosen = self.best
            if chosen == max(self.pearson) and chosen * step <= most:
                self._try([chosen * step])
            elif chosen == min(self.pearson) and chosen / step >= low / 10**_FURTHEST * (1 - 1e-9):
                self._try([chosen / step])
            else:
                break
        return self

    @property
    def best(self) -> float:
        """By Pearson; among ties by squared error, which knows the scale that Pearson doesn't; then the largest."""
        known = {p: r for p, r in self.pearson.items() if not np.isnan(r)}
        tied = [p for p, r in known.items() if r >= max(known.values()) - _TIE] or list(self.pearson)
        least = min(self.squared[p] for p in tied)
        return max(p for p in tied if self.squared[p] <= least * (1 + 1e-12))

    def note(self, grid: list[float]) -> str:
        """What to know about the choice; "" where there is nothing."""
        chosen, low, high = self.best, grid[0], grid[-1]
        if np.isnan(list(self.pearson.values())).all():
            return "no validation correlation at any penalty (predictions or measurements are constant)"
        if chosen == max(self.pearson) and chosen * 10 > self._large:
            return f"the chosen penalty {chosen:g} is so large that every feature counts as if it were alone"
        if chosen in (min(self.pearson), max(self.pearson)):
            return f"the chosen penalty {chosen:g} is the {_end(chosen, self.pearson)} that was tried: widen the grid"
        if not low <= chosen <= high:
            return f"the chosen penalty {chosen:g} lies beyond the grid of {low:g} to {high:g}, which was widened"
        return ""

    @property
    def _large(self) -> float:
        return _LARGE * float(self.values.max())

    def _try(self, some: list[float]) -> None:
        made = self.seen @ shrunk(self.values[:, None], self.load[:, None], np.array(some))
        made[:, np.ptp(made, axis=0) <= 1e-12 * np.abs(made).max(axis=0)] = 0.0  # one prediction for all rows
        r = weighted_pearson(np.ones((1, len(made))), made, self.wanted[:, None])[0]
        error = np.mean((made - self.wanted[:, None]) ** 2, axis=0)
        self.pearson.update(zip(some, r.tolist(), strict=True))
        self.squared.update(zip(some, error.tolist(), strict=True))


def _end(chosen: float, tried: dict[float, float]) -> str:
    return "only one" if len(tried) == 1 else "least" if chosen == min(tried) else "largest"
