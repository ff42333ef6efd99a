"""One member's training by Lightning, from the start or from its last checkpoint."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._torchvision import mend
from ..data import Construct, Splits, Table
from .data import Batches
from .keeper import Keeper
from .module import Fitting
from .parallel.norms import synchronised
from .parallel.processes import rank, size
from .progress import Progress
from .settings import Settings
from .wiring import Wiring

mend()
from lightning.pytorch import Callback, LightningDataModule, Trainer  # noqa: E402
from lightning.pytorch.loggers import TensorBoardLogger  # noqa: E402
from lightning.pytorch.plugins import MixedPrecision  # noqa: E402
from lightning.pytorch.plugins.environments import LightningEnvironment  # noqa: E402


def train(
    model: nn.Module,
    table: Table,
    splits: Splits,
    construct: Construct,
    wiring: Wiring,
    settings: Settings,
    checkpoint: Path,
    logs: Path,
    progress: bool = False,
) -> Keeper:
    """Train on measured sequences; see `run_training`."""

    def made() -> tuple[LightningDataModule, Fitting]:
        batches = Batches(table, splits, construct, wiring, settings, settings.seed)
        return batches, Fitting(model, wiring, settings, settings.epochs * len(batches.train), settings.seed)

    return run_training(made, settings, checkpoint, logs, progress)


def run_training(
    made: Callable[[], tuple[LightningDataModule, Fitting]],
    settings: Settings,
    checkpoint: Path,
    logs: Path,
    progress: bool = False,
) -> Keeper:
    """Train until the settings say it is enough; the keeper that comes back holds the best weights and the history.

    made: gives the batches, and the module around a recipe's model or one around it (see `Fitting`); called only if
    there is anything left to train. The model is trained in place, and what of it wants a gradient is in the end as it
    was. A checkpoint that is there is taken up; one that is done trains no step more.
    """
    keeper = Keeper(checkpoint, settings)
    there = keeper.restore()
    if keeper.done:
        return keeper
    batches, module = made()
    module.begin(keeper.stages[-1])
    callbacks: list[Callback] = [keeper]
    if progress:
        callbacks.append(Progress(keeper, f"seed {settings.seed}"))
    for loader in (batches.train_dataloader(), *batches.val_dataloader()):
        loader.share = (rank(), size())
    with _quiet(), _determined(), _restored(module), _synchronised(module):
        trainer = Trainer(
            max_epochs=settings.epochs,
            accelerator=settings.device,
            **_arrangement(settings),
            deterministic="warn",
            gradient_clip_val=settings.clip or None,
            logger=TensorBoardLogger(logs, name=None, version=checkpoint.stem),
            callbacks=callbacks,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, batches, ckpt_path=checkpoint if there else None, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt
    return keeper


def _arrangement(settings: Settings) -> dict[str, Any]:
    """Trainer's arguments on devices and precision.

    Asked for 16-mixed on a CPU by name, Lightning takes bf16 in silence; its plugin does it.
    """
    where: dict[str, Any]
    if size() > 1:
        from .parallel.strategies import arrangement

        where = {**arrangement(settings), "plugins": []}
    else:  # also inside a cluster's job: one process, one device
        where = {"devices": 1, "plugins": [LightningEnvironment()]}
    cpu = settings.device == "cpu" or (settings.device == "auto" and not torch.accelerator.is_available())
    if settings.precision == "16-mixed" and cpu:
        return {**where, "plugins": [*where["plugins"], MixedPrecision("16-mixed", "cpu")]}
    return {**where, "precision": settings.precision}


def _synchronised(module: Fitting) -> AbstractContextManager[None]:
    return synchronised(module.model) if size() > 1 else nullcontext()


@contextmanager
def _restored(module: Fitting) -> Iterator[None]:
    try:
        yield
    finally:
        module.frozen.restore()


@contextmanager
def _determined() -> Iterator[None]:
    """Give back torch's random state and its choice of algorithms, which training changes."""
    determined = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fill = memory.fill_uninitialized_memory
    memory.fill_uninitialized_memory = False  # costs a tenth, and nothing here reads such memory
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        torch.use_deterministic_algorithms(determined, warn_only=warn)
        memory.fill_uninitialized_memory = fill


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Lightning's greetings and its advice on loader workers, which these loaders don't have."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
