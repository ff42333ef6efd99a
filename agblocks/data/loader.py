"""Batches for training, evaluation and prediction; it knows where it stands, so a run can resume anywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from .augment import Augment, apply, check_augment, draws
from .batches import Small, plan_batches
from .construct import Construct
from .epochs import Batch, Epochs
from .errors import DataError, count, near
from .sequence import Ambiguous, Codes, encode, one_hot_codes
from .table import Table


class Loader(Epochs):
    """An iterable over batches of a table's rows; one pass is one epoch.

    Yields `{"inputs": {"dna": (B, 4, L) float}, "targets": {head: (B, targets) float32}, "index": (B,)
    int64}`; index is the row in the table. With `reverse_input` the inputs also hold that name, (B,) int64, 1
    where the other strand is shown. All sequences of a batch have one length.

    rows: the table's rows to use (`splits.train`); all by default.
    targets: for each head the names of its columns; by default one head for each column, named like it.
    shuffle, augment: for training; both depend on (seed, epoch, row) only.
    small, min_batch: see `plan_batches`; "merge" or "drop" keep batches of one away from a batch norm.

    Where it stands, and how it resumes: see `Epochs`.

    Errors: `DataError` for a sequence that does not fit the construct (all of them listed), unknown targets,
    impossible settings.
    instead: where it is set, it makes a batch's inputs in place of `inputs`, of the same arguments (kept features).
    Costs: one byte a base in memory; no worker processes, one-hot is made a batch at a time.
    Use when: feeding a model. Of several processes each gets its rows of every batch by `share` (see `Epochs`).
    """

    instead: Callable[[Codes, NDArray[np.bool_]], dict[str, Tensor]] | None = None

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
        self._begin()

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
        inputs = self.inputs(codes, turned) if self.instead is None else self.instead(codes, turned)
        values = self.table.targets[rows]
        targets = {
            head: torch.from_numpy(np.ascontiguousarray(values[:, columns])) for head, columns in self._columns.items()
        }
        return {"inputs": inputs, "targets": targets, "index": torch.from_numpy(rows.copy())}

    def inputs(self, codes: Codes, turned: NDArray[np.bool_]) -> dict[str, Tensor]:
        """What a model is given: one-hot, and the strand flag where it is wanted.

        Shapes: codes (B, L) as augmentation left them, turned (B,): whether the other strand is shown.
        """
        inputs: dict[str, Tensor] = {"dna": one_hot_codes(codes, dtype=self.dtype, ambiguous=self.ambiguous)}
        if self.reverse_input is not None:
            inputs[self.reverse_input] = torch.from_numpy(turned.astype(np.int64))
        return inputs


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
