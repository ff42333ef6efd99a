"""The baseline of every study: ridge on counts of k-mers."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...data import inserts
from ...training.baseline.kmers import kmer_counts
from ...training.baseline.ridge import ALPHAS
from ..planning.cell import Cell
from ..planning.rows import read_rows
from ..store import Store
from .closed import fitted
from .perform import Ended


def do(cells: Sequence[Cell], store: Store, ended: Ended) -> None:
    """Cells on the same rows: k-mers are counted once, in the inserts, and each split is fitted."""
    begun = time.monotonic()
    rows = read_rows(cells[0].given["data"])
    counts = kmer_counts(inserts(rows.table, rows.construct), cells[0].document["kmer"])
    spent = (time.monotonic() - begun) / len(cells)
    for cell in cells:
        try:
            ended(cell, fitted(cell, rows, counts, spent, ALPHAS))
        except Exception as error:
            ended(cell, error)
