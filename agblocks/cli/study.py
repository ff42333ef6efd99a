"""`agblocks study`: run, show, list and report studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

study = typer.Typer(
    name="study", help="Studies: what of a model transfers, and what it costs.", no_args_is_help=True,
    rich_markup_mode=None,
)  # fmt: skip

File = Annotated[str, typer.Argument(help="a study file, or a shipped study's name", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="like cell.training.epochs=2, 'vary.seed=[0]'; null takes back", show_default=False),
]


@study.command("run")
def run(
    file: File,
    out: Annotated[Path, typer.Option("--out", "-o", help="the study's folder", show_default=False)],
    overrides: Overrides = None,
    engine: Annotated[str, typer.Option(help="inline | ray")] = "inline",
    address: Annotated[str, typer.Option(help="of the Ray cluster; default: a local one")] = "",
    share: Annotated[str, typer.Option(help="this process's part of the work, like 0/2")] = "",
    only: Annotated[
        list[str] | None, typer.Option(help="a cell's id, or labels like way=probe, tap='encoder.*'; several: all hold")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="do again what failed")] = False,
    costs: Annotated[bool, typer.Option("--costs/--no-costs", help="measure what each model costs, in the end")] = True,
    features: Annotated[
        Path | None, typer.Option(help="folder for features of frozen models, shared by studies; default: in --out")
    ] = None,
    features_gb: Annotated[float, typer.Option(help="most room for features, in GB; 0: any")] = 20.0,
) -> None:
    """Do what is not done of a study; stopped at any moment, the same command goes on. Exit 1 if cells failed."""
    from ..studies import load_study, plan, run_study
    from ..studies.engines import engine_named

    planned = plan(load_study(file, *overrides or ()))
    chosen = engine_named(engine, address)

    def say(text: str) -> None:
        print(text, flush=True)

    made = run_study(
        planned, out, engine=chosen, share=share, only=only or (), retry=retry, costs=costs, features=features,
        most_features=round(features_gb * 1e9) or None, say=say,
    )  # fmt: skip
    counts = f"{len(made.done)} cells finished ({made.before} before), {len(made.failed)} failed"
    print(f"{counts}; {made.seconds:.0f} s: {out}")
    if made.waits:
        print(f"{len(made.waits)} cells wait for some that failed")
    if made.failed:
        print(f"why is in {out}/cells/<cell>/failed.json; --retry tries again")
    if not made.ok:
        raise typer.Exit(1)


@study.command("show")
def show(
    file: File,
    overrides: Overrides = None,
    out: Annotated[str, typer.Option("--out", "-o", help="tell what is finished in this folder")] = "",
    cells: Annotated[bool, typer.Option("--cells", help="list every cell with its labels")] = False,
) -> None:
    """What a study comes to: its axes, cells, controls, what trains. Everything is checked, nothing is run."""
    from ..studies import load_study, plan
    from ..studies.planning.describe import described

    print(described(plan(load_study(file, *overrides or ())), out or None, cells=cells))


@study.command("list")
def list_() -> None:
    """The studies that come with the package."""
    from ..studies import load_study, shipped_studies

    for name in shipped_studies():
        print(f"{name}: {load_study(name).about}")


@study.command("report")
def report(out: Annotated[Path, typer.Argument(help="the study's folder", show_default=False)]) -> None:
    """Write the report of a study's folder: one HTML page, figures and tables."""
    from ..studies.report import write

    print(f"written: {write(out)}")
