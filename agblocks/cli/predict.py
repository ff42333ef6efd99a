"""`agblocks predict`: what a run says about sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def predict(
    run: Annotated[Path, typer.Argument(help="a run folder or its model.safetensors", show_default=False)],
    sequences: Annotated[Path, typer.Argument(help="FASTA, TSV, CSV (may be .gz) or Parquet", show_default=False)],
    out: Annotated[Path, typer.Option("--out", "-o", help="predictions as .tsv, .csv or .parquet", show_default=False)],
    sequence: Annotated[str, typer.Option(help="column with the sequences; default: 'sequence' or 'seq'")] = "",
    id: Annotated[str, typer.Option(help="column with ids")] = "",
    strands: Annotated[str, typer.Option(help="one | both; default: as the run was set up")] = "",
    bare: Annotated[bool, typer.Option("--bare", help="sequences are inserts, without the table's adapters")] = False,
    skip_bad_rows: Annotated[bool, typer.Option("--skip-bad-rows", help="leave bad rows out")] = False,
) -> None:
    """Predict sequences of a file; the table is written whole or not at all, one row a sequence."""
    from ..data import read_sequences
    from ..training import RunError, load_run, write_predictions
    from ..training import predict as ask

    if strands not in ("", "one", "both"):
        raise RunError(f"--strands {strands}: wanted one or both")
    column = lambda name: int(name) if name.isdigit() else name or None  # noqa: E731
    table = read_sequences(sequences, sequence=column(sequence), id=column(id), skip_bad_rows=skip_bad_rows)
    loaded = load_run(run)
    construct = loaded.construct.bare() if bare else None
    predicted = ask(loaded, table, strands=strands or None, construct=construct)  # type: ignore[arg-type]
    write_predictions(out, table, range(len(table)), predicted, loaded.target_names)
    left = f"; {len(table.skipped)} bad rows left out" if table.skipped else ""
    print(f"{len(table):,} sequences: {out}{left}")
