"""The Lightning module around a graph model: optimiser, schedule, moving average, validation scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._torchvision import mend
from ..data.draw import keys
from ..layers.across import apart
from .average import Average
from .errors import ResumeError, RunError
from .parallel.shares import SHARES, put_together, rows_of, scale
from .scores.metrics import METRICS, score, why_never_one
from .settings import Settings
from .tuning.frozen import Frozen
from .tuning.groups import groups_of
from .tuning.stages import Stage, stages
from .wiring import Wiring

mend()
from lightning.pytorch import LightningModule  # noqa: E402

_DROPOUT = 100  # a stream of draws of its own, beside those of agblocks.data.draw


class Fitting(LightningModule):
    """Trains one model on scaled targets (`data.Batches`); scores are in the measurements' own units.

    Everything random is a function of (seed, step), so a run resumes exactly.
    model: the weights being trained, of a recipe or around one (adapters). It is called as a recipe's model is,
        `model(**inputs, outputs=names)`, and has `loss`, `loss_outputs` and `no_weight_decay`.
    frozen: what of it trains by the settings; `frozen.restore()` gives the flags back that `requires_grad` had.
    stage: where a training by plateaus stands; `begin` goes on to the next.
    `best` says which weights are evaluated (the moving average where there is one).
    After each validation `valid` holds loss, pearson, spearman, mse (means over targets); after each epoch
    `train_loss` the mean over its rows.
    """

    def __init__(self, model: nn.Module, wiring: Wiring, settings: Settings, steps: int, seed: int):
        super().__init__()
        copies = _sharded(model, settings)
        model = copies[0] if copies else model
        self.model: Any = model
        self.wiring, self.settings, self.steps, self.seed = wiring, settings, steps, seed
        self.frozen = Frozen(model, settings.tuning)
        fixed = self.frozen.fixed()
        self.average = Average(model, settings.ema, fixed, *copies[1:]) if settings.ema else None
        still = {id(tensor) for tensor in fixed}
        self._fixed = {name for name, held in model.state_dict(keep_vars=True).items() if id(held) in still}
        self.strict_loading = not self._fixed
        self._stepped = False
        scales = {t.name: (t.mean, t.deviation) for t in wiring.targets}
        self._order = [name for names in wiring.heads.values() for name in names]
        self._means, self._deviations = np.array([scales[name] for name in self._order]).T
        self.stage = stages((), settings)[0]
        self.valid: dict[str, float] = {}
        self.train_loss = math.nan
        self._losses: list[tuple[Tensor, int]] = []
        self._seen: list[list[tuple[Tensor, Tensor]]] = []

    @property
    def best(self) -> Any:
        """The model to evaluate and to keep."""
        return self.model if self.average is None else self.average.module

    @property
    def kept(self) -> dict[str, Tensor]:
        """Of the best model's state, copied to the CPU, what training changes; the rest is as it was at the start."""
        state = self.best.state_dict()
        return {k: _whole(v.detach()) for k, v in state.items() if k not in self._fixed}

    # What trains

    def begin(self, stage: Stage, best: Mapping[str, Tensor] | None = None) -> None:
        """Train by the next stage from now on: from the best weights so far, with optimiser, average, schedule anew.

        Without weights, before a checkpoint of that stage is read, which has all of this.
        """
        self.stage = stage
        if best is None:
            return
        own = self.model.state_dict()
        with torch.no_grad():
            for name, value in best.items():
                own[name].copy_(_spread(value, own[name]))
        if self.average is not None:
            self.average.restart(self.model)
        self.trainer.strategy.setup_optimizers(self.trainer)

    def train(self, mode: bool = True) -> Fitting:
        """As of any module; but norms of frozen parts stay in evaluation."""
        super().train(mode)
        self.frozen.settle()
        return self

    def on_fit_start(self) -> None:
        self.train()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What never changes is not saved: it is there before the checkpoint is read."""
        state = checkpoint["state_dict"]
        for name in self._fixed:
            for whole in (f"model.{name}", f"average.module.{name}"):
                state.pop(whole, None)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Errors: `RunError` for other tensors than `on_save_checkpoint` leaves."""
        fixed = {whole for name in self._fixed for whole in (f"model.{name}", f"average.module.{name}")}
        if odd := sorted(set(checkpoint["state_dict"]) ^ (set(self.state_dict()) - fixed)):
            raise ResumeError(f"the checkpoint is of another training: {odd[0]!r} is missing or unknown")

    # Training

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self._stepped = False
        number = self.global_rank if SHARES in batch else 0  # the same rows want the same draws
        torch.manual_seed(int(keys(self.seed, self.global_step, [number], _DROPOUT)[0] >> np.uint64(1)))

    def training_step(self, batch: Mapping[str, Any], batch_idx: int) -> Tensor:
        with nullcontext() if SHARES in batch else apart():
            loss = self._loss(self.model, batch, self.model.loss_outputs)[0]
        self._losses.append((loss.detach(), rows_of(batch)))
        return loss * scale() if SHARES in batch else loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        if self.average is not None and self._stepped:
            self.average.update(self.model)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """One step of the schedule for one of the optimiser: none where the scaler of 16-mixed skipped that."""
        if self._stepped:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_start(self) -> None:
        self.frozen.advance(self.current_epoch - self.stage.begun, self.stage.number)
        self._losses.clear()

    def on_train_epoch_end(self) -> None:
        self.train_loss = self._agreed(_mean(self._losses))
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
        loss, outputs, targets = self._loss(model, batch, dict.fromkeys((*model.loss_outputs, *self.wiring.heads)))
        self._held.append((loss, rows_of(batch)))
        heads = self.wiring.heads
        made, wanted = (torch.cat([of[h].float() for h in heads], 1) for of in (outputs, targets))
        self._seen[dataloader_idx].append((made, wanted))

    def on_validation_epoch_end(self) -> None:
        strands = [[torch.cat(part) for part in zip(*seen, strict=True)] for seen in self._seen]
        made, wanted = torch.stack([made for made, _ in strands]).mean(0), strands[0][1]  # rows in one order
        parts = (part.cpu().double().numpy() for part in (made, wanted))
        predicted, observed = (part * self._deviations + self._means for part in parts)
        scores = score(predicted, observed, self._order)
        can = [not why_never_one(column[~np.isnan(column)]) for column in observed.T]
        means = {
            m: _average([getattr(s, m) for s, there in zip(scores, can, strict=True) if there or (m == "mse" and s.n)])
            for m in METRICS
        }
        self.valid = self._agreed({"loss": _mean(self._held), **means})

    def _loss(self, model: Any, batch: Mapping[str, Any], outputs: Any) -> tuple[Tensor, dict, dict]:
        """The loss of a whole batch, with its outputs and targets, whatever this process has of it."""
        own = model(**self.wiring.inputs(batch["inputs"]), outputs=outputs)
        made, targets = (put_together(tensors, batch.get(SHARES)) for tensors in (own, batch["targets"]))
        return model.loss(made, targets), made, targets

    def _agreed(self, value: Any) -> Any:
        """As the first process has it: what is decided by it must not differ in a last bit."""
        return self.trainer.strategy.broadcast(value)

    # Optimiser

    def configure_optimizers(self) -> Any:
        """AdamW over everything that trains at any time. What is still frozen has no gradient, and so stays."""
        with self.frozen.ever():
            groups = groups_of(self.model, self.settings)
        for group in groups:
            group["lr"] = self.settings.lr * self.stage.lr * group["lr_scale"]
        optimizer = torch.optim.AdamW(groups, lr=self.settings.lr)
        optimizer.register_step_post_hook(self._note_step)
        steps = self.steps * self.stage.epochs // self.settings.epochs
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule(optimizer, self.settings, steps), "interval": "step"},
        }

    def _note_step(self, *_: Any) -> None:
        self._stepped = True


