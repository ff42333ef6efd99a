"""Metrics of resampled rows, many resamples at once: a resample is how often each row was drawn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def draw_counts(rng: np.random.Generator, n: int, times: int) -> Array:
    """How often each of n rows is drawn in resamples of n rows. Shapes: -> (times, n)."""
    drawn = rng.integers(n, size=(times, n))
    flat = drawn + n * np.arange(times)[:, None]
    return np.bincount(flat.ravel(), minlength=times * n).reshape(times, n).astype(np.float64)


def weighted_pearson(counts: Array, a: Array, b: Array) -> Array:
    """Pearson's correlation of columns under counts of rows, by matrix products; nan where a column is constant.

    Shapes: counts (times, n), a and b (n, columns), or (n, 1) for one that goes with every column -> (times, columns).
    """
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    n = counts.sum(axis=1, keepdims=True)
    sum_a, sum_b = counts @ a, counts @ b
    square_a, square_b = counts @ a**2, counts @ b**2
    spread_a, spread_b = square_a - sum_a**2 / n, square_b - sum_b**2 / n
    top = counts @ (a * b) - sum_a * sum_b / n
    # What is left of a constant column after subtracting is rounding.
    there = (spread_a > 1e-12 * square_a) & (spread_b > 1e-12 * square_b)
    below = np.sqrt(np.where(there, spread_a * spread_b, 1.0))
    return np.where(there, np.clip(top / below, -1, 1), np.nan)


def weighted_spearman(counts: Array, a: Array, b: Array) -> Array:
    """Spearman's correlation of columns with one, under counts of rows, as if the rows had been written out.

    Shapes: counts (times, n), a (n, columns), b (n,) -> (times, columns).
    """
    n = counts.sum(axis=1, keepdims=True)

    def centred(values: Array) -> tuple[Array, Array]:
        ranks = weighted_ranks(counts, values)
        ranks -= np.einsum("kn,kn->k", counts, ranks)[:, None] / n
        held = counts * ranks
        return ranks, np.einsum("kn,kn->k", held, ranks)

    ranks_b, square_b = centred(b)
    held_b = counts * ranks_b
    out = np.empty((len(counts), a.shape[1]))
    for i, column in enumerate(a.T):
        ranks_a, square_a = centred(column)
        below = np.sqrt(square_a * square_b)
        top = np.einsum("kn,kn->k", held_b, ranks_a)
        out[:, i] = np.divide(top, below, out=np.full(len(counts), np.nan), where=below > 0)
    return out


def weighted_ranks(counts: Array, values: Array) -> Array:
    """The rank of each row among a resample, ties sharing their mean: from the cumulated counts of the sorted values.

    Shapes: counts (times, n), values (n,) -> (times, n).
    """
    kinds, inverse = np.unique(values, return_inverse=True)
    if len(kinds) == counts.shape[1]:
        held = np.empty_like(counts)
        held[:, inverse] = counts
    else:
        order = np.argsort(inverse, kind="stable")
        starts = np.searchsorted(inverse[order], np.arange(len(kinds)))
        held = np.add.reduceat(counts[:, order], starts, axis=1)
    found = np.cumsum(held, axis=1) - (held - 1) / 2
    return found[:, inverse]
