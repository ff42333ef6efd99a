"""How well predictions agree with measurements: Pearson, Spearman and squared error, with bootstrap intervals.

Always on all rows pooled: a mean of batches' correlations is another number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import RunError
from .resampled import draw_counts, weighted_pearson, weighted_spearman

Array = NDArray[np.float64]
Interval = tuple[float, float]
_NAN = float("nan")
_CELLS = 10_000_000
METRICS = ("pearson", "spearman", "mse")


class Plain:
    """A dataclass of numbers, texts and tuples that JSON holds."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, nan as None."""
        return {k: plain(v) for k, v in vars(self).items()}


@dataclass(frozen=True)
class Score(Plain):
    """Agreement for one target. Intervals are 95% percentile bootstrap over rows; `reason` says why one is nan."""

    target: str
    n: int
    pearson: float
    spearman: float
    mse: float
    pearson_interval: Interval = (_NAN, _NAN)
    spearman_interval: Interval = (_NAN, _NAN)
    mse_interval: Interval = (_NAN, _NAN)
    reason: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Score:
        """What `to_dict` wrote."""
        return cls(**{k: _back(v) for k, v in values.items()})


def score(
    predicted: ArrayLike,
    observed: ArrayLike,
    names: Sequence[str] | None = None,
    *,
    bootstrap: int = 0,
    seed: int = 0,
) -> list[Score]:
    """The scores of every target, rows with a NaN measurement left out of theirs.

    Shapes: predicted, observed (rows, targets) or (rows,) -> one Score a target.
    bootstrap: resamples of rows for the intervals; 0 for none. The same seed gives the same intervals.
    Errors: `RunError` for shapes that differ, or predictions that are not finite (with the first row).
    """
    p, o = np.asarray(predicted, np.float64), np.asarray(observed, np.float64)
    if p.shape != o.shape or p.ndim not in (1, 2):
        raise RunError(f"predictions are {list(p.shape)} and measurements {list(o.shape)}; wanted both (rows, targets)")
    p, o = (p[:, None], o[:, None]) if p.ndim == 1 else (p, o)
    names = [f"target{i + 1}" for i in range(p.shape[1])] if names is None else list(names)
    if len(names) != p.shape[1]:
        raise RunError(f"{len(names)} names for {p.shape[1]} targets")
    return [_score(p[:, i], o[:, i], name, bootstrap, seed) for i, name in enumerate(names)]


def _score(predicted: Array, observed: Array, name: str, bootstrap: int, seed: int) -> Score:
    there = ~np.isnan(observed)
    if not np.isfinite(observed[there]).all():
        raise RunError(f"target {name!r}: an infinite measurement in row {int(np.argmax(np.isinf(observed)))}")
    if not np.isfinite(predicted[there]).all():
        row = int(np.argmax(there & ~np.isfinite(predicted)))
        raise RunError(f"target {name!r}: the prediction of row {row} is {predicted[row]}")
    p, o = predicted[there], observed[there]
    n = len(p)
    mse = float(np.mean((p - o) ** 2)) if n else _NAN
    reason = why_no_correlation(p, o)
    if reason:
        made = Score(name, n, _NAN, _NAN, mse, reason=reason)
    else:
        made = Score(name, n, pearson(p, o), pearson(ranks(p), ranks(o)), mse)
    if not bootstrap or n < 3:
        return made
    drawn = _bootstrap(p, o, bootstrap, seed)
    if reason:
        drawn[:, :2] = _NAN
    ends = {f"{m}_interval": _interval(drawn[:, i]) for i, m in enumerate(METRICS)}
    return Score(**{**asdict(made), **ends})


def why_no_correlation(p: Array, o: Array) -> str:
    """Why there is no correlation; "" where there is."""
    if why := why_never_one(o):
        return why
    # A network that says one value for everything may still differ in the last bits of float32.
    if np.ptp(p) <= 1e-6 * np.abs(p).max():
        return f"all predictions are {p[0]:.6g}"
    return ""


def why_never_one(o: Array) -> str:
    """Why nothing correlates with these measurements, whatever is predicted; "" where something could."""
    if len(o) < 3:
        return f"{len(o)} rows; a correlation wants at least 3"
    return f"all measurements are {o[0]:.6g}" if np.ptp(o) == 0 else ""


def pearson(a: Array, b: Array) -> float:
    """Pearson's correlation. Shapes: (n,), (n,) -> number; nan where either is constant."""
    a, b = a - a.mean(), b - b.mean()
    spread = float(np.sqrt((a @ a) * (b @ b)))
    return float(np.clip(a @ b / spread, -1, 1)) if spread > 0 else _NAN


def ranks(values: Array) -> Array:
    """Ranks from 1, ties sharing their mean. Shapes: (n,) -> (n,)."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _bootstrap(p: Array, o: Array, times: int, seed: int) -> Array:
    """Pearson, Spearman and squared error of resampled rows. Shapes: (n,), (n,) -> (times, 3)."""
    n = len(p)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS // n)
    out = np.empty((times, 3))
    for start in range(0, times, chunk):
        counts = draw_counts(rng, n, min(chunk, times - start))
        here = out[start : start + chunk]
        here[:, 0] = weighted_pearson(counts, p[:, None], o[:, None])[:, 0]
        here[:, 1] = weighted_spearman(counts, p[:, None], o)[:, 0]
        here[:, 2] = counts @ (p - o) ** 2 / n
    return out


def _interval(values: Array) -> Interval:
    values = values[~np.isnan(values)]
    if not len(values):
        return (_NAN, _NAN)
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def plain(value: Any) -> Any:
    """A score's value for JSON: nan as None, tuples as lists."""
    if isinstance(value, (tuple, list)):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and np.isnan(value) else value


def _back(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_back(v) for v in value)
    return _NAN if value is None else value
