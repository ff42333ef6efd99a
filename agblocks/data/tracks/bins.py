"""Values by base to values by bin, with missing ones told apart from zeros."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .table import Aggregation


def binned(values: NDArray[np.float32], resolution: int, aggregation: Aggregation) -> NDArray[np.float32]:
    """The mean of each bin's known bases; as a sum, that times the bin's width, so that a bin that is known in part is
    not taken for a low one. A bin without a known base is NaN.

    Shapes: (..., bins * resolution) -> (..., bins).
    Errors: `DataError` if the resolution does not divide the length.
    Use when: a track is learnt at a resolution other than that of its file: intervals count by their overlap.
    """
    length = values.shape[-1]
    if length % resolution:
        raise DataError(f"{length:,} bases are no whole number of bins of {resolution} bp")
    if resolution == 1:
        return values
    parts = values.reshape(*values.shape[:-1], length // resolution, resolution)
    there = ~np.isnan(parts)
    count = there.sum(-1)
    total = np.where(there, parts, 0).sum(-1, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total / count  # 0 / 0 is NaN: no base is known
    return (mean * (resolution if aggregation == "sum" else 1)).astype(np.float32)
