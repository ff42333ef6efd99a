"""Which rows make which batch: a pure function of (lengths, seed, epoch)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .draw import BATCHES, ORDER, keys
from .errors import DataError

Small = Literal["keep", "drop", "merge"]


def plan_batches(
    lengths: ArrayLike,
    *,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    epoch: int = 0,
    small: Small = "keep",
    min_batch: int = 2,
) -> list[NDArray[np.int64]]:
    """Batches of row numbers, every batch of one length, every row in one batch at most.

    Shapes: lengths (n,) whole numbers -> a list of (at most batch_size, or with "merge" less than
    batch_size + min_batch) row numbers.
    shuffle: rows within a length and the order of the batches are drawn anew in each epoch; without it rows
        keep their order within a length, and a batch stands where its first row stands.
    small: what becomes of a batch below `min_batch` rows, which a batch norm over vectors cannot use: "keep"
        it, "drop" its rows for this epoch, or "merge" it into the batch before it. A length that fewer than
        `min_batch` rows have has nothing to merge with: that batch is kept. `drop` with min_batch =
        batch_size is torch's `drop_last`. The number of batches is the same in every epoch.
    Errors: `DataError` for impossible sizes, an unknown option, or if nothing is left.
    """
    size = np.asarray(lengths, dtype=np.int64)
    if batch_size < 1 or not 1 <= min_batch <= batch_size + 1:
        raise DataError(f"batch_size={batch_size}, min_batch={min_batch}: wanted whole numbers from 1, min <= size")
    if small not in get_args(Small):
        raise DataError(f"small is {small!r}, wanted one of {', '.join(get_args(Small))}")
    rows = np.arange(len(size))
    if shuffle:
        rows = np.argsort(keys(seed, epoch, rows, ORDER), kind="stable")
    batches: list[NDArray[np.int64]] = []
    for length in np.unique(size):
        own = rows[size[rows] == length]
        cut = [own[i : i + batch_size] for i in range(0, len(own), batch_size)]
        if len(cut[-1]) < min_batch:
            if small == "drop":
                cut.pop()
            elif small == "merge" and len(cut) > 1:
                tail = cut.pop()
                cut[-1] = np.concatenate([cut[-1], tail])
        batches += cut
    if not batches:
        raise DataError(f"{len(size)} rows make no batch of at least {min_batch}; add rows, or keep small batches")
    if shuffle:
        order = np.argsort(keys(seed, epoch, np.arange(len(batches)), BATCHES), kind="stable")
    else:
        order = np.argsort([b[0] for b in batches], kind="stable")
    return [batches[i] for i in order]
