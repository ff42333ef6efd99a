"""Correlations of tracks from sums, so that a genome of bins needs no more memory than its blocks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import RunError
from ..scores.metrics import Interval, Plain

Array = NDArray[np.float64]
_NAN = float("nan")
_FEWEST_TRACKS = 3


@dataclass(frozen=True)
class TrackScore(Plain):
    """Agreement on one track, over all bins of all windows that were scored.

    pearson: of values as measured; log_pearson: of log(1 + value), where a few high bins don't rule. Intervals are 95%
    bootstraps over blocks along the genome, because neighbouring bins are no independent rows; `reason` says why there
    is none. n: bins; blocks: how many blocks they lie in. mse: of values as measured.
    """

    head: str
    track: str
    resolution: int
    n: int
    blocks: int
    pearson: float
    log_pearson: float
    mse: float
    pearson_interval: Interval = (_NAN, _NAN)
    log_interval: Interval = (_NAN, _NAN)
    reason: str = ""


@dataclass(frozen=True)
class AcrossScore(Plain):
    """Agreement across tracks: Pearson over the tracks of a bin (log(1 + value / mean of the track)), averaged over the
    bins where all are known and neither side is constant. It asks whether a bin's profile is right, not its height.
    """

    head: str
    resolution: int
    n: int
    pearson: float
    interval: Interval = (_NAN, _NAN)


class Moments:
    """Sums over bins for one head, a row a block. unit: a value of each track that is typical of it."""

    def __init__(self, head: str, names: tuple[str, ...], resolution: int, unit: tuple[float, ...]):
        self.head, self.names, self.resolution, self.unit = head, names, resolution, unit
        self._sums: dict[int, Array] = {}
        self._across: dict[int, Array] = {}

    def add(self, made: Tensor, wanted: Tensor, blocks: NDArray[np.int64] | None = None) -> None:
        """Take in windows, as measured; NaN where nothing was. blocks: the block of each window; all one without it.

        Shapes: made, wanted (batch, tracks, bins), blocks (batch,).
        Errors: `RunError` for a prediction that is not finite where there is a measurement.
        """
        made, wanted = made.detach().double(), wanted.detach().double()
        there = ~wanted.isnan()
        if not bool(torch.isfinite(made[there]).all()):
            raise RunError(f"head {self.head!r}: predictions that are not finite; a lower learning rate may help")
        plain = _sums(made, wanted, there)
        logs = _sums(made.clamp(min=0).log1p(), wanted.clamp(min=0).log1p(), there)
        each = torch.stack([plain, logs], 2).cpu().numpy()  # (batch, tracks, 2, 6)
        across = self._profiles(made, wanted, there).cpu().numpy()
        labels = np.zeros(len(each), dtype=np.int64) if blocks is None else blocks
        for i, block in enumerate(labels.tolist()):
            self._sums[block] = self._sums.get(block, 0) + each[i]
            self._across[block] = self._across.get(block, 0) + across[i]

    def scores(self, bootstrap: int = 0, seed: int = 0) -> tuple[list[TrackScore], AcrossScore | None]:
        """A score for each track, and one across tracks if there are at least three.

        bootstrap: resamples of blocks for the intervals; 0 for none.
        """
        blocks = sorted(self._sums)
        if not blocks:
            raise RunError(f"head {self.head!r}: no window was scored")
        sums, across = (np.stack([of[b] for b in blocks]) for of in (self._sums, self._across))
        total = sums.sum(0)
        drawn = np.zeros((0, len(blocks)))
        if bootstrap and len(blocks) > 1:
            rng = np.random.default_rng(seed)
            drawn = rng.multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), size=bootstrap).astype(float)
        resampled = _pearson(np.einsum("rb,btks->rtks", drawn, sums))
        point = _pearson(total)
        out = []
        for i, name in enumerate(self.names):
            n = int(total[i, 0, 0])
            error = total[i, 0, 3] + total[i, 0, 4] - 2 * total[i, 0, 5]
            reason = _why_not(total[i, 0])
            plain, logs = (_interval(resampled[:, i, k]) if not reason else (_NAN, _NAN) for k in range(2))
            out.append(
                TrackScore(
                    self.head, name, self.resolution, n, int((sums[:, i, 0, 0] > 0).sum()),
                    _NAN if reason else float(point[i, 0]), _NAN if reason else float(point[i, 1]),
                    float(error / n) if n else _NAN, plain, logs, reason,
                )
            )  # fmt: skip
        return out, self._mean_profile(across, drawn)

    def _mean_profile(self, across: Array, drawn: Array) -> AcrossScore | None:
        if len(self.names) < _FEWEST_TRACKS:
            return None
        count, total = across.sum(0)
        with np.errstate(invalid="ignore", divide="ignore"):
            parts = drawn @ across
            means = parts[:, 1] / parts[:, 0]
        mean = float(total / count) if count else _NAN
        return AcrossScore(self.head, self.resolution, int(count), mean, _interval(means))

    def _profiles(self, made: Tensor, wanted: Tensor, there: Tensor) -> Tensor:
        """How many bins of each window have a correlation across tracks, and their sum. Shapes: -> (batch, 2)."""
        unit = made.new_tensor(self.unit)[:, None]
        a, b = ((values.clamp(min=0) / unit).log1p() for values in (made, wanted))
        a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
        spread = (a.square().sum(1) * b.square().sum(1)).sqrt()
        known = there.all(1) & (spread > 0)
        r = torch.where(known, (a * b).sum(1) / spread, 0)
        return torch.stack([known.sum(-1).double(), r.sum(-1)], -1)


def _sums(made: Tensor, wanted: Tensor, there: Tensor) -> Tensor:
    """n, sums, sums of squares and of products. Shapes: (batch, tracks, bins) -> (batch, tracks, 6)."""
    p, o = (torch.where(there, values, 0) for values in (made, wanted))
    parts = (there.double(), p, o, p * p, o * o, p * o)
    return torch.stack([part.sum(-1) for part in parts], -1)


def _pearson(sums: Array) -> Array:
    """Shapes: (..., 6) -> (...); NaN where either side is constant."""
    n, p, o, pp, oo, po = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        top = n * po - p * o
        below = np.sqrt(np.maximum(n * pp - p * p, 0) * np.maximum(n * oo - o * o, 0))
        return np.where(below > 0, np.clip(top / below, -1, 1), _NAN)


def _why_not(sums: Array) -> str:
    n, p, o, pp, oo, _ = sums
    if n < 3:
        return f"{int(n)} bins; a correlation wants at least 3"
    # Constant but for rounding: what is left of a difference of sums is below their precision.
    for what, total, squares in (("measurements", o, oo), ("predictions", p, pp)):
        if squares * n - total * total <= 1e-12 * n * max(squares, 1e-300):
            return f"all {what} are {total / n:.6g}"
    return ""


def _interval(values: Array) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return (_NAN, _NAN)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def back(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a score from its plain values."""
    nan = lambda v: _NAN if v is None else v  # noqa: E731
    return {k: tuple(map(nan, v)) if isinstance(v, list) else nan(v) for k, v in values.items()}
