"""The Lightning module around a graph model: optimiser, schedule, moving average, validation scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from .._torchvision import mend
from ..data.draw import keys
from ..graph.model import GraphModel
from .errors import RunError
from .metrics import score
from .settings import Settings
from .wiring import Wiring

mend()
from lightning.pytorch import LightningModule  # noqa: E402

_DROPOUT = 100  # a stream of draws of its own, beside those of agblocks.data.draw


class Fitting(LightningModule):
    """Trains one model on scaled targets (`data.Batches`); scores are in the measurements' own units.

    Everything random is a function of (seed, step), so a run resumes exactly.
    model: the weights being trained; `best` says which are evaluated (the moving average where there is one).
    After each validation `valid` holds loss, pearson, spearman, mse (means over targets); after each epoch
    `train_loss` the mean over its rows.
    """

    def __init__(self, model: GraphModel, wiring: Wiring, settings: Settings, steps: int, seed: int):
        super().__init__()
        self.model, self.wiring, self.settings, self.steps, self.seed = model, wiring, settings, steps, seed
        self.average: AveragedModel | None = None
        if settings.ema:
            average = AveragedModel(model, multi_avg_fn=_warmed(settings.ema), use_buffers=True)
            self.average = average.requires_grad_(False)
        scales = {t.name: (t.mean, t.deviation) for t in wiring.targets}
        self._order = [name for names in wiring.heads.values() for name in names]
        self._means, self._deviations = np.array([scales[name] for name in self._order]).T
        self.valid: dict[str, float] = {}
        self.train_loss = math.nan
        self._losses: list[tuple[Tensor, int]] = []
        self._seen: list[list[tuple[Tensor, Tensor]]] = []

    @property
    def best(self) -> GraphModel:
        """The model to evaluate and to keep."""
        found = self.model if self.average is None else self.average.module
        assert isinstance(found, GraphModel)
        return found

    # Training

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(int(keys(self.seed, self.global_step, [self.global_rank], _DROPOUT)[0] >> np.uint64(1)))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        loss = self._loss(self.model, batch, self.model.loss_outputs)[0]
        self._losses.append((loss.detach(), len(batch["index"])))
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.average is not None:
            self.average.update_parameters(self.model)

    def on_train_epoch_start(self) -> None:
        self._losses.clear()

    def on_train_epoch_end(self) -> None:
        self.train_loss = _mean(self._losses)
        if not math.isfinite(self.train_loss):
            raise RunError(
                f"the training loss became {self.train_loss} in epoch {self.current_epoch + 1}; a lower lr, a smaller "
                "clip, or targets without extremes would help"
            )

    # Validation

    def on_validation_epoch_start(self) -> None:
        self._seen = [[] for _ in range(len(self.settings.shown_strands))]
        self._held: list[tuple[Tensor, int]] = []

    def validation_step(self, batch: Mapping[str, Any], batch_idx: int, dataloader_idx: int = 0) -> None:
        model = self.best
        loss, outputs = self._loss(model, batch, dict.fromkeys((*model.loss_outputs, *self.wiring.heads)))
        self._held.append((loss, len(batch["index"])))
        heads = self.wiring.heads
        made, wanted = (torch.cat([of[h].float() for h in heads], 1) for of in (outputs, batch["targets"]))
        self._seen[dataloader_idx].append((made, wanted))

    def on_validation_epoch_end(self) -> None:
        strands = [[torch.cat(part) for part in zip(*seen, strict=True)] for seen in self._seen]
        made, wanted = torch.stack([made for made, _ in strands]).mean(0), strands[0][1]  # rows in one order
        parts = (part.cpu().double().numpy() for part in (made, wanted))
        predicted, observed = (part * self._deviations + self._means for part in parts)
        scores = score(predicted, observed, self._order)
        means = {m: _average([getattr(s, m) for s in scores]) for m in ("pearson", "spearman", "mse")}
        self.valid = {"loss": _mean(self._held), **means}

    def _loss(self, model: GraphModel, batch: Mapping[str, Any], outputs: Any) -> tuple[Tensor, dict[str, Tensor]]:
        made = model(**self.wiring.inputs(batch["inputs"]), outputs=outputs)
        return model.loss(made, batch["targets"]), made

    # Optimiser

    def configure_optimizers(self) -> Any:
        settings = self.settings
        optimizer = torch.optim.AdamW(parameter_groups(self.model, settings.weight_decay), lr=settings.lr)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule(optimizer, settings, self.steps), "interval": "step"},
        }


def parameter_groups(model: GraphModel, weight_decay: float) -> list[dict[str, Any]]:
    """What decays and what does not: norms, biases and other vectors (a scale of (C, 1, 1) too) are left alone."""
    spared = model.no_weight_decay()
    groups: tuple[list[nn.Parameter], list[nn.Parameter]] = ([], [])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            vector = parameter.ndim <= 1 or (parameter.ndim > 2 and parameter.numel() == parameter.shape[0])
            groups[vector or name in spared].append(parameter)
    decays = ({"params": groups[0], "weight_decay": weight_decay}, {"params": groups[1], "weight_decay": 0.0})
    return [group for group in decays if group["params"]]


def schedule(optimizer: torch.optim.Optimizer, settings: Settings, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by step: constant, cosine with warm-up, or one cycle; see `Settings`."""
    from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

    warm = min(round(settings.warmup * steps), steps - 1)
    if settings.schedule == "onecycle":
        # OneCycleLR starts at lr / div_factor and ends at that / final_div_factor.
        final = 1 / (25 * max(settings.final_lr, 1e-6))
        return OneCycleLR(
            optimizer, settings.lr, total_steps=steps + 1, pct_start=max(settings.warmup, 1 / steps), div_factor=25,
            final_div_factor=final,
        )  # fmt: skip

    def factor(step: int) -> float:
        if settings.schedule == "constant":
            return 1.0
        if step < warm:
            return (step + 1) / (warm + 1)
        done = min(1.0, (step - warm) / max(1, steps - warm))
        return settings.final_lr + (1 - settings.final_lr) * (1 + math.cos(math.pi * done)) / 2

    return LambdaLR(optimizer, factor)


def _warmed(decay: float) -> Any:
    """A moving average whose decay rises to `decay`: early weights, near the random start, are soon forgotten."""

    def average(averaged: list[Tensor], current: list[Tensor], updates: Any) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, updates)

    return average


def _mean(parts: list[tuple[Tensor, int]]) -> float:
    """Mean of losses by rows; one transfer from the device."""
    rows = [n for _, n in parts]
    values = torch.stack([value.float() for value, _ in parts]).cpu().double()
    return float((values * torch.tensor(rows, dtype=torch.float64)).sum() / sum(rows)) if parts else math.nan


def _average(values: list[float]) -> float:
    """Mean over targets; nan where one is."""
    return float(np.mean(values))
