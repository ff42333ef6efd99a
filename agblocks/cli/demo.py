"""`agblocks demo`: a first model on real measurements, beside a baseline, in minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._training import scores_table


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the run, its plots and the comparison")] = Path(
        "demo"
    ),
    data: Annotated[str, typer.Option(help="'auto': the lentiMPRA sample if it can be had; or 'simulated'")] = "auto",
    resume: Annotated[bool, typer.Option("--resume", help="go on after an interruption")] = False,
) -> None:
    """Train mpra_small on the lentiMPRA sample (or a simulated one), compare with k-mer ridge on the held-out fold."""
    from ..training.demo import demo as run

    made = run(out, data, resume=resume, say=lambda text: print(text, flush=True))
    title = f"{made.title}: fold {made.test_fold} held out"
    scores_table(title, [(label, score) for label, scores in made.scores.items() for score in scores])
    print(
        f"{made.seconds:.0f} s; written: {out}/ (model.safetensors, scatter.png, curves.png, comparison.png, demo.json)"
    )
