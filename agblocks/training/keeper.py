"""What outlives a `kill -9`: one file a member, written whole after every epoch, with the best weights in it."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._torchvision import mend
from .errors import ResumeError
from .module import Fitting
from .settings import Settings
from .tuning.stages import Stage, is_over, stages
from .write import write_whole

mend()
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import Checkpoint  # noqa: E402

COLUMNS = ("epoch", "step", "lr", "train_loss", "valid_loss", "valid_pearson", "valid_spearman", "valid_mse")


class Keeper(Checkpoint):
    """After each epoch: notes the scores, keeps the best weights, decides whether to go on, and saves it all.

    Lightning's own checkpoint and early stopping are two callbacks and two files; a kill between them leaves a state
    that an uninterrupted run never has. Here everything is one file, and stopping is a function of the history in it,
    as is when a stage ends: the file then has the first state of the next one.

    file: the checkpoint. history: one mapping an epoch. best: the kept weights on the CPU, of what trains;
    best_epoch from 1, 0 before the first.
    """

    def __init__(self, file: Path, settings: Settings):
        super().__init__()
        self.file, self.settings = file, settings
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0

    @property
    def scores(self) -> list[float]:
        """What each epoch is judged by, larger is better; nan where it has none."""
        sign, name = (1, "valid_pearson") if self.settings.monitor == "pearson" else (-1, "valid_loss")
        return [sign * row[name] if "valid_loss" in row else math.nan for row in self.history]

    @property
    def done(self) -> bool:
        """Whether training is over: all epochs, or too many without a better score in the last stage."""
        return is_over(self.scores, self.settings)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages begun so far; see `Unfreeze`."""
        return stages(self.scores, self.settings)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Fitting)
        row: dict[str, float] = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "lr": _rate(trainer.optimizers[0].param_groups[0]),
            "train_loss": module.train_loss,
            **{f"valid_{name}": value for name, value in module.valid.items()},
        }
        self.history.append(row)
        for logger in trainer.loggers:
            logger.log_metrics({k: v for k, v in row.items() if k not in ("epoch", "step")}, step=trainer.global_step)
        if self._better(module.stage):
            self.best_epoch = len(self.history)
            self.best = module.kept
        if self.done:
            trainer.should_stop = True
        elif (stage := self.stages[-1]) != module.stage:
            module.begin(stage, self.best)
        trainer.save_checkpoint(self.file)
        if trainer.is_global_zero:
            write_history(self.file.with_suffix(".csv"), self.history)

    def _better(self, stage: Stage) -> bool:
        """Whether the last epoch is to be kept; while no score is finite, and without validation rows, it always is."""
        if self.settings.keep == "last" and (stage.last or self.done):
            return True  # `done` in a stage before: no plateau came, and this is the last of all epochs
        best = self.scores[self.best_epoch - 1] if self.best_epoch else math.nan
        return not math.isfinite(best) or self.scores[-1] > best

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "history": self.history}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self.history = [dict(row) for row in state["history"]]

    def restore(self) -> bool:
        """Take up what the file holds, if there is one. Errors: `RunError` for a damaged file."""
        if not self.file.is_file():
            return False
        try:
            content = torch.load(self.file, map_location="cpu", weights_only=True)
            self.load_state_dict(content["callbacks"][self.state_key])
        except Exception as error:  # whatever unpickling a damaged file raises
            raise ResumeError(f"{self.file}: damaged ({type(error).__name__}); --overwrite starts anew") from None
        return True


def _rate(group: dict[str, Any]) -> float:
    """The learning rate that layer decay and the like have not scaled yet."""
    return float(group["lr"] / group.get("lr_scale", 1.0))


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """The epochs so far as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in history:
        writer.writerow(["" if row.get(c) is None else f"{row[c]:.8g}" for c in COLUMNS])
    write_whole(path, text.getvalue().encode())
