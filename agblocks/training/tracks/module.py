"""The Lightning module and the batches of a training on genome tracks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from ..._torchvision import mend
from ...data import Splits
from ...data.tracks import GenomeTracks, WindowLoader, Windows
from ..module import Fitting
from ..parallel.shares import rows_of
from ..settings import Settings
from .moments import Moments
from .wiring import TrackWiring

mend()
from lightning.pytorch import LightningDataModule  # noqa: E402


class TrackFitting(Fitting):
    """Trains one model on windows of a genome; scores are in the measurements' units.

    After each validation `valid` holds loss, pearson and mse: means over the tracks of all heads, those without a
    correlation left out. Where the settings say both strands, each window is shown turned as well, and the predictions
    are averaged with bins put back and strands swapped.
    """

    wiring: TrackWiring

    def __init__(self, model: nn.Module, wiring: TrackWiring, settings: Settings, steps: int, seed: int):
        super().__init__(model, wiring, settings, steps, seed)

    def on_validation_epoch_start(self) -> None:
        self._held = []
        self._moments = moments(self.wiring)

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        model = self.best
        asked = dict.fromkeys((*model.loss_outputs, *self.wiring.of))
        loss, made, targets = self._loss(model, batch, asked)
        predicted, wanted = self.wiring.measured(made), self.wiring.measured(targets)
        if len(self.settings.shown_strands) > 1:
            other, back, _ = self._loss(model, turned(batch, self.wiring), asked)
            loss = (loss + other) / 2
            again = self.wiring.turned(self.wiring.measured(back))
            predicted = {head: (values + again[head]) / 2 for head, values in predicted.items()}
        self._held.append((loss, rows_of(batch)))
        for head, part in self._moments.items():
            part.add(predicted[head], wanted[head])

    def on_validation_epoch_end(self) -> None:
        scores = [score for part in self._moments.values() for score in part.scores()[0]]
        means = {what: _mean([getattr(score, what) for score in scores]) for what in ("pearson", "mse")}
        rows = sum(n for _, n in self._held)
        loss = sum(float(value) * n for value, n in self._held) / rows
        self.valid = self._agreed({"loss": loss, **means})

    def _loss(self, model: Any, batch: Mapping[str, Any], outputs: Any) -> tuple[Tensor, dict, dict]:
        return super()._loss(model, {**batch, "targets": self.wiring.trained(batch["targets"])}, outputs)


class TrackBatches(LightningDataModule):
    """Training windows shuffled, moved and turned by (seed, epoch, window); validation windows as they are."""

    def __init__(
        self, data: GenomeTracks, windows: Windows, splits: Splits, wiring: TrackWiring, settings: Settings, seed: int
    ):
        super().__init__()
        layouts = {head: layout.layout for head, layout in wiring.of.items()}
        self.train = WindowLoader(
            data, windows, splits.train, layouts, batch_size=settings.batch_size, shuffle=True, seed=seed,
            augment=settings.augment, small="merge", ambiguous=settings.ambiguous,
        )  # fmt: skip
        self.valid: list[WindowLoader] = []
        if len(splits.valid):
            held = WindowLoader(
                data, windows, splits.valid, layouts, batch_size=settings.batch_size, ambiguous=settings.ambiguous
            )  # fmt: skip
            self.valid.append(held)

    def train_dataloader(self) -> WindowLoader:
        return self.train

    def val_dataloader(self) -> list[WindowLoader]:
        return self.valid


def moments(wiring: TrackWiring) -> dict[str, Moments]:
    """Empty sums for every head."""
    return {head: Moments(head, of.names, of.resolution, of.unit) for head, of in wiring.of.items()}


def turned(batch: Mapping[str, Any], wiring: TrackWiring) -> dict[str, Any]:
    """A batch as the other strand has it: bases complemented (A C G T backwards), all of it read backwards."""
    inputs = {**batch["inputs"], "dna": batch["inputs"]["dna"].flip(1, 2)}
    return {**batch, "inputs": inputs, "targets": wiring.turned(batch["targets"])}


def _mean(values: list[float]) -> float:
    there = [value for value in values if not np.isnan(value)]
    return float(np.mean(there)) if there else float("nan")
