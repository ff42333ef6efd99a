"""An evaluation as the command line asks for it: a run's own test fold, or rows from elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ...data import Table
from ...errors import near
from ..errors import RunError
from ..run import load_run
from ..seen import seen as was_seen
from ..sources import Source, read_data, split
from ..write import write_whole
from .evaluate import BOOTSTRAP, Evaluation, evaluate, report

SEEN = ("refuse", "drop", "keep")


def evaluate_source(
    path: str | Path,
    source: Source | None = None,
    *,
    targets: str = "",
    strands: Any = None,
    seen: str = "refuse",
    bootstrap: int = BOOTSTRAP,
    seed: int = 0,
) -> tuple[Evaluation, Table]:
    """Score a run on the test fold of the rows it was fitted to; or, where the source names data, on those.

    Of other data all rows count, unless a fold column is named: then its test folds. Rows whose insert the run has
    trained or validated on, on either strand, are refused, dropped or kept as `seen` says.
    Errors: `RunError` for rows that were seen, an unknown choice, or a run that does not say where its rows came from.
    """
    for what, value, options in (("seen", seen, SEEN), ("strands", strands, ("one", "both"))):
        if value is not None and value not in options:
            raise RunError(f"--{what} {value}: {near(value, options)}")
    run = load_run(path)
    run.check_on_sequences()
    if source is None or not source.data:
        source = Source.from_dict(run.data.get("source") or {"": ""})
        table = read_data(source, run.construct)
        rows, part = split(source, table).test, f"test fold {', '.join(source.test_folds)}"
        if not len(rows):
            raise RunError(f"{path}: the run held out no test rows; name other rows with --data")
    else:
        names = tuple(n.strip() for n in targets.split(",")) if targets else run.target_names
        if len(names) != len(run.targets):
            raise RunError(f"the run predicts {', '.join(run.target_names)}; --targets names {len(names)} columns")
        table = read_data(replace(source, targets=names), run.construct)
        table = replace(table, target_names=run.target_names)
        part = ", ".join(source.data)
        rows = np.arange(len(table))
        if source.fold or source.public:
            rows = split(replace(source, valid_folds=()), table).test
            part += f", fold {', '.join(source.test_folds)}"
    folder = Path(path).parent if Path(path).suffix == ".safetensors" else Path(path)
    known = was_seen(folder, table, run.construct)[rows]
    if known.any() and seen != "keep":
        if seen == "refuse":
            first = "; ".join(table.where(int(r)) for r in rows[known][:3])
            raise RunError(
                f"the run has trained or validated on {int(known.sum())} of these {len(rows)} sequences ({first} ...): "
                "--seen drop leaves them out, --seen keep scores them all the same"
            )
        rows = rows[~known]
        if not len(rows):
            raise RunError("the run has trained or validated on all of these sequences: nothing is left to score")
    made = evaluate(run, table, rows, part=part, strands=strands, bootstrap=bootstrap, seed=seed)
    return made, table


def write_evaluation(out: str | Path, made: Evaluation, table: Table) -> None:
    """scores.json, predictions.tsv and scatter.png in a folder, made if it is not there."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}") from None
    content = {"part": made.part, "scores": [s.to_dict() for s in made.scores]}
    write_whole(folder / "scores.json", (json.dumps(content, indent=1) + "\n").encode())
    report(made, table, folder)
