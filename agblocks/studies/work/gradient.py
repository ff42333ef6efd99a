"""Fits by gradient: a probe's head, a fine-tuning, a model trained from scratch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from ...training import Evaluation, Settings, evaluate, fit
from ...training.errors import ResumeError
from ...training.run import Run
from ..errors import WorkError
from ..features.training import OnFeatures
from ..planning.cell import Cell
from ..planning.rows import parts, read_rows
from ..store import RUN, Predictions, Store
from .outcome import Done
from .perform import Ended


def do(cells: Sequence[Cell], store: Store, ended: Ended) -> None:
    """Each cell's training, from its last checkpoint if it was begun before."""
    for cell in cells:
        try:
            ended(cell, _trained(cell, store))
        except Exception as error:
            ended(cell, error)


def _trained(cell: Cell, store: Store) -> Done:
    begun = time.monotonic()
    document, given = cell.document, cell.given
    rows = read_rows(given["data"])
    if rows.sha256 != document["data"]:
        raise WorkError("the rows have changed since the study was planned; run it again")
    splits = parts(rows, document["test"], document["valid"], document["rows"], document.get("drawn", 0))
    settings = Settings.from_dict(given["settings"])
    folder = store.folder(cell.id) / RUN
    said: list[str] = []
    scored: dict[str, Evaluation] = {}
    work = partial(OnFeatures, store=store.features, told=said.append, evaluations=scored)

    def run(resume: bool) -> Run:
        return fit(
            given["recipe"], rows.table, splits, folder, settings, construct=rows.construct,
            inputs=document.get("inputs"), source=given["data"], id_suffix=rows.id_suffix,
            resume=resume, overwrite=not resume, work=work, **arguments(cell, store),
        )  # fmt: skip

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        made = run(True)
    except ResumeError:  # begun by another version, or damaged
        made = run(False)
    for part, at in splits.parts().items():
        if part != "train" and part not in scored:  # a run that was finished before
            scored[part] = evaluate(made, rows.table, at, part=part)
    test = scored["test"]
    history = made.metrics["members"]
    kept = [member["kept"]["epoch"] for member in history]
    chosen: dict[str, Any] = {"epoch": kept, "epochs": [member["epochs"] for member in history]}
    if said:
        chosen["features"] = said[-1]
    ids = [rows.table.ids[i] for i in splits.test.tolist()]
    return Done(
        {part: list(one.scores) for part, one in scored.items()},
        made.data["rows"],
        Predictions(ids, test.names, test.observed, test.predicted), time.monotonic() - begun, chosen,
        made.data.get("parameters", {}), made.data.get("weights", {}).get("sha256"),
    )  # fmt: skip


def arguments(cell: Cell, store: Store) -> dict[str, Any]:
    """The `transfer` argument of `fit`: where a cell starts, and what of it trains."""
    said = dict(cell.given["transfer"])
    if loads := sources(cell, store):
        said["weights"] = loads
    return {"transfer": said}


def sources(cell: Cell, store: Store) -> list[dict[str, Any]]:
    """Where a cell's weights are found now. Errors: `WorkError` where another cell's are gone."""
    return [
        {"from": str(store.weights(source["cell"]) if "cell" in source else source["path"]), "into": source["into"]}
        for source in cell.given["weights"]
    ]
