"""`agblocks fit`: train a recipe on measured sequences."""

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
    absolute,
    inputs_of,
    scores_table,
    targets_of,
    transfer_of,
    with_settings,
    with_source,
)


@with_settings
@with_source()
def fit(
    recipe: Recipe,
    source: Source,
    settings: Settings,
    out: Annotated[Path, typer.Option("--out", "-o", help="the run folder", show_default=False)],
    overrides: Overrides = None,
    targets: Targets = "",
    construct: Construct = "none",
    input: Inputs = None,
    transfer: TransferFile = None,
    weights: Weights = "",
    weights_into: WeightsInto = None,
    adapter: Adapters = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with a run that was interrupted")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace the run in the folder")] = False,
) -> None:
    """Train a recipe's model on measured sequences; the best epoch is kept and scored on the test fold."""
    from dataclasses import replace

    from ..training import fit as train
    from ..training import read_data
    from ..training.parallel.processes import is_first
    from ..training.sources import read_construct, split

    specs = adapters_of(adapter, "--adapter")
    given = transfer_of(transfer, recipe, overrides)
    names, heads = targets_of(targets)
    source = replace(source, targets=names)
    around = read_construct(construct)
    table = read_data(source, around)
    first = is_first(settings)  # of several processes that a cluster started
    if table.skipped and first:
        out.mkdir(parents=True, exist_ok=True)
        table.write_skipped(out / "skipped.tsv")
        print(f"{len(table.skipped)} bad rows left out, listed in {out}/skipped.tsv")
    stored = source  # so that `agblocks evaluate` finds the rows again, from any folder
    if not source.public:
        stored = replace(source, data=tuple(str(Path(file).resolve()) for file in source.data))
    run = train(
        recipe, table, split(source, table), out, settings, overrides=overrides or (), construct=around, heads=heads,
        inputs=inputs_of(input), transfer=given, weights=absolute(weights) or None,
        weights_into=weights_into or None, adapters=specs, source=stored.to_dict(), id_suffix=source.id_suffix,
        resume=resume, overwrite=overwrite, progress=True, told=print,
    )  # fmt: skip
    if first:
        print_scores(run.metrics, f"{out}: fold {', '.join(source.test_folds)} held out")


def print_scores(metrics: object, title: str) -> None:
    """The stored scores of a run's validation and test rows."""
    from ..training.scores.metrics import Score

    assert isinstance(metrics, dict)
    rows = [(part, Score.from_dict(s)) for part in ("valid", "test") for s in metrics.get(part, [])]
    if rows:
        scores_table(title, rows)
