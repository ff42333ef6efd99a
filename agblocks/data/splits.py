"""Which rows are for training, validation and test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .draw import ORDER, keys
from .errors import DataError, near
from .table import Table

Rows = NDArray[np.int64]
Fold = str | int


@dataclass(frozen=True, eq=False)
class Splits:
    """Row numbers of the three parts, ascending and disjoint; valid and test may be empty."""

    train: Rows
    valid: Rows
    test: Rows

    def parts(self) -> dict[str, Rows]:
        """The parts by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}


def split_by_fold(table: Table, *, valid: Fold | Sequence[Fold], test: Fold | Sequence[Fold] = ()) -> Splits:
    """Whole folds for validation and for test, the rest for training; 1 and "1" are the same fold.

    Errors: `DataError` if the table has no folds, a fold does not exist or is named for both, or no row is
    left to train on.
    Use when: the data come with folds; several may be named.
    """
    if table.fold is None:
        raise DataError("the table has no fold; name its column, or split by group or at random")
    there = sorted(set(table.fold.tolist()), key=lambda f: (len(f), f))
    chosen = {"valid": _fold_names(valid), "test": _fold_names(test)}
    for part, names in chosen.items():
        for name in names:
            if name not in there:
                raise DataError(f"{part}: there is no fold {name!r}; {near(name, there)}")
    if both := set(chosen["valid"]) & set(chosen["test"]):
        raise DataError(f"fold {', '.join(sorted(both))} is named for validation and for test")
    return _cut(np.isin(table.fold, chosen["valid"]), np.isin(table.fold, chosen["test"]))


def split_by_group(groups: ArrayLike, *, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Splits:
    """Whole groups, drawn until each part has about its fraction of the rows.

    Shapes: groups (n,), any labels (`table.group`, `insert_groups(table)`, `genomic_blocks(...)`).
    The draw depends on the labels and the seed, not on the order of the rows.
    Errors: `DataError` for fractions that don't leave a training part, or too few groups.
    Use when: there are no folds, and rows of a group must not be torn apart.
    """
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise DataError(f"valid={valid}, test={test}: wanted fractions from 0, together below 1")
    labels, codes, sizes = _labels(groups)
    order = _shuffled(len(labels), seed)
    part = np.zeros(len(labels), dtype=np.int8)
    start = 0
    for mark, fraction in ((1, valid), (2, test)):
        goal, held = fraction * len(codes), 0
        while fraction and start < len(order) and (held == 0 or held + sizes[order[start]] / 2 <= goal):
            part[order[start]] = mark
            held += sizes[order[start]]
            start += 1
    if start == len(order):
        raise DataError(f"{len(labels)} groups are too few for valid={valid}, test={test} and a training part")
    return _cut(part[codes] == 1, part[codes] == 2)


def split_random(n: int, *, valid: float = 0.1, test: float = 0.1, seed: int = 0) -> Splits:
    """Single rows at random. Leaks wherever an insert is there twice: `check_leaks` will say so.

    Use when: rows are independent by design (random promoters); else `split_by_group(insert_groups(table))`.
    """
    return split_by_group(np.arange(n), valid=valid, test=test, seed=seed)


def fold_groups(groups: ArrayLike, *, folds: int = 10, seed: int = 0) -> NDArray[np.str_]:
    """Fold names "0", "1", ... for every row, groups whole and folds as even as the groups allow.

    Shapes: groups (n,), any labels -> (n,) text. Large groups are placed first, each into the smallest fold;
    the seed breaks ties. Independent of the order of the rows.
    Errors: `DataError` for fewer groups than folds.
    Use when: cross-validating data that come without folds.
    """
    labels, codes, sizes = _labels(groups)
    if not 2 <= folds <= len(labels):
        raise DataError(f"folds={folds}: wanted 2 to {len(labels)}, the number of groups")
    shuffled = _shuffled(len(labels), seed)
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    held = np.zeros(folds, dtype=np.int64)
    fold = np.zeros(len(labels), dtype=np.int64)
    for label in order:
        smallest = int(np.argmin(held))
        fold[label] = smallest
        held[smallest] += sizes[label]
    return fold[codes].astype(np.str_)


def genomic_blocks(
    chrom: Sequence[str], start: ArrayLike, size: int = 250_000, *, end: ArrayLike | None = None
) -> NDArray[np.str_]:
    """The block of each window, "chrX:12" for the 13th stretch of `size` bases.

    Shapes: chrom and start (n,) -> (n,) text. With `end` (past or on the last base) windows that overlap stay
    together across a block's border: a chain of them goes to the block in which it begins.
    Errors: `DataError` for a size below 1, a negative start, or lengths that differ.
    Use when: windows overlap or lie close by: neighbours share sequence, and activity.
    """
    first = np.asarray(start, dtype=np.int64)
    if size < 1 or len(first) != len(chrom) or (first < 0).any():
        raise DataError(
            f"genomic_blocks: {len(chrom)} chromosomes, {len(first)} starts (least {first.min(initial=0)}), "
            f"size {size}; wanted as many of both, starts from 0, a size above 0"
        )
    anchor = first.copy()
    if end is not None:
        last = np.asarray(end, dtype=np.int64)
        names = np.asarray(chrom, dtype=np.str_)
        reach, head, previous = -1, 0, ""
        for i in np.lexsort((last, first, names)):
            if names[i] != previous or first[i] > reach:
                head, reach, previous = int(first[i]), int(last[i]), str(names[i])
            anchor[i] = head
            reach = max(reach, int(last[i]))
    return np.array([f"{c}:{b}" for c, b in zip(chrom, anchor // size, strict=True)], dtype=np.str_)


def _labels(groups: ArrayLike) -> tuple[NDArray[np.generic], Rows, Rows]:
    array = np.asarray(groups)
    if array.ndim != 1 or not len(array):
        raise DataError(f"groups have shape {array.shape}, wanted one label for each row")
    labels, codes, sizes = np.unique(array, return_inverse=True, return_counts=True)
    return labels, codes.astype(np.int64), sizes.astype(np.int64)


def _shuffled(n: int, seed: int) -> Rows:
    return np.argsort(keys(seed, 0, np.arange(n), ORDER), kind="stable")


def _fold_names(folds: Fold | Sequence[Fold]) -> list[str]:
    listed = [folds] if isinstance(folds, (str, int)) else folds
    return [str(f) for f in listed]


def _cut(valid: NDArray[np.bool_], test: NDArray[np.bool_]) -> Splits:
    train = np.flatnonzero(~valid & ~test)
    if not len(train):
        raise DataError("no row is left to train on: validation and test hold them all")
    return Splits(train, np.flatnonzero(valid), np.flatnonzero(test))
