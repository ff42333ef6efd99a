"""`agblocks crossval`: every fold held out in turn, beside ridge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..training.settings import Settings
from ..training.sources import Source
from ._common import Overrides, Recipe, adapters_of
from ._training import (
    Adapters,
    Construct,
    Inputs,
    Targets,
    TransferFile,
    Weights,
    WeightsInto,
    inputs_of,
    listed,
    targets_of,
    transfer_of,
    with_settings,
    with_source,
)


@with_settings
@with_source("valid_fold", "test_fold")
def crossval(
    recipe: Recipe,
    source: Source,
    settings: Settings,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="folder of the folds' runs and the tables", show_default=False)
    ],
    overrides: Overrides = None,
    targets: Targets = "",
    construct: Construct = "none",
    input: Inputs = None,
    preset: Annotated[
        str, typer.Option(help="settings and construct of a shipped recipe, instead of the options")
    ] = "",
    transfer: TransferFile = None,
    weights: Weights = "",
    weights_into: WeightsInto = None,
    adapter: Adapters = None,
    only: Annotated[str, typer.Option(help="these test folds only, like 0,3")] = "",
    kmer: Annotated[int, typer.Option(help="k of the ridge baseline, 0 for none")] = 6,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="train finished folds anew")] = False,
) -> None:
    """Hold out every fold in turn (the next one validates); finished folds are skipped, interrupted ones go on."""
    from dataclasses import replace

    from ..training import crossval as cross
    from ..training import read_data
    from ..training.crossval import Fold
    from ..training.presets import preset as find
    from ..training.sources import read_construct

    specs = adapters_of(adapter, "--adapter")
    if preset:
        found = find(preset)
        settings, construct = replace(found.settings, seed=settings.seed, ensemble=settings.ensemble), found.construct
    given = transfer_of(transfer, recipe, overrides)
    names, heads = targets_of(targets)
    around = read_construct(construct)
    table = read_data(replace(source, targets=names), around)

    def told(fold: Fold) -> None:
        said = ", ".join(f"{what} {s.pearson:.3f} ({s.target})" for what, ss in fold.scores.items() for s in ss)
        print(f"fold {fold.test}: test r: {said}", flush=True)

    made = cross(
        recipe, table, out, settings, overrides=overrides or (), construct=around, heads=heads,
        inputs=inputs_of(input), transfer=given, weights=weights or None, weights_into=weights_into or None,
        adapters=specs, id_suffix=source.id_suffix, only=listed(only) or None, kmer=kmer, overwrite=overwrite,
        progress=True, told=told, planned=print,
    )  # fmt: skip
    for row in made.summary():
        spread = f" (sd {row['sd']:.3f})" if row["sd"] is not None else ""
        mean, pooled = row["mean"], row["pooled"]["pearson"]
        print(f"{row['target']}, {row['method']}: mean test r {mean:.4f}{spread}, pooled {pooled:.4f}")
        if row.get("over_ridge") is not None:
            print(f"  over ridge by {row['over_ridge']:.4f}, ahead in {row['folds_won']} of {len(made.folds)} folds")
    print(f"written: {out}/crossval.tsv, crossval.json, crossval.png")
