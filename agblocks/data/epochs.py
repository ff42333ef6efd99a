"""Where a pass over batches stands: what lets a run resume anywhere, whatever the batches are made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import DataError

Batch = dict[str, Any]


class Epochs(ABC):
    """An iterable over batches whose passes are epochs: batches are a pure function of the epoch.

    A subclass says which rows make which batch (`plan`), makes one (`_batch`), says what a saved state must agree with
    (`_settings`), and calls `_begin` once it can.

    `state_dict()` holds epoch and next batch, `load_state_dict` takes it up again, also in the middle of an epoch, and
    refuses a state from other data or settings. A pass that ends moves on to the next epoch; a pass that is broken off
    starts over, unless its state is loaded. Lightning finds these methods by itself, and `set_epoch` through `sampler`.
    Where several processes train together, `share` gives each its part of the same batches.
    """

    batch_sampler: None = None  # Lightning looks for it beside `sampler`
    share: tuple[int, int] = (0, 1)  # this process's number, and of how many that train together

    @abstractmethod
    def plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """The rows in each batch of an epoch; the same number of batches in each."""

    @abstractmethod
    def _batch(self, rows: NDArray[np.int64], epoch: int) -> Batch: ...

    @abstractmethod
    def _settings(self) -> dict[str, Any]: ...

    def _begin(self) -> None:
        self.epoch = self.position = self._resume = 0
        self._batches = len(self.plan(0))
        self._identity = self._settings()

    def __len__(self) -> int:
        """Batches in an epoch, the same in each."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        # A generator reads where to start at its first `next`: Lightning calls iter() before set_epoch().
        epoch, begin = self.epoch, self._resume
        self._resume = 0
        for i, rows in enumerate(self.plan(epoch)):
            if i >= begin:
                self.position = i + 1
                yield self._shared(rows, epoch)
        self.start(epoch + 1)

    def _shared(self, rows: NDArray[np.int64], epoch: int) -> Batch:
        """This process's rows of a batch, with `shares`, how many each has; all rows where there are too few."""
        number, size = self.share
        if size == 1 or len(rows) < size:
            return self._batch(rows, epoch)
        parts = np.array_split(rows, size)
        return {**self._batch(parts[number], epoch), "shares": [len(part) for part in parts]}

    def start(self, epoch: int = 0, batch: int = 0) -> None:
        """Stand before that batch of that epoch."""
        self.epoch, self.position, self._resume = epoch, batch, batch

    def set_epoch(self, epoch: int) -> None:
        """Stand at the start of an epoch; if it is the current one, stay in the middle of it."""
        if epoch != self.epoch:
            self.start(epoch)

    @property
    def sampler(self) -> Epochs:
        """Itself: where Lightning looks for `set_epoch`."""
        return self

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, in plain numbers, with what it must agree with."""
        return {"epoch": self.epoch, "batch": self.position, "of": dict(self._identity)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Stand where that state stood.

        Errors: `DataError` if the state is damaged, or from other rows or settings: the batches would differ.
        """
        try:
            epoch, batch, of = state["epoch"], state["batch"], dict(state["of"])
        except (KeyError, TypeError, ValueError):
            raise DataError("the loader's state is damaged: wanted epoch, batch and of") from None
        for name, own in self._identity.items():
            if of.get(name) != own:
                raise DataError(
                    f"the loader's state was saved with {name} = {of.get(name)!r}, here it is {own!r}: "
                    "resuming would not give the same batches"
                )
        if type(epoch) is not int or type(batch) is not int or epoch < 0 or not 0 <= batch <= len(self):
            raise DataError(f"the loader's state is damaged: epoch {epoch!r}, batch {batch!r} of {len(self)}")
        if batch == len(self):
            epoch, batch = epoch + 1, 0
        self.start(epoch, batch)
