"""The report of a study: one page that holds everything, and the same as PNG, CSV and Parquet."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from ...errors import AgblocksError
from ...training.scores.metrics import METRICS
from ...training.write import write_whole
from ..results import read
from ..table import table
from .comparisons import compare, comparisons_frame
from .curves import curves
from .groups import grouped
from .kept import kept
from .look import looks
from .means import means
from .page import Shown, page
from .pareto import COSTS, trades
from .pictures import picture_curves, picture_similarity, picture_trades
from .shared import parts

__all__ = ["write"]


def write(out: str | Path, to: str | Path | None = None) -> Path:
    """Read a study's folder, finished or not, and write its report. Gives the path of the page.

    to: the folder of the report; `report` in the study's own folder without it. It gets index.html (which needs no
    other file and fetches nothing), cells.csv, cells.parquet, comparisons.csv and a PNG for each figure.
    Errors: `AgblocksError` where the folder is not a study's, or cannot be written to.
    Use when: a study has run, or is running: what is missing is said.
    """
    results = read(out)
    folder = Path(to) if to is not None else results.folder / "report"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AgblocksError(f"{folder}: cannot be made: {error.strerror}") from None
    groups = grouped(results)
    held = kept(groups)
    compared, problems = compare(groups, held)
    averages = means(groups, held)
    results = replace(results, problems=(*results.problems, *held.problems, *problems))
    shown = Shown(results, groups, table(results), averages, compared, parts(groups, held, averages))
    pictures = _pictures(folder, shown)
    for name, frame in (("cells", shown.flat), ("comparisons", comparisons_frame(groups, shown.compared))):
        write_whole(folder / f"{name}.csv", frame.write_csv().encode())
    parquet = io.BytesIO()
    shown.flat.write_parquet(parquet)
    write_whole(folder / "cells.parquet", parquet.getvalue())
    write_whole(folder / "index.html", page(shown, pictures).encode())
    return folder / "index.html"


def _pictures(folder: Path, shown: Shown) -> list[str]:
    known = list(looks(shown.grouped).values())
    made: list[str] = []
    for metric in METRICS:
        drawn = curves(shown.grouped, shown.means, metric)
        made += picture_curves(folder, drawn, known) if drawn.panels else []
    for cost in COSTS:
        spots = trades(shown.grouped, shown.means, cost)
        made += picture_trades(folder, cost, spots, known) if spots else []
    for name, matrix in shown.results.similarity.items():
        made += picture_similarity(folder, name, matrix)
    return made
