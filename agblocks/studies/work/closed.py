"""A closed-form fit on features that are there: penalty by the validation rows, scores of the test rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...training.baseline.ridge import PENALTIES, fit_ridge_features
from ...training.scores.evaluate import BOOTSTRAP
from ...training.scores.metrics import Score, score
from ..errors import WorkError
from ..planning.cell import Cell
from ..planning.rows import Rows, parts
from ..store import Predictions
from .outcome import Done


def fitted(
    cell: Cell, rows: Rows, features: NDArray[Any], spent: float = 0.0, penalties: Sequence[float] = PENALTIES,
    weights: str | None = None, parameters: int | None = None,
) -> Done:  # fmt: skip
    """The cell's ridge on features of all rows of its table.

    Shapes: features (rows of the table, features). spent: seconds that count to this cell beside its own;
    parameters: of what made the features.
    Errors: `WorkError` if its rows are not those that were planned.
    """
    begun = time.monotonic()
    document = cell.document
    if rows.sha256 != document["data"]:
        raise WorkError("the rows have changed since the study was planned; run it again")
    splits = parts(rows, document["test"], document["valid"], document["rows"], document.get("drawn", 0))
    names, targets = rows.table.target_names, rows.table.targets
    train, valid = splits.train, splits.valid
    probe = fit_ridge_features(features[train], targets[train], features[valid], targets[valid], penalties, names=names)
    scores: dict[str, list[Score]] = {}
    for part in ("valid", "test"):
        at = splits.parts()[part]
        predicted = probe.predict(features[at])
        scores[part] = score(predicted, targets[at], names, bootstrap=BOOTSTRAP)
    ids = [rows.table.ids[i] for i in splits.test.tolist()]
    coefficients = (features.shape[1] + 1) * len(names)
    return Done(
        scores, {part: len(at) for part, at in splits.parts().items()},
        Predictions(ids, names, targets[splits.test], np.asarray(predicted)), time.monotonic() - begun + spent,
        {"penalty": dict(zip(names, probe.penalties, strict=True)), "notes": list(probe.notes)},
        {"all": (parameters or 0) + coefficients, "trained": coefficients}, weights,
    )  # fmt: skip
