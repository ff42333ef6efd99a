"""The batches of a training, from a table and its splits, as Lightning takes them."""

from __future__ import annotations

import warnings
from dataclasses import replace

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._torchvision import mend
from ..data import Construct, Loader, Splits, Table
from .predict import loader
from .settings import Settings
from .wiring import FLAG, Wiring

mend()
from lightning.pytorch import LightningDataModule  # noqa: E402


class Batches(LightningDataModule):
    """Training rows shuffled and augmented by (seed, epoch, row), validation rows as they will be predicted, so
    on both strands where that is asked for; targets scaled.

    Test rows are not here: nothing that trains can reach them. A last training batch of one row joins the one
    before. A row that alone has its length has none to join: where the model has batch norms, which cannot train on
    it (one value a channel) or would learn its statistics, it is left out of training, with a warning.
    """

    def __init__(
        self, table: Table, splits: Splits, construct: Construct, wiring: Wiring, settings: Settings, seed: int,
        model: nn.Module,
    ):  # fmt: skip
        super().__init__()
        normed = any(isinstance(module, _BatchNorm) for module in model.modules())
        table = replace(table, targets=wiring.scale(table.targets))
        self.train = Loader(
            table, splits.train, construct=construct, targets=wiring.heads, batch_size=settings.batch_size,
            shuffle=True, seed=seed, augment=settings.augment, ambiguous=settings.ambiguous,
            small="merge_or_drop" if normed else "merge",
            reverse_input=FLAG if wiring.reverse is not None else None,
        )  # fmt: skip
        lone = len(splits.train) - sum(len(rows) for rows in self.train.plan(0))
        if lone:
            warnings.warn(
                f"{lone} of {len(splits.train):,} training rows are left out: no other has their length, and a batch "
                "norm cannot train on a batch of one; a construct that pads gives all one length",
                stacklevel=2,
            )
        self.valid = [
            loader(table, splits.valid, construct, wiring, settings, turned=turned)
            for turned in settings.shown_strands
            if len(splits.valid)
        ]

    def train_dataloader(self) -> Loader:
        return self.train

    def val_dataloader(self) -> list[Loader]:
        return self.valid
