"""Fit a recipe to measured sequences, into a run folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data import Construct, Splits, Table, check_leaks, inserts
from ..graph.resolve import Resolved, resolve
from .adapting import FOLDER, Specs, adapted, record, save_alone, tuned, with_adapters
from .errors import RunError
from .evaluate import evaluate, report
from .groups import plan
from .initial import Initial
from .run import FILE, Model, Run, load_run, save_run
from .settings import CAME_LATER, Settings
from .sources import stripping
from .wiring import Wiring, check_fits, wire
from .write import insert_sum, write_whole

STARTED = "started.json"
MEMBERS = "members"
UNTRAINED = "adapters beside weights that are as drawn: --weights names what they should adapt"


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
    weights: str | Path | Mapping[str, Any] | None = None,
    weights_into: str | Sequence[str] | None = None,
    adapters: Specs | None = None,
    source: Mapping[str, Any] | None = None,
    id_suffix: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    told: Callable[[str], None] | None = None,
) -> Run:
    """Train a recipe's model on the training rows, keep the best epoch by the validation rows, score the test rows.

    recipe, overrides: as `agblocks.build` takes them. table, splits: rows of the three parts; they must not leak
        (`data.check_leaks`, with `id_suffix`). construct: from a row to the model's input.
    heads, inputs: as `wire` takes them.
    weights, weights_into: where training starts, as `agblocks.load_weights` takes its source and `into`. What they
        lack, a new head say, starts as it is drawn. What was loaded is stored with the run, in `data["weights"]`.
    adapters: specs, as `agblocks.adapt` takes them, that train beside the heads, everything else frozen (or what
        `settings.tune` says, but not full); by default the recipe's own; `[]` for none.
    source: where the rows came from, to store with the run.
    told: called before training with what was loaded, and with a table of what trains if that is not simply all.
    out: the run folder: model.safetensors (see `load_run`), metrics.json, predictions.tsv of the test rows,
        scatter.png, curves.png, members/ (a CSV of all epochs each), logs/ for TensorBoard, rows.tsv (each row's part);
        and adapters/, a file for each member with its adapters and what trained beside them alone (`load_adapter`).
    resume: go on after an interruption; the same settings, recipe and data give the same weights, bit for bit, as a run
        that was never interrupted (on the same machine and number of threads). A finished run is returned as it is.

    Errors: `RunError` for a folder that holds a run (unless `resume` or `overwrite`), a resume with other settings,
    heads or inputs that do not fit; `DataError` for leaks and sequences that don't fit; `RecipeError`.
    Use when: from Python; `agblocks fit` reads files.
    """
    settings = settings or Settings()
    construct = construct or Construct()
    resolved = recipe if isinstance(recipe, Resolved) and not overrides else resolve(
        recipe.recipe if isinstance(recipe, Resolved) else recipe, *overrides
    )  # fmt: skip
    resolved = with_adapters(resolved, adapters)
    settings = tuned(settings, resolved)
    folder = Path(out)
    if not len(splits.train):
        raise RunError("there are no training rows")
    used = np.concatenate([splits.train, splits.valid, splits.test])
    wiring = wire(resolved, table.target_names, heads, inputs)
    wiring = wiring.scaled(table.targets[splits.train]) if settings.standardise else wiring
    check_leaks(table, splits.parts(), construct=stripping(construct), id_suffix=id_suffix)
    check_fits(resolved, wiring, table, used, construct)
    initial = Initial(resolved, weights, weights_into)
    first = adapted(initial.model(settings.seed), settings)
    what = plan(first, settings)
    start = {
        "recipe": resolved.digest,
        "settings": settings.to_dict(),
        "construct": construct.to_dict(),
        "wiring": wiring.to_dict(),
        "rows": _rows_sum(table, splits),
        "weights": initial.sha256,
        "adapters": resolved.adapters_digest if resolved.adapters else None,
    }
    if _begin(folder, start, resume, overwrite):
        return load_run(folder)
    if told is not None:
        drawn = None if weights is not None or not resolved.adapters else UNTRAINED
        for said in (initial.report, drawn, None if what.is_plain else what):
            if said is not None:
                told(str(said))
    _write_rows(folder / "rows.tsv", table, splits, construct)

    kept = []
    for i in range(settings.ensemble):
        own = replace(settings, seed=settings.seed + i)
        model = first if i == 0 else adapted(initial.model(own.seed), own)
        kept.append((model, _member(model, table, splits, construct, wiring, own, _checkpoint(folder, i), progress)))
    models = tuple(model for model, _ in kept)
    metrics: dict[str, Any] = {"members": [history for _, history in kept]}
    data = {
        "source": dict(source or {}),
        "rows": {part: len(rows) for part, rows in splits.parts().items()},
        "parameters": {"all": what.parameters, "trained": what.trained},
        **({"weights": initial.record} if initial.record else {}),
        **record(resolved, models),
    }
    run = Run(models, construct, wiring, settings, metrics, data)
    for part in ("valid", "test"):
        rows = splits.parts()[part]
        if len(rows):
            made = evaluate(run, table, rows, part=part)
            metrics[part] = [score.to_dict() for score in made.scores]
            if part == "test":
                report(made, table, folder)
    plot_members(folder, settings.ensemble)
    write_whole(folder / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    save_alone(folder, models)
    save_run(folder, run)
    for i in range(settings.ensemble):
        _checkpoint(folder, i).unlink(missing_ok=True)
    return load_run(folder)


def _begin(folder: Path, start: Mapping[str, Any], resume: bool, overwrite: bool) -> bool:
    """Ready the folder; True if the run is finished already and was to be resumed."""
    started, finished = folder / STARTED, folder / FILE
    if overwrite:
        _clear(folder)
    if (started.exists() or finished.exists()) and not resume:
        state = "a finished run" if finished.exists() else "a run that was started and not finished"
        hint = "" if finished.exists() else "--resume to go on with it, "
        raise RunError(f"{folder} holds {state}: {hint}--overwrite to replace it, or another folder")
    # What was written is what JSON gives back: tuples are lists there.
    wanted = json.loads(json.dumps(start))
    if started.exists():
        try:
            found = json.loads(started.read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{started}: cannot be read ({error}); --overwrite starts anew") from None
        if isinstance(found, dict) and isinstance(found.get("settings"), dict):
            found["settings"] = {**CAME_LATER, **found["settings"]}
        if differences := list(_differences(found, wanted)):
            raise RunError(
                f"{folder}: resuming needs the same recipe, data and settings as at the start:\n  "
                + "\n  ".join(differences)
            )
        return finished.exists()
    if finished.exists():
        raise RunError(f"{folder}: a finished run without {STARTED}: made elsewhere; --overwrite replaces it")
    try:
        (folder / MEMBERS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder}: cannot be made: {error.strerror}") from None
    write_whole(started, (json.dumps(wanted, indent=1) + "\n").encode())
    return False


def _clear(folder: Path) -> None:
    """Take away what a run writes, and nothing else."""
    for name in (FILE, STARTED, "metrics.json", "predictions.tsv", "scatter.png", "curves.png", "rows.tsv"):
        (folder / name).unlink(missing_ok=True)
    for name in (MEMBERS, FOLDER, "logs"):
        shutil.rmtree(folder / name, ignore_errors=True)


def _differences(found: Any, wanted: Any, path: str = "") -> Iterable[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for key in dict.fromkeys((*found, *wanted)):
            yield from _differences(found.get(key), wanted.get(key), f"{path}.{key}" if path else key)
    elif found != wanted:
        yield f"{path} was {str(found)[:80]}, is {str(wanted)[:80]}"


def _member(
    model: Model,
    table: Table,
    splits: Splits,
    construct: Construct,
    wiring: Wiring,
    settings: Settings,
    checkpoint: Path,
    progress: bool,
) -> dict[str, Any]:
    """Train one member, or take it from its checkpoint if it is done: the model is on the CPU, best weights in it."""
    from .train import train

    keeper = train(
        model, table, splits, construct, wiring, settings, checkpoint, checkpoint.parents[1] / "logs", progress
    )
    model.cpu()
    model.load_state_dict({**model.state_dict(), **keeper.best}, strict=True)
    row = keeper.history[keeper.best_epoch - 1]
    kept = {name: value if np.isfinite(value) else None for name, value in row.items()}
    model.eval()
    return {"seed": settings.seed, "epochs": len(keeper.history), "kept": kept}


def _checkpoint(folder: Path, member: int) -> Path:
    return folder / MEMBERS / f"{member}.ckpt"


def plot_members(folder: Path, members: int) -> None:
    """curves.png from the members' CSV files."""
    from .plots import curves

    curves(folder / "curves.png", [folder / MEMBERS / f"{i}.csv" for i in range(members)])


def _rows_sum(table: Table, splits: Splits) -> str:
    """A checksum of every row that is used: sequence, targets and part."""
    digest = hashlib.sha256()
    for part, rows in splits.parts().items():
        digest.update(part.encode())
        digest.update("\n".join(table.sequences[i] for i in rows.tolist()).encode())
        digest.update(table.targets[rows].astype("<f4").tobytes())
    return digest.hexdigest()


def _write_rows(path: Path, table: Table, splits: Splits, construct: Construct) -> None:
    """Which row was in which part, with a checksum of its insert that both strands share."""
    texts = inserts(table, construct)
    lines = ["part\tid\tinsert"]
    for part, rows in splits.parts().items():
        lines += [f"{part}\t{' '.join(table.ids[i].split())}\t{insert_sum(texts[i])}" for i in rows.tolist()]
    write_whole(path, ("\n".join(lines) + "\n").encode())
