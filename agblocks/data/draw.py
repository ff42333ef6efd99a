"""Seeded draws that belong to a row, not to a moment: pure functions of (seed, epoch, row, stream).

A generator's state depends on everything drawn before, so a run that resumes in the middle of an epoch would
see another stream. Here each number is a hash of what it is for; no state is kept, none has to be saved.

Source: the finaliser of SplitMix64 (Steele, Lea and Flood 2014), chained over the four integers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1

ORDER, BATCHES, REVERSE, SHIFT, WHETHER = range(5)
"""Streams: what a draw is for. Two draws for one row in one epoch differ by their stream."""


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(seed: int, epoch: int, rows: ArrayLike, stream: int) -> NDArray[np.uint64]:
    """One 64-bit hash per row; any integers as seed and epoch (taken modulo 2**64).

    Shapes: rows (n,) integers -> (n,) uint64.
    Use when: sorting by it shuffles, the same way on every machine and with every numpy.
    """
    state = np.zeros(1, dtype=np.uint64)
    for value in (seed, epoch, stream):
        state = _mix(state + np.array([((value + 1) * _GOLDEN) & _MASK], dtype=np.uint64))
    index = np.asarray(rows, dtype=np.int64).astype(np.uint64)
    return _mix(state + (index + np.uint64(1)) * np.uint64(_GOLDEN))


def uniform(seed: int, epoch: int, rows: ArrayLike, stream: int) -> NDArray[np.float64]:
    """One number in [0, 1) per row, from the upper 53 bits of `keys`.

    Shapes: rows (n,) integers -> (n,) float64.
    """
    return (keys(seed, epoch, rows, stream) >> np.uint64(11)).astype(np.float64) * 2.0**-53
