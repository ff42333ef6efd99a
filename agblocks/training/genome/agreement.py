"""How far neighbouring windows agree where both say something."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
_SUMS = ("x", "y", "xx", "yy", "xy", "apart", "at_cut")


@dataclass
class Agreement:
    """Differences between two windows' predictions of the same bins, by track; nothing is kept but sums.

    Use when: a recipe sees everything, so that a bin's prediction hangs on its window: what a seam costs.
    """

    tracks: int
    bins: int = 0
    cuts: int = 0
    sums: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    largest: Values = field(default_factory=lambda: np.zeros(0, np.float32))

    def __post_init__(self) -> None:
        if not self.sums:
            self.sums = {name: np.zeros(self.tracks) for name in _SUMS}
            self.largest = np.zeros(self.tracks, np.float32)

    def add(self, before: Values, after: Values, cut: int) -> None:
        """Two windows' predictions of the same bins, (tracks, bins); `cut`: the first that is taken from the later."""
        if not before.shape[1]:
            return
        x, y = before.astype(np.float64), after.astype(np.float64)
        apart = np.abs(x - y)
        self.bins += x.shape[1]
        for name, value in zip(_SUMS, (x, y, x * x, y * y, x * y, apart), strict=False):
            self.sums[name] += value.sum(1)
        self.largest = np.maximum(self.largest, apart.max(1).astype(np.float32))
        self.cuts += 1
        self.sums["at_cut"] += apart[:, min(max(cut, 0), x.shape[1] - 1)]

    def merge(self, other: Agreement) -> None:
        """The same over more windows."""
        self.bins, self.cuts = self.bins + other.bins, self.cuts + other.cuts
        for name, value in other.sums.items():
            self.sums[name] = self.sums[name] + value
        self.largest = np.maximum(self.largest, other.largest)

    def reordered(self, order: list[int]) -> Agreement:
        """With the tracks in another order."""
        sums = {name: value[order] for name, value in self.sums.items()}
        return Agreement(len(order), self.bins, self.cuts, sums, self.largest[order])

    def told(self) -> list[dict[str, Any]]:
        """By track: mean and largest difference, the mean one at the cut, all as predicted; Pearson r; mean prediction.

        None where nothing was compared, or where one side has no spread.
        """
        n = self.bins
        if not n:
            return [dict.fromkeys(("mean", "max", "at_cut", "pearson", "prediction")) for _ in range(self.tracks)]
        s = self.sums
        spread = np.sqrt(np.maximum((s["xx"] - s["x"] ** 2 / n) * (s["yy"] - s["y"] ** 2 / n), 0))
        covariance = s["xy"] - s["x"] * s["y"] / n
        floor = 1e-12 * np.sqrt(s["xx"] * s["yy"])  # what rounding leaves of a track that does not move
        return [
            {
                "mean": float(s["apart"][i] / n),
                "max": float(self.largest[i]),
                "at_cut": float(s["at_cut"][i] / self.cuts),
                "pearson": float(np.clip(covariance[i] / spread[i], -1, 1)) if spread[i] > floor[i] else None,
                "prediction": float((s["x"][i] + s["y"][i]) / (2 * n)),
            }
            for i in range(self.tracks)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sums = {name: value.tolist() for name, value in self.sums.items()}
        return {"bins": self.bins, "cuts": self.cuts, "sums": sums, "largest": self.largest.tolist()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Agreement:
        """What `to_dict` wrote."""
        sums = {name: np.array(value, np.float64) for name, value in values["sums"].items()}
        largest = np.array(values["largest"], np.float32)
        return cls(len(largest), values["bins"], values["cuts"], sums, largest)
