"""How far the training is: one bar in a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from .._torchvision import mend
from .keeper import Keeper

mend()
from lightning.pytorch import LightningModule, Trainer  # noqa: E402
from lightning.pytorch.callbacks import Callback  # noqa: E402

_EVERY = 15.0  # seconds between lines where there is no terminal


class Progress(Callback):
    """Steps of all epochs as one bar on standard error, with the last and the best validation score."""

    def __init__(self, keeper: Keeper, label: str = "fit"):
        from rich.console import Console

        self.keeper, self.label = keeper, label
        self.console = Console(stderr=True)
        self.bar: Any = None
        self.said = time.monotonic()

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        if not self.console.is_terminal:
            return
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.bar = Progress(
            TextColumn(self.label), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn(),
            TimeRemainingColumn(), console=self.console,
        )  # fmt: skip
        total = int(trainer.estimated_stepping_batches)
        self.task = self.bar.add_task("", total=total, completed=trainer.global_step, words=self.words())
        self.bar.start()

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=trainer.global_step)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.say()  # the keeper notes an epoch after every other callback: here it has

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.said = 0.0
        self.say()
        self.close()

    def on_exception(self, trainer: Trainer, module: LightningModule, exception: BaseException) -> None:
        self.close()

    def say(self) -> None:
        if self.bar is not None:
            self.bar.update(self.task, words=self.words())
        elif self.keeper.history and time.monotonic() - self.said > _EVERY:
            self.said = time.monotonic()
            self.console.print(f"{self.label}: {self.words()}", highlight=False)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def words(self) -> str:
        """`epoch 7 of 40, loss 0.71, valid r 0.523 (best 0.541, epoch 5)`."""
        seen = self.keeper.history
        said = [f"epoch {len(seen)} of {self.keeper.settings.epochs}"]
        if seen:
            said.append(f"loss {seen[-1]['train_loss']:.3f}")
            if self.keeper.settings.tuning.plateaus:
                said.append(f"stage {len(self.keeper.stages)}")
            if "valid_pearson" in seen[-1]:
                said.append(f"valid r {seen[-1]['valid_pearson']:.3f}")
                if best := self.keeper.best_epoch:
                    said.append(f"best r {seen[best - 1]['valid_pearson']:.3f} in epoch {best}")
        return ", ".join(said)
