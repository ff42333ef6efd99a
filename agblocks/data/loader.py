"""Batches for training, evaluation and prediction; it knows where it stands, so a run can resume anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .augment import Augment, apply, check_augment, draws
from .batches import Small, plan_batches
from .construct import Construct
from .errors import DataError, count, near
from .sequence import Ambiguous, Codes, encode, one_hot_codes
from .table import Table

Batch = dict[str, Any]


class Loader:
    """An iterable over batches of a table's rows; one pass is one epoch.

    Yields `{"inputs": {"dna": (B, 4, L) float}, "targets": {head: (B, targets) float32}, "index": (B,)
    int64}`; index is the row in the table. With `reverse_input` the inputs also hold that name, (B,) int64, 1
    where the other strand is shown. All sequences of a batch have one length.

    rows: the table's rows to use (`splits.train`); all by default.
    targets: for each head the names of its columns; by default one head for each column, named like it.
    shuffle, augment: for training; both depend on (seed, epoch, row) only.
    small, min_batch: see `plan_batches`; "merge" or "drop" keep batches of one away from a batch norm.

    Where it stands: `state_dict()` holds epoch and next batch, `load_state_dict` takes it up again, also in
    the middle of an epoch, and refuses a state from other data or settings. A pass that ends moves on to the
    next epoch; a pass that is broken off starts over, unless its state is loaded. Lightning finds these
    methods by itself, and `set_epoch` through `sampler`. `start(epoch, batch)` goes anywhere.

    Errors: `DataError` for a sequence that does not fit the construct (all of them listed), unknown targets,
    impossible settings.
    Costs: one byte a base in memory; no worker processes, one-hot is made a batch at a time.
    Use when: feeding a model; one process, one device. It does not shard by rank.
    """

    batch_sampler: None = None  # Lightning looks for it beside `sampler`

    def __init__(
        self,
        table: Table,
        rows: ArrayLike | None = None,
        *,
        construct: Construct | None = None,
        targets: Mapping[str, Sequence[str]] | None = None,
        batch_size: int = 64,
        shuffle: bool = False,
        seed: int = 0,
        augment: Augment | None = None,
        small: Small = "keep",
        min_batch: int = 2,
        reverse_input: str | None = None,
        ambiguous: Ambiguous = "zeros",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.table = table
        self.rows = np.arange(len(table)) if rows is None else np.asarray(rows, dtype=np.int64)
        self.construct = construct or Construct()
        self.augment = augment or Augment()
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.small, self.min_batch, self.reverse_input = small, min_batch, reverse_input
        self.ambiguous, self.dtype = ambiguous, dtype
        if not len(self.rows):
            raise DataError("no row to load: found an empty selection")
        if self.rows.min() < 0 or self.rows.max() >= len(table):
            raise DataError(f"rows {self.rows.min()} to {self.rows.max()}, the table has 0 to {len(table) - 1}")
        check_augment(
            self.augment,
            self.construct.flank_left,
            self.construct.flank_right,
            padded=self.construct.pad != "none",
        )
        self._columns = _columns(table, targets)
        self._lengths, self._spans, self._codes, self._place = _assemble(table, self.rows, self.construct)
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
                yield self._batch(rows, epoch)
        self.start(epoch + 1)

    def plan(self, epoch: int) -> list[NDArray[np.int64]]:
        """The table's rows in each batch of an epoch."""
        batches = plan_batches(
            self._lengths,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            epoch=epoch,
            small=self.small,
            min_batch=self.min_batch,
        )
        return [self.rows[b] for b in batches]

    def start(self, epoch: int = 0, batch: int = 0) -> None:
        """Stand before that batch of that epoch."""
        self.epoch, self.position, self._resume = epoch, batch, batch

    def set_epoch(self, epoch: int) -> None:
        """Stand at the start of an epoch; if it is the current one, stay in the middle of it."""
        if epoch != self.epoch:
            self.start(epoch)

    @property
    def sampler(self) -> Loader:
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

    def _settings(self) -> dict[str, Any]:
        digest = hashlib.sha256(self.rows.astype("<i8").tobytes())
        for length, codes in self._codes.items():
            digest.update(length.to_bytes(8, "little") + codes.tobytes())
        digest.update(self.table.targets[self.rows].astype("<f4").tobytes())
        return {
            "data": digest.hexdigest()[:16],
            "batch_size": self.batch_size,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "small": f"{self.small} {self.min_batch}",
            "augment": repr(self.augment),
        }

    def _batch(self, rows: NDArray[np.int64], epoch: int) -> Batch:
        at = self._place[rows]
        length = int(self._lengths[at[0, 0]])
        codes = self._codes[length][at[:, 1]]
        turned = np.zeros(len(rows), dtype=np.bool_)
        if self.augment.active:
            shift, turned = draws(self.augment, rows, seed=self.seed, epoch=epoch)
            whole = self.augment.scope == "construct"
            codes = apply(
                codes,
                shift,
                turned,
                fill=self.augment.fill,
                start=0 if whole else self._spans[at[:, 0], 0],
                stop=None if whole else self._spans[at[:, 0], 1],
                flank_left=self.construct.flank_left,
                flank_right=self.construct.flank_right,
            )
        inputs: dict[str, Tensor] = {"dna": one_hot_codes(codes, dtype=self.dtype, ambiguous=self.ambiguous)}
        if self.reverse_input is not None:
            inputs[self.reverse_input] = torch.from_numpy(turned.astype(np.int64))
        values = self.table.targets[rows]
        targets = {
            head: torch.from_numpy(np.ascontiguousarray(values[:, columns])) for head, columns in self._columns.items()
        }
        return {"inputs": inputs, "targets": targets, "index": torch.from_numpy(rows.copy())}


def _columns(table: Table, targets: Mapping[str, Sequence[str]] | None) -> dict[str, list[int]]:
    if targets is None:
        return {name: [i] for i, name in enumerate(table.target_names)}
    chosen: dict[str, list[int]] = {}
    for head, names in targets.items():
        listed = [names] if isinstance(names, str) else list(names)
        for name in listed:
            if name not in table.target_names:
                raise DataError(f"head {head!r}: no target {name!r}; {near(name, table.target_names)}")
        chosen[head] = [table.target_names.index(name) for name in listed]
    return chosen


def _assemble(
    table: Table, rows: NDArray[np.int64], construct: Construct
) -> tuple[NDArray[np.int64], NDArray[np.int64], dict[int, Codes], NDArray[np.int64]]:
    """Lengths (k,), spans of the inserts (k, 2), codes by length, and for a row (its k, its line there)."""
    texts: list[str] = []
    spans: list[tuple[int, int]] = []
    problems: list[str] = []
    for row in rows.tolist():
        try:
            texts.append(construct.assemble(table.sequences[row]))
            spans.append(construct.insert_span(len(construct.insert(table.sequences[row]))))
        except DataError as error:
            problems.append(f"{table.where(row)}: {error}")
    if problems:
        raise DataError(f"{count(len(problems), 'row')} cannot be assembled by the construct", problems)
    lengths = np.array([len(t) for t in texts], dtype=np.int64)
    codes: dict[int, Codes] = {}
    place = np.full((len(table), 2), -1, dtype=np.int64)
    for length in np.unique(lengths).tolist():
        own = np.flatnonzero(lengths == length)
        codes[length] = encode([texts[i] for i in own])
        place[rows[own], 0] = own
        place[rows[own], 1] = np.arange(len(own))
    return lengths, np.array(spans, dtype=np.int64), codes, place
