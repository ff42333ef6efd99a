"""`agblocks tracks`: fit and score models on tracks along a genome, and predict whole chromosomes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..training.settings import Settings
from ._common import Overrides, Recipe, adapters_of
from ._tracks import tracks_table, with_genome
from ._tracks_predict import predict
from ._training import (
    Adapters,
    Inputs,
    TransferFile,
    Weights,
    WeightsInto,
    absolute,
    inputs_of,
    targets_of,
    transfer_of,
    with_settings,
)

tracks = typer.Typer(
    help="Tracks along a genome: fit a recipe to FASTA and bigWigs, score a run, predict chromosomes.",
    rich_markup_mode=None,
)


def fit(
    recipe: Recipe,
    source: Any,
    settings: Settings,
    out: Annotated[Path, typer.Option("--out", "-o", help="the run folder", show_default=False)],
    overrides: Overrides = None,
    heads: Annotated[
        str, typer.Option(help="which head learns which tracks, like coarse=a+b,fine=a; default: each all")
    ] = "",
    input: Inputs = None,
    transfer: TransferFile = None,
    weights: Weights = "",
    weights_into: WeightsInto = None,
    adapter: Adapters = None,
    kmer: Annotated[int, typer.Option(help="k of the ridge on k-mers around each bin, scored beside; 0 for none")] = 4,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a run that was interrupted")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the run in the folder")] = False,
) -> None:
    """Train a recipe's model on windows of a genome; the best epoch is kept and scored on held-out windows."""
    from ..errors import AgblocksError
    from ..training.tracks import TrackEvaluation, fit_tracks

    if source is None or not (source.fasta and source.tracks):
        raise AgblocksError(
            "wanted a genome and a table of tracks: --fasta genome.fa --tracks tracks.tsv --window 4096"
        )
    specs = adapters_of(adapter, "--adapter")
    _, chosen = targets_of(heads)
    if heads and chosen is None:
        raise AgblocksError(f"--heads {heads}: wanted head=track+track for each head, apart by commas")
    run = fit_tracks(
        recipe, source, out, settings, overrides=overrides or (), heads=chosen, inputs=inputs_of(input),
        transfer=transfer_of(transfer, recipe, overrides), weights=absolute(weights) or None,
        weights_into=weights_into or None, adapters=specs, kmer=kmer, resume=resume, overwrite=overwrite,
        progress=True, told=print,
    )  # fmt: skip
    titles = {"test": "held out for test", "ridge": f"ridge on {kmer}-mers, the same windows"}
    for part, title in titles.items():
        if part in run.metrics:
            made = TrackEvaluation.from_dict(part, run.metrics[part])
            tracks_table(f"{out}: {made.windows} windows, {title}", made)


def evaluate(
    run: Annotated[Path, typer.Argument(help="a run folder or its model.safetensors", show_default=False)],
    source: Any,
    part: Annotated[str, typer.Option(help="windows held out as test | valid, or those of train")] = "test",
    strands: Annotated[str, typer.Option(help="one | both; default: as the run was set up")] = "",
    bootstrap: Annotated[int, typer.Option(help="resamples of blocks of 10,000 bases for the intervals")] = 1000,
    seed: Annotated[int, typer.Option(help="of the resamples")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="file for the scores, JSON")] = None,
) -> None:
    """Score a run on the windows that it held out; or, with --fasta, --tracks and so on, on those of another source."""
    import json

    from ..errors import AgblocksError, near
    from ..training.tracks import evaluate_run
    from ..training.write import write_whole

    if strands not in ("", "one", "both"):
        raise AgblocksError(f"--strands {strands}: {near(strands, ('one', 'both'))}")
    if source is not None and not (source.fasta and source.tracks):
        raise AgblocksError("another source is said as a whole: --fasta, --tracks, --window, and what it holds out")
    both: Any = strands or None
    _, made = evaluate_run(run, source, part=part, strands=both, bootstrap=bootstrap, seed=seed)
    tracks_table(f"{run}: {made.windows} windows, {made.part}", made)
    if out is not None:
        write_whole(out, (json.dumps({made.part: made.to_dict()}, indent=1) + "\n").encode())


tracks.command("fit")(with_settings(with_genome(fit)))
tracks.command("evaluate")(with_genome(evaluate))
tracks.command("predict")(predict)
