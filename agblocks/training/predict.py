"""Predictions of a run for sequences, and the table they are written to."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..data import Augment, Construct, Loader, Table
from .errors import RunError
from .run import Run
from .settings import Settings, Strands
from .wiring import FLAG, Wiring, check_fits
from .write import write_whole


def predict(
    run: Run,
    table: Table,
    rows: ArrayLike | None = None,
    *,
    strands: Strands | None = None,
    construct: Construct | None = None,
    device: str | None = None,
) -> NDArray[np.float64]:
    """What the run predicts for these rows (default: all), in their order and in the measurements' units.

    Shapes: n rows of any lengths that the model takes -> (n, targets). Members of an ensemble are averaged.
    strands: "both" averages the two strands; default: as the run was set up. The turned strand is what augmentation
        would show (the whole construct, or the insert alone where `shift_scope` says so).
    device: "cpu", "cuda", ...; default: a GPU where there is one, unless the run was set to the CPU.
    construct: instead of the run's, e.g. `run.construct.bare()` for sequences without the table's adapters.
    Errors: `DataError` listing sequences that do not fit the construct or the model.
    Use when: from Python; `agblocks predict` reads and writes files.
    """
    run.check_on_sequences()
    index = np.arange(len(table)) if rows is None else np.asarray(rows, np.int64)
    construct = run.construct if construct is None else construct
    both = (run.settings.strands if strands is None else strands) == "both"
    if device is None:
        device = "cuda" if run.settings.device != "cpu" and torch.cuda.is_available() else "cpu"
    out = np.zeros((len(table), len(run.targets)))
    for turned in (False, True) if both else (False,):
        batches = loader(table, index, construct, run.wiring, run.settings, turned=turned, measured=False)
        if not turned:
            check_fits(run.resolved, run.wiring, table, index, construct)
        for model in run.models:
            model.to(device).eval()
            with torch.inference_mode():
                for batch in batches:
                    inputs = {name: value.to(device) for name, value in run.wiring.inputs(batch["inputs"]).items()}
                    made = model(**inputs, outputs=list(run.wiring.heads))
                    out[batch["index"].numpy()] += run.wiring.outputs(made)
    return out[index] / (len(run.models) * (2 if both else 1))


def loader(
    table: Table,
    rows: ArrayLike,
    construct: Construct,
    wiring: Wiring,
    settings: Settings,
    *,
    turned: bool = False,
    measured: bool = True,
) -> Loader:
    """Batches of these rows in order, nothing augmented; or all of them turned to the other strand."""
    return Loader(
        table, rows, construct=construct, targets=wiring.heads if measured else {}, ambiguous=settings.ambiguous,
        batch_size=max(settings.batch_size, 64), reverse_input=FLAG if wiring.reverse is not None else None,
        augment=Augment(float(turned), scope=settings.shift_scope),
    )  # fmt: skip


def write_predictions(
    path: str | Path,
    table: Table,
    rows: ArrayLike,
    predicted: NDArray[np.float64],
    names: tuple[str, ...],
    observed: NDArray[np.float32] | None = None,
) -> None:
    """Write ids, sequences and predictions (and measurements where given), one row a sequence, never half a file.

    The suffix says the format: .tsv, .csv or .parquet.
    Errors: `RunError` for another suffix, or a folder that does not exist or cannot be written.
    """
    file = Path(path)
    kind = file.suffix.lower()
    if kind not in (".tsv", ".csv", ".parquet", ".pq"):
        raise RunError(f"{file}: predictions are written as .tsv, .csv or .parquet, found suffix {kind!r}")
    index = np.asarray(rows, np.int64).tolist()
    columns: dict[str, list] = {
        "id": [table.ids[i] for i in index],
        "sequence": [table.sequences[i] for i in index],
        **{f"predicted_{name}": predicted[:, i].tolist() for i, name in enumerate(names)},
    }
    if observed is not None:
        columns |= {name: observed[:, i].astype(float).tolist() for i, name in enumerate(names)}
    if kind in (".parquet", ".pq"):
        import polars as pl

        held = io.BytesIO()
        pl.DataFrame(columns).write_parquet(held)
        write_whole(file, held.getvalue())
        return
    text = io.StringIO()
    writer = csv.writer(text, delimiter="," if kind == ".csv" else "\t", lineterminator="\n")
    writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow([_cell(value) for value in row])
    write_whole(file, text.getvalue().encode())


def _cell(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return "" if np.isnan(value) else f"{value:.6g}"
