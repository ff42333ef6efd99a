"""Probes in closed form: ridge on features of a frozen model, pooled over positions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..planning.cell import Cell
from ..planning.rows import read_rows
from ..store import Store
from .closed import fitted
from .frozen import frozen_features
from .perform import Ended


def do(cells: Sequence[Cell], store: Store, ended: Ended) -> None:
    """Cells that read one model over the same rows: features of all their taps from one pass, then a fit each."""
    begun = time.monotonic()
    rows = read_rows(cells[0].given["data"])
    made = frozen_features(cells, rows, store)
    spent = (time.monotonic() - begun) / len(cells)
    for cell in cells:
        try:
            size = made.parameters(cell)
            ended(cell, fitted(cell, rows, made.of(cell), spent, weights=made.weights, parameters=size))
        except Exception as error:
            ended(cell, error)
