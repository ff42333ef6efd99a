"""One eigendecomposition of standardised features, from which ridge at any penalty follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import RunError

Array = NDArray[np.float64]
_CHUNK = 32_000_000  # numbers held in float64 at a time, beside the matrix that is decomposed


@dataclass(frozen=True)
class Standard:
    """Means and inverse spreads of features over the training rows; a feature that never varies there counts as 0.

    A spread within rounding of the feature's own type is none: scaled up it would be noise.
    """

    mean: Array
    inverse: Array

    @classmethod
    def of(cls, x: NDArray) -> Standard:
        """Shapes: x (rows, features)."""
        total = np.zeros(x.shape[1])
        for rows in _chunks(x):
            total += rows.sum(axis=0)
        mean = total / len(x)
        squares, largest = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for rows in _chunks(x):
            squares += ((rows - mean) ** 2).sum(axis=0)
            np.maximum(largest, np.abs(rows).max(axis=0), out=largest)
        spread = np.sqrt(squares / len(x))
        exact = np.finfo(x.dtype).eps if x.dtype.kind == "f" else np.finfo(np.float64).eps
        dead = spread <= 4 * exact * largest
        return cls(mean, np.where(dead, 0.0, 1 / np.where(dead, 1.0, spread)))

    def __call__(self, x: NDArray) -> Array:
        return (np.asarray(x, np.float64) - self.mean) * self.inverse


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of centred features' products, and what turns targets and new rows into that basis.

    With `x` centred, of n rows and p features: by features (p <= n) `vectors` are those of x'x, by rows those of xx'.
    """

    standard: Standard
    middle: Array  # mean of the standardised features over the rows that were decomposed
    values: Array
    vectors: Array
    rows: Array | None  # by rows: the centred features themselves, which coefficients need

    @classmethod
    def of(cls, x: NDArray, standard: Standard) -> Spectrum:
        """Shapes: x (rows, features). Costs: min(rows, features) cubed, and as many features times rows squared."""
        n, p = x.shape
        if p > n:
            held = standard(x)
            middle = held.mean(axis=0)
            held -= middle
            gram = held @ held.T
        else:
            held = None
            middle = sum((standard(rows).sum(axis=0) for rows in _chunks(x)), np.zeros(p)) / n
            gram = np.zeros((p, p))
            for rows in _chunks(x):
                centred = standard(rows) - middle
                gram += centred.T @ centred
        values, vectors = np.linalg.eigh(gram)
        return cls(standard, middle, np.maximum(values, 0.0), vectors, held)

    def loads(self, x: NDArray, y: Array) -> Array:
        """Centred targets in the basis. Shapes: x (rows, features) as decomposed, y (rows, targets) -> (rank, ...)."""
        if self.rows is not None:
            return self.vectors.T @ y
        total = np.zeros((len(self.values), y.shape[1]))
        start = 0
        for rows in _chunks(x):
            total += (self.standard(rows) - self.middle).T @ y[start : start + len(rows)]
            start += len(rows)
        return self.vectors.T @ total

    def seen(self, x: NDArray) -> Array:
        """Other rows in the basis. Shapes: (rows, features) -> (rows, rank)."""
        basis = self.vectors if self.rows is None else self.rows.T @ self.vectors
        parts = [(self.standard(rows) - self.middle) @ basis for rows in _chunks(x)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.values)))

    def coefficients(self, loads: Array, penalty: float) -> Array:
        """Ridge on standardised features at one penalty. Shapes: loads (rank,) -> (features,)."""
        weights = self.vectors @ shrunk(self.values, loads, penalty)
        return weights if self.rows is None else self.rows.T @ weights


def shrunk(values: Array, loads: Array, penalty: float | Array) -> Array:
    """`loads / (values + penalty)`, and nothing in directions where both are nothing."""
    below = values + penalty
    return np.divide(loads, below, out=np.zeros(np.broadcast_shapes(loads.shape, below.shape)), where=below > 0)


def matrix(x: ArrayLike, name: str) -> NDArray:
    """Features as an array (rows, features) of whatever float type. Errors: `RunError` for another form or a NaN."""
    made = np.asarray(x)
    if made.ndim != 2 or made.dtype.kind not in "fiub" or not made.shape[1]:
        raise RunError(f"{name} should be numbers (rows, features), but is {list(made.shape)} of {made.dtype}")
    start = 0
    for rows in _chunks(made):
        if not np.isfinite(rows).all():
            row, column = np.argwhere(~np.isfinite(rows))[0]
            raise RunError(f"{name}: feature {column} of row {start + row} is {rows[row, column]}")
        start += len(rows)
    return made


def _chunks(x: NDArray) -> Iterator[Array]:
    step = max(1, _CHUNK // x.shape[1])
    for start in range(0, len(x), step):
        yield np.asarray(x[start : start + step], np.float64)
