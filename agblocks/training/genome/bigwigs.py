"""Predictions as bigWig files, each whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...files import beside
from ..errors import RunError

Entry = tuple[str, int, int, float]
CHUNK = 1 << 16


def write_bigwig(path: Path, sizes: Mapping[str, int], entries: Iterable[Entry]) -> None:
    """Write chromosomes' sizes and values; beside, flushed to the disk, then renamed.

    entries: (chromosome, start, end, value), sorted within a chromosome, chromosomes one after the other.
    pybigtools lists the chromosomes that have values, and no others, in the header.
    Errors: `RunError` if it cannot be written, or there is no value.
    """
    import pybigtools

    held = iter(entries)
    first = next(held, None)
    if first is None:
        raise RunError(f"{path}: there is no value to write: no bin lies in what is asked for")

    try:
        with beside(path, ".bw") as part:  # pybigtools goes by the suffix
            pybigtools.open(str(part), "w").write(dict(sizes), chain([first], held))
    except (OSError, pybigtools.BBIReadError, ValueError) as error:
        raise RunError(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None


def bedgraph(
    chromosome: str,
    length: int,
    first: int,
    stride: int,
    stretches: Iterable[tuple[int, int]],
    values: NDArray[np.float32],
) -> Iterator[Entry]:
    """Entries of a row of bins, the first of which begins at base `first`; cut to the stretches and the chromosome.

    Neighbours of equal value are one entry. Shapes: values (bins,).
    """
    for start, end in stretches:
        low, high = max(0, (start - first) // stride), min(len(values), -(-(end - first) // stride))
        for at in range(low, high, CHUNK):
            row = np.asarray(values[at : min(high, at + CHUNK)])
            edges = np.flatnonzero(np.diff(row)) + 1
            begins = np.concatenate([[0], edges])
            starts = np.maximum(first + stride * (at + begins), start)
            ends = np.minimum(first + stride * (at + np.concatenate([edges, [len(row)]])), min(end, length))
            yield from zip(
                [chromosome] * len(begins), starts.tolist(), ends.tolist(), row[begins].tolist(), strict=True
            )
