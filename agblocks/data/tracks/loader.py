"""Batches of windows along a genome, with the targets of every head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..augment import Augment, draws
from ..batches import Small, plan_batches
from ..epochs import Batch, Epochs
from ..errors import DataError
from ..sequence import Ambiguous, Codes, one_hot_codes, reverse_complement_codes
from .values import GenomeTracks, Layout
from .windows import Windows


class WindowLoader(Epochs):
    """An iterable over batches of windows; one pass is one epoch.

    Yields `{"inputs": {"dna": (B, 4, length) float}, "targets": {head: (B, tracks, bins) float32}, "index": (B,)
    int64}`: index is the window, targets are as measured, NaN where missing.

    rows: the windows to use. layouts: for each head what its targets are.
    augment: `shift` moves window and targets together along the genome (what comes in are the genome's own bases,
        whatever `fill` and `scope` say); turning shows the other strand: targets are read backwards, and tracks that
        pair change places. Both depend on (seed, epoch, window) alone.
    Where it stands, and how it resumes: see `Epochs`.

    Errors: `DataError` for rows that are not there, layouts that pass the window, a pair of which one is learnt.
    Costs: a batch is read when it is asked for (1.5 milliseconds for a 4-kb window of five tracks at two resolutions,
    where a small model takes 40 to learn from it), nothing is kept; so there are no worker processes.
    """

    def __init__(
        self,
        data: GenomeTracks,
        windows: Windows,
        rows: ArrayLike,
        layouts: Mapping[str, Layout],
        *,
        batch_size: int = 8,
        shuffle: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
        small: Small = "keep",
        ambiguous: Ambiguous = "zeros",
    ) -> None:
        self.data, self.windows, self.layouts = data, windows, dict(layouts)
        self.rows = np.asarray(rows, dtype=np.int64)
        self.batch_size, self.shuffle, self.seed, self.small = batch_size, shuffle, seed, small
        self.augment, self.ambiguous = augment or Augment(), ambiguous
        if not len(self.rows):
            raise DataError("no window to load: found an empty selection")
        if self.rows.min() < 0 or self.rows.max() >= len(windows):
            raise DataError(f"windows {self.rows.min()} to {self.rows.max()}; there are 0 to {len(windows) - 1}")
        for head, layout in self.layouts.items():
            if layout.offset < 0 or layout.offset + layout.bins * layout.resolution > windows.length:
                raise DataError(f"head {head!r}: {layout} passes windows of {windows.length:,} bases")
        self._swap = {head: np.array(data.swap(layout)) for head, layout in self.layouts.items()}
        self._begin()

    def plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """The windows in each batch of an epoch."""
        batches = plan_batches(
            np.full(len(self.rows), self.windows.length), batch_size=self.batch_size, shuffle=self.shuffle,
            seed=self.seed, epoch=epoch, small=self.small,
        )  # fmt: skip
        return [self.rows[batch] for batch in batches]

    def _settings(self) -> dict[str, Any]:
        return {
            "data": self.data.fingerprint(self.windows, list(self.layouts.values()), self.rows),
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "small": self.small,
            "augment": repr(self.augment),
        }

    def _batch(self, rows: NDArray[np.int64], epoch: int) -> Batch:
        shift, turned = np.zeros(len(rows), dtype=np.int64), np.zeros(len(rows), dtype=np.bool_)
        if self.augment.active:
            shift, turned = draws(self.augment, rows, seed=self.seed, epoch=epoch)
        codes: list[Codes] = []
        targets: dict[str, list[NDArray[np.float32]]] = {head: [] for head in self.layouts}
        for row, move, turn in zip(rows.tolist(), shift.tolist(), turned.tolist(), strict=True):
            name = self.windows.names[self.windows.chromosome[row]]
            start = int(self.windows.start[row]) + move
            read = self.data.genome.codes(name, start, start + self.windows.length)
            if not turn:
                codes.append(read)
                layouts = list(self.layouts.values())
            else:
                codes.append(reverse_complement_codes(read))
                layouts = [mirrored(layout, self.windows.length) for layout in self.layouts.values()]
            for head, values in zip(self.layouts, self.data.targets(layouts, name, start), strict=True):
                targets[head].append(values if not turn else values[self._swap[head], ::-1])
        return {
            "inputs": {"dna": one_hot_codes(np.stack(codes), ambiguous=self.ambiguous)},
            "targets": {head: torch.from_numpy(np.stack(values)) for head, values in targets.items()},
            "index": torch.from_numpy(rows.copy()),
        }


def mirrored(layout: Layout, length: int) -> Layout:
    """Where the same bins of the turned window lie in the window as it is read."""
    offset = length - layout.offset - layout.bins * layout.resolution
    return Layout(layout.tracks, layout.resolution, offset, layout.bins)
