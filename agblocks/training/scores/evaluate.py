"""Scores of a run on rows it did not train on, with the files that show them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...data import Table
from ...errors import near
from ..errors import RunError
from ..predict import predict, write_predictions
from ..run import Run
from ..settings import Strands
from .metrics import Score, score

BOOTSTRAP = 1000


@dataclass(frozen=True)
class Evaluation:
    """Predictions for some rows of a table, and how well they agree. Shapes: predicted, observed (rows, targets)."""

    scores: tuple[Score, ...]
    rows: NDArray[np.int64]
    predicted: NDArray[np.float64]
    observed: NDArray[np.float32]
    names: tuple[str, ...]
    part: str


def evaluate(
    run: Run,
    table: Table,
    rows: ArrayLike | None = None,
    *,
    part: str = "test",
    strands: Strands | None = None,
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
    device: str | None = None,
    predicted: NDArray[np.float64] | None = None,
) -> Evaluation:
    """Predict rows (default: all) and score them, each target on all its measured rows at once.

    strands: as `predict`. bootstrap, seed: of the intervals. predicted: what `predict` would give, where it is there.
    Errors: `RunError` if the table lacks a target of the run; `DataError` as `predict`.
    """
    run.check_on_sequences()
    index = np.arange(len(table)) if rows is None else np.asarray(rows, np.int64)
    for name in run.target_names:
        if name not in table.target_names:
            raise RunError(f"the run predicts {name!r}, the table has no such target; {near(name, table.target_names)}")
    columns = [table.target_names.index(name) for name in run.target_names]
    if predicted is None:
        predicted = predict(run, table, index, strands=strands, device=device)
    observed = table.targets[index][:, columns]
    scores = score(predicted, observed, run.target_names, bootstrap=bootstrap, seed=seed)
    return Evaluation(tuple(scores), index, predicted, observed, run.target_names, part)


def report(evaluation: Evaluation, table: Table, folder: str | Path) -> None:
    """Write predictions.tsv and scatter.png of an evaluation into a folder."""
    from .plots import scatter

    out = Path(folder)
    write_predictions(
        out / "predictions.tsv", table, evaluation.rows, evaluation.predicted, evaluation.names, evaluation.observed
    )
    scatter(out / "scatter.png", evaluation.predicted, evaluation.observed, evaluation.scores)
