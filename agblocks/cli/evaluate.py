"""`agblocks evaluate`: score a run on held-out rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..training.sources import Source
from ._training import scores_table, with_source


@with_source("valid_fold")
def evaluate(
    run: Annotated[Path, typer.Argument(help="a run folder or its model.safetensors", show_default=False)],
    source: Source,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder for scores.json, predictions.tsv, scatter.png")
    ] = None,
    targets: Annotated[
        str, typer.Option(help="columns with the run's targets, in its order; default: their names")
    ] = "",
    strands: Annotated[str, typer.Option(help="one | both; default: as the run was set up")] = "",
    seen: Annotated[str, typer.Option(help="rows the run has trained on: refuse | drop | keep")] = "refuse",
    bootstrap: Annotated[int, typer.Option(help="resamples for the intervals")] = 1000,
    seed: Annotated[int, typer.Option(help="of the resamples")] = 0,
) -> None:
    """Score a run: on its own test fold, or on other rows (--data); rows that it trained on are refused."""
    from ..training.scores.report import evaluate_source

    made, table = evaluate_source(
        run, source, targets=targets, strands=strands or None, seen=seen, bootstrap=bootstrap, seed=seed
    )
    scores_table(f"{run}: {made.part}", [("", s) for s in made.scores])
    if out is not None:
        from ..training.scores.report import write_evaluation

        write_evaluation(out, made, table)
        print(f"written: {out}")