def schedule(optimizer: torch.optim.Optimizer, settings: Settings, steps: int) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate by step: constant, cosine with warm-up, or one cycle; see `Settings`.

    Every group's own `lr` is the highest, so that at every step they are to each other as these are.
    """
    from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

    warm = min(round(settings.warmup * steps), steps - 1)
    if settings.schedule == "onecycle":
        # OneCycleLR starts at lr / div_factor and ends at that / final_div_factor.
        final = 1 / (25 * max(settings.final_lr, 1e-6))
        highest = [group["lr"] for group in optimizer.param_groups]
        return OneCycleLR(
            optimizer, highest, total_steps=steps + 1, pct_start=max(settings.warmup, 1 / steps), div_factor=25,
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


def _sharded(model: nn.Module, settings: Settings) -> list[nn.Module]:
    """Under fsdp a copy of the model in parts, and another for the moving average if there is one."""
    if not settings.is_sharded:
        return []
    from .parallel.strategies import sharded

    return sharded(model, settings, copies=2 if settings.ema else 1)


def _whole(tensor: Tensor) -> Tensor:
    """A copy on the CPU, of all parts where processes hold parts."""
    found: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return found.to("cpu", copy=True)


def _spread(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor as `like` is: in parts, where processes hold parts."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from .parallel.strategies import spread

    found: Tensor = spread(tensor, like)
    return found


def _mean(parts: list[tuple[Tensor, int]]) -> float:
    """Mean of losses by rows; one transfer from the device."""
    rows = [n for _, n in parts]
    values = torch.stack([value.float() for value, _ in parts]).cpu().double()
    return float((values * torch.tensor(rows, dtype=torch.float64)).sum() / sum(rows)) if parts else math.nan


def _average(values: list[float]) -> float:
    """Mean over targets; nan where one is, or there is none."""
    return float(np.mean(values)) if values else math.nan
