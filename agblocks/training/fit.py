"""Fit a recipe to measured sequences, into a run folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..data import Construct, Splits, Table, check_leaks
from ..graph.resolve import Resolved, resolve
from .adapting import Specs, tuned, with_adapters
from .errors import RunError
from .lone import without_lone
from .parallel.processes import is_first
from .run import FILE, Model, Run
from .scores.evaluate import Evaluation, evaluate, report
from .scores.metrics import why_never_one
from .seen import check_seen, write_rows
from .settings import Settings
from .sources import stripping
from .tuning.initial import Initial
from .tuning.loads import Load
from .tuning.transfer import Transfer, as_transfer, said_once
from .wiring import Wiring, check_fits, wire
from .work import Work, carry_out

if TYPE_CHECKING:
    from .keeper import Keeper


def fit(
    recipe: str | Path | Mapping[str, Any] | Resolved,
    table: Table,
    splits: Splits,
    out: str | Path,
    settings: Settings | None = None,
    *,
    overrides: Sequence[str] = (),
    construct: Construct | None = None,
    heads: Mapping[str, Sequence[str]] | None = None,
    inputs: Mapping[str, int] | None = None,
    transfer: Transfer | Mapping[str, Any] | None = None,
    weights: Any = None,
    weights_into: str | Sequence[str] | None = None,
    adapters: Specs | None = None,
    source: Mapping[str, Any] | None = None,
    id_suffix: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    told: Callable[[str], None] | None = None,
    work: Callable[..., OnSequences] | None = None,
) -> Run:
    """Train a recipe's model on the training rows, keep the best epoch by the validation rows, score the test rows.

    recipe, overrides: as `agblocks.build` takes them. table, splits: rows of the three parts; they must not leak
        (`data.check_leaks`, with `id_suffix`). construct: from a row to the model's input.
    heads, inputs: as `wire` takes them.
    transfer: where training starts, what is drawn anew, frozen and let train when, at which rates, with what adapters:
        a `Transfer`, or a mapping of that form. The arguments that follow, and the settings' tune, unfreeze, reinit and
        rates, say parts of it; what is said twice is an error. It is stored with the run, in `data["transfer"]`.
    weights, weights_into: where training starts, as `agblocks.load_weights` takes its source and `into`. What they
        lack, a new head say, starts as it is drawn. What was loaded is stored with the run, in `data["weights"]`.
    adapters: specs, as `agblocks.adapt` takes them, that train beside the heads, everything else frozen (or what
        `settings.tune` says, but not full); by default the recipe's own; `[]` for none.
    source: where the rows came from, to store with the run.
    told: called before training with what was loaded, and with a table of what trains (`plan`) if that is not simply
        all of what was drawn.
    work: what trains on the rows, made of (table, splits, construct, wiring, source); by default `OnSequences`.
    out: the run folder: model.safetensors (see `load_run`), metrics.json, predictions.tsv of the test rows,
        scatter.png, curves.png, members/ (a CSV of all epochs each), logs/ for TensorBoard, rows.tsv (each row's part);
        and adapters/, a file for each member with its adapters and what trained beside them alone (`load_adapter`).
    resume: go on after an interruption; the same settings, recipe and data give the same weights, bit for bit, as a run
        that was never interrupted (on the same machine and number of threads). A finished run is returned as it is.

    Errors: `RunError` for a folder that holds a run (unless `resume` or `overwrite`), a resume with other settings,
    heads or inputs that do not fit; `DataError` for leaks, test rows that a run whose weights start here has seen, and
        sequences that don't fit; `RecipeError`.
    Use when: from Python; `agblocks fit` reads files.
    """
    settings = settings or Settings()
    construct = construct or Construct()
    resolved = recipe if isinstance(recipe, Resolved) and not overrides else resolve(
        recipe.recipe if isinstance(recipe, Resolved) else recipe, *overrides
    )  # fmt: skip
    settings, loads, adapters = said_once(transfer, settings, weights, weights_into, adapters)
    resolved = with_adapters(resolved, adapters)
    if transfer is not None:
        as_transfer(transfer).check(resolved)
    settings = tuned(settings, resolved)
    folder = Path(out)
    if not len(splits.train):
        raise RunError("there are no training rows")
    used = np.concatenate([splits.train, splits.valid, splits.test])
    wiring = wire(resolved, table.target_names, heads, inputs)
    wiring = wiring.scaled(table.targets[splits.train]) if settings.standardise else wiring
    _check_plateaus(settings, table, splits.valid, wiring)
    check_leaks(table, splits.parts(), construct=stripping(construct), id_suffix=id_suffix)
    if not (resume and (folder / FILE).exists()):
        check_seen(loads, table, splits.test, construct)
    check_fits(resolved, wiring, table, used, construct)
    splits, left_out = without_lone(resolved, wiring, table, splits, construct)
    if left_out and told is not None and is_first(settings):
        told(left_out)
    made = (work or OnSequences)(table, splits, construct, wiring, dict(source or {}))
    made.loads = loads
    return carry_out(
        made, resolved, folder, settings, Initial(resolved, loads), resume=resume, overwrite=overwrite,
        progress=progress, told=told,
    )  # fmt: skip


class OnSequences(Work):
    """Training on rows of measured sequences. `loads`: the weights that it starts from."""

    loads: Sequence[Load] = ()

    def __init__(self, table: Table, splits: Splits, construct: Construct, wiring: Wiring, source: dict[str, Any]):
        self.table, self.splits, self.construct, self.wiring, self.source = table, splits, construct, wiring, source

    def start(self) -> dict[str, Any]:
        return {"rows": _rows_sum(self.table, self.splits)}

    def note(self, folder: Path) -> None:
        write_rows(folder, self.table, self.splits, self.construct, self.loads)

    def train(self, model: Model, settings: Settings, checkpoint: Path, logs: Path, progress: bool) -> Keeper:
        from .train import train

        return train(
            model, self.table, self.splits, self.construct, self.wiring, settings, checkpoint, logs, progress
        )  # fmt: skip

    def data(self) -> dict[str, Any]:
        return {"source": self.source, "rows": {part: len(rows) for part, rows in self.splits.parts().items()}}

    def score(self, run: Run, folder: Path) -> dict[str, Any]:
        scores = {}
        for part in ("valid", "test"):
            rows = self.splits.parts()[part]
            if len(rows):
                made = self.evaluated(run, rows, part)
                scores[part] = [score.to_dict() for score in made.scores]
                if part == "test":
                    report(made, self.table, folder)
        return scores

    def evaluated(self, run: Run, rows: NDArray[np.int64], part: str) -> Evaluation:
        """Predictions and scores of one part's rows."""
        return evaluate(run, self.table, rows, part=part)


def _check_plateaus(settings: Settings, table: Table, rows: NDArray[np.int64], wiring: Wiring) -> None:
    """Whether validation rows have a score that can stop improving. Errors: `RunError`."""
    if all(step.latest is not None for step in settings.tuning.plateaus):
        return
    if not len(rows):
        raise RunError("unfreeze: a plateau of the validation score needs validation rows, and there are none")
    if settings.monitor != "pearson":
        return
    why = {}
    for name in [name for names in wiring.heads.values() for name in names]:
        values = table.targets[rows, table.target_names.index(name)]
        why[name] = why_never_one(values[np.isfinite(values)])
    if all(why.values()):
        told = "; ".join(f"{name}: {reason}" for name, reason in why.items())
        raise RunError(
            f"unfreeze: a plateau of the correlation, which the validation rows don't have ({told}); say monitor loss, "
            "or plateau:5:20=what"
        )


def _rows_sum(table: Table, splits: Splits) -> str:
    """A checksum of every row that is used: sequence, targets and part."""
    digest = hashlib.sha256()
    for part, rows in splits.parts().items():
        digest.update(part.encode())
        digest.update("\n".join(table.sequences[i] for i in rows.tolist()).encode())
        digest.update(table.targets[rows].astype("<f4").tobytes())
    return digest.hexdigest()
