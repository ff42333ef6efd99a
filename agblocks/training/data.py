"""The batches of a training, from a table and its splits, as Lightning takes them."""

from __future__ import annotations

from dataclasses import replace

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
    before, because a batch norm over vectors cannot use it.
    """

    def __init__(
        self, table: Table, splits: Splits, construct: Construct, wiring: Wiring, settings: Settings, seed: int
    ):
        super().__init__()
        table = replace(table, targets=wiring.scale(table.targets))
        self.train = Loader(
            table, splits.train, construct=construct, targets=wiring.heads, batch_size=settings.batch_size,
            shuffle=True, seed=seed, augment=settings.augment, small="merge", ambiguous=settings.ambiguous,
            reverse_input=FLAG if wiring.reverse is not None else None,
        )  # fmt: skip
        self.valid = [
            loader(table, splits.valid, construct, wiring, settings, turned=turned)
            for turned in settings.shown_strands
            if len(splits.valid)
        ]

    def train_dataloader(self) -> Loader:
        return self.train

    def val_dataloader(self) -> list[Loader]:
        return self.valid
