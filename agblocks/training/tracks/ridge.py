"""The baseline on tracks: ridge regression on counts of k-mers around each bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from ...data import Splits
from ...data.draw import ORDER, keys
from ...data.tracks import GenomeTracks, Windows
from ...data.tracks.windows import Whole
from ..baseline.ridge import RidgeProbe, fit_ridge_features
from ..errors import RunError
from .evaluate import BOOTSTRAP, TrackEvaluation, bins_seen, block_numbers, unseen
from .heads import HeadTracks
from .module import moments
from .wiring import TrackWiring

Array = NDArray[np.float64]
CONTEXT = 500
MOST = 200_000


@dataclass(frozen=True)
class RidgeOnBins:
    """Fitted ridges: for each head and each set of features, on values as measured and on log(1 + value)."""

    k: int
    context: int
    data: GenomeTracks = field(repr=False)
    windows: Windows = field(repr=False)
    wiring: TrackWiring = field(repr=False)
    fitted: dict[tuple[str, bool], tuple[list[int], RidgeProbe, RidgeProbe]] = field(repr=False)

    def evaluate(self, rows: Whole, *, bootstrap: int = BOOTSTRAP, seed: int = 0) -> TrackEvaluation:
        """Scores as a model's: Pearson of the ridge on values, log Pearson of that on logarithms: the better of both.

        The squared error is that of the ridge on values. Across tracks predictions of the logarithms count.
        """
        plain, logs = moments(self.wiring), moments(self.wiring)
        blocks = block_numbers(self.windows)
        seen = {head: bins_seen(self.windows, rows, layout.layout) for head, layout in self.wiring.of.items()}
        for row in rows.tolist():
            for head, layout in self.wiring.of.items():
                wanted = _targets(self.data, self.windows, layout, row)
                made = np.zeros((2, *wanted.shape))
                for (name, folded), (columns, on_values, on_logs) in self.fitted.items():
                    if name == head:
                        x = features(self.data, self.windows, layout, row, self.k, self.context, folded)
                        made[0, columns] = on_values.predict(x).T
                        made[1, columns] = np.expm1(np.clip(on_logs.predict(x).T, 0, 50))
                for part, values in zip((plain, logs), made, strict=True):
                    asked = unseen(torch.from_numpy(wanted[None]), seen[head][[row]])
                    part[head].add(torch.from_numpy(values[None]), asked, blocks[[row]])
        tracks, across = [], []
        for head in self.wiring.of:
            first, _ = plain[head].scores(bootstrap, seed)
            second, profile = logs[head].scores(bootstrap, seed)
            for a, b in zip(first, second, strict=True):
                joined = {**a.__dict__, "log_pearson": b.log_pearson, "log_interval": b.log_interval}
                tracks.append(type(a)(**joined))
            across += [] if profile is None else [profile]
        return TrackEvaluation("test", len(rows), tuple(tracks), tuple(across))


def fit_bins(
    data: GenomeTracks,
    windows: Windows,
    splits: Splits,
    wiring: TrackWiring,
    *,
    k: int = 4,
    context: int = CONTEXT,
    most: int = MOST,
    seed: int = 0,
) -> RidgeOnBins:
    """Ridge on the k-mers of each bin and `context` bases to each side of it, penalties chosen on validation bins.

    Bins, windows and splits are the model's, so both answer the same question; where a bin's context passes its window,
    the genome goes on. A k-mer and its reverse complement are one, but for tracks that pair with one of the other
    strand, which the sequence of one strand may tell apart. Of more than `most` bins of a part some are drawn.
    Errors: `RunError` without validation windows.
    """
    if not len(splits.valid):
        raise RunError("the ridge chooses its penalty on validation windows, but there are none")
    fitted = {}
    for head, layout in wiring.of.items():
        by_strand: dict[bool, list[int]] = {}
        for column, other in enumerate(layout.swap):
            by_strand.setdefault(column == other, []).append(column)
        for folded, columns in by_strand.items():
            parts = []
            for rows in (splits.train, splits.valid):
                chosen = _some(rows, max(1, most // layout.bins), seed)
                counted = [features(data, windows, layout, row, k, context, folded) for row in chosen]
                targets = [_targets(data, windows, layout, row)[columns].T for row in chosen]
                parts.append((np.concatenate(counted), np.concatenate(targets)))
            (x, y), (held, wanted) = parts
            names = [layout.names[c] for c in columns]
            plain = fit_ridge_features(x, y, held, wanted, names=names)
            logs = fit_ridge_features(x, np.log1p(np.maximum(y, 0)), held, np.log1p(np.maximum(wanted, 0)), names=names)
            fitted[head, folded] = (columns, plain, logs)
    return RidgeOnBins(k, context, data, windows, wiring, fitted)


def features(
    data: GenomeTracks, windows: Windows, layout: HeadTracks, row: int, k: int, context: int, folded: bool
) -> NDArray[np.float32]:
    """Counts of k-mers around each bin of a window; those with an N are not counted.

    Shapes: -> (bins, 4**k), or if `folded` (bins, (4**k + palindromes) / 2).
    """
    name = windows.names[windows.chromosome[row]]
    start = int(windows.start[row]) + layout.offset - context
    length = layout.bins * layout.resolution + 2 * context
    codes = data.genome.codes(name, start, start + length).astype(np.int64)
    seen = np.lib.stride_tricks.sliding_window_view(codes, k)
    clean = (seen < 4).all(axis=1)
    column, width = _columns(k, folded)
    counts = np.zeros((len(seen) + 1, width), dtype=np.int32)
    counts[1:][clean, column[seen[clean] @ (4 ** np.arange(k - 1, -1, -1))]] = 1
    total = np.cumsum(counts, axis=0)
    first = np.arange(layout.bins) * layout.resolution
    last = np.minimum(first + layout.resolution + 2 * context - k + 1, len(seen))
    return (total[last] - total[first]).astype(np.float32)


def _columns(k: int, folded: bool) -> tuple[NDArray[np.int64], int]:
    """The column of each k-mer by its number, and how many there are."""
    code = np.arange(4**k)
    if not folded:
        return code, len(code)
    other = np.zeros_like(code)
    for place in range(k):
        other += (3 - code // 4**place % 4) * 4 ** (k - 1 - place)
    _, column = np.unique(np.minimum(code, other), return_inverse=True)
    return column.astype(np.int64), int(column.max()) + 1


def _targets(data: GenomeTracks, windows: Windows, layout: HeadTracks, row: int) -> Array:
    name, start = windows.names[windows.chromosome[row]], int(windows.start[row])
    return data.targets([layout.layout], name, start)[0].astype(np.float64)


def _some(rows: Whole, most: int, seed: int) -> Sequence[int]:
    if len(rows) <= most:
        return [int(row) for row in rows]
    order = np.argsort(keys(seed, 0, rows, ORDER), kind="stable")
    return sorted(int(row) for row in rows[order[:most]])
