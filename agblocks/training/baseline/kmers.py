"""Counts of k-mers: the features of the baseline that knows no network."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...data import encode
from ..errors import RunError


def kmer_counts(sequences: Sequence[str], k: int) -> NDArray[np.float32]:
    """How often each k-mer stands on either strand of each sequence; a k-mer and its reverse complement are one.

    Shapes: n sequences -> (n, (4**k + palindromes) / 2): 2,080 for k = 6. k-mers with an N or another ambiguity
    letter are not counted.
    """
    if not 1 <= k <= 8:
        raise RunError(f"k is {k}, wanted 1 to 8")
    code = np.arange(4**k)
    other = np.zeros_like(code)
    for place in range(k):
        other += (3 - code // 4**place % 4) * 4 ** (k - 1 - place)
    _, column = np.unique(np.minimum(code, other), return_inverse=True)
    width = int(column.max()) + 1
    out = np.zeros((len(sequences), width), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        codes = encode(sequence)[0].astype(np.int64)
        if len(codes) < k:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(codes, k)
        clean = windows[(windows < 4).all(axis=1)]
        words = clean @ (4 ** np.arange(k - 1, -1, -1))
        out[row] = np.bincount(column[words], minlength=width)
    return out
