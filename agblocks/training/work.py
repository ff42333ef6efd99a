"""A training from its first weights to its run folder, whatever it is trained on."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..data import Construct
from ..graph.model import GraphModel
from ..graph.resolve import Resolved
from .adapting import FOLDER, adapted, record, save_alone
from .errors import ResumeError, RunError
from .parallel.launch import train
from .parallel.processes import once, rank, together
from .run import FILE, AnyWiring, Model, Run, load_run, save_run
from .settings import ANYWHERE, CAME_LATER, Settings
from .tuning.initial import Initial
from .tuning.plan import plan
from .tuning.transfer import Transfer
from .write import alone, write_whole

if TYPE_CHECKING:
    from .keeper import Keeper

STARTED = "started.json"
MEMBERS = "members"
UNTRAINED = "adapters beside weights that are as drawn: --weights names what they should adapt"


class Work(ABC):
    """What a model is trained on: its batches, and how it is scored."""

    wiring: AnyWiring
    construct: Construct

    @abstractmethod
    def start(self) -> dict[str, Any]:
        """What a resumed run must agree with, beside recipe, settings, wiring and weights; plain values."""

    @abstractmethod
    def train(self, model: Model, settings: Settings, checkpoint: Path, logs: Path, progress: bool) -> Keeper:
        """Train one member in place, as `train.run_training` does."""

    @abstractmethod
    def score(self, run: Run, folder: Path) -> dict[str, Any]:
        """Scores by part, "valid" and "test", as plain values; the files that show them are written to the folder."""

    @abstractmethod
    def data(self) -> dict[str, Any]:
        """Where the data came from and how much there was of each part, to store with the run."""

    def ready(self, model: GraphModel) -> None:  # noqa: B027 - most works have nothing to say here
        """Put into a model that was just made what it has to know of the data (means of tracks)."""

    def note(self, folder: Path) -> None:  # noqa: B027
        """Write what should be there from the start: which row is in which part."""


@together
def carry_out(
    work: Work,
    resolved: Resolved,
    folder: Path,
    settings: Settings,
    initial: Initial,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = False,
    told: Callable[[str], None] | None = None,
) -> Run:
    """Train every member, score, and write the run folder; see `fit` for what is in it and what can go wrong."""

    def made(own: Settings) -> Model:
        model = initial.model(own)
        work.ready(model)
        return adapted(model, own)

    first = made(settings)
    what = plan(first, settings, initial.origins if initial.loads else None)
    start = {
        "recipe": resolved.digest,
        "settings": settings.to_dict(),
        "construct": work.construct.to_dict(),
        "wiring": work.wiring.to_dict(),
        **work.start(),
        "weights": initial.sha256,
        "adapters": resolved.adapters_digest if resolved.adapters else None,
    }
    if resume and not overwrite and once(lambda: (folder / FILE).exists() and begin(folder, start, True, False)):
        return _finished(folder)
    with ExitStack() as stack:
        once(lambda: stack.enter_context(alone(folder, "training")))
        if once(lambda: begin(folder, start, resume, overwrite)):
            return _finished(folder)
        if told is not None and rank() == 0:
            for said in (*initial.reports, *_remarks(initial, settings), *([] if what.is_plain else [what])):
                told(str(said))
        once(lambda: work.note(folder))

        kept = []
        for i in range(settings.ensemble):
            own = replace(settings, seed=settings.seed + i)
            model = first if i == 0 else made(own)
            kept.append((model, _member(work, model, own, _checkpoint(folder, i), progress)))
        models = tuple(model for model, _ in kept)
        metrics: dict[str, Any] = {"members": [history for _, history in kept]}
        data = {
            **work.data(),
            "parameters": {"all": what.parameters, "trained": what.trained},
            **({"weights": initial.record} if initial.record else {}),
            **Transfer.of(settings, initial.loads, resolved.adapters).record(what),
            **record(resolved, models),
        }
        run = Run(models, work.construct, work.wiring, settings, metrics, data)
        once(lambda: _finish(work, run, metrics, folder))
        return load_run(folder)


def _finished(folder: Path) -> Run:
    try:
        return load_run(folder)
    except RunError as error:
        raise ResumeError(str(error)) from None


def _finish(work: Work, run: Run, metrics: dict[str, Any], folder: Path) -> None:
    """Score, and write what a finished run's folder holds; `metrics` are the run's own."""
    metrics |= work.score(run, folder)
    plot_members(folder, len(run.models))
    write_whole(folder / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())
    save_alone(folder, run.models)
    save_run(folder, run)
    for i in range(len(run.models)):
        _checkpoint(folder, i).unlink(missing_ok=True)


def _remarks(initial: Initial, settings: Settings) -> list[str]:
    """What is said that comes to nothing without weights."""
    if initial.loads:
        return []
    found = [UNTRAINED] if initial.resolved.adapters else []
    return [*found, f"reinit {settings.reinit}: no weights are loaded, so all is drawn"] if settings.reinit else found


def begin(folder: Path, start: Mapping[str, Any], resume: bool, overwrite: bool) -> bool:
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
            raise ResumeError(f"{started}: cannot be read ({error}); --overwrite starts anew") from None
        if isinstance(found, dict) and isinstance(found.get("settings"), dict):
            found["settings"] = {**CAME_LATER, **found["settings"], **{k: wanted["settings"][k] for k in ANYWHERE}}
        if differences := list(_differences(found, wanted)):
            raise ResumeError(
                f"{folder}: resuming needs the same recipe, data and settings as at the start:\n  "
                + "\n  ".join(differences)
            )
        return finished.exists()
    if finished.exists():
        raise ResumeError(f"{folder}: a finished run without {STARTED}: made elsewhere; --overwrite replaces it")
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


def _member(work: Work, model: Model, settings: Settings, checkpoint: Path, progress: bool) -> dict[str, Any]:
    """Train one member, or take it from its checkpoint if it is done: the model is on the CPU, best weights in it."""
    keeper = train(work, model, settings, checkpoint, checkpoint.parents[1] / "logs", progress and rank() == 0)
    model.cpu()
    model.load_state_dict({**model.state_dict(), **keeper.best}, strict=True)
    row = keeper.history[keeper.best_epoch - 1]
    kept = {name: value if np.isfinite(value) else None for name, value in row.items()}
    model.eval()
    begun = {"stages": [stage.begun for stage in keeper.stages]} if settings.tuning.plateaus else {}
    return {"seed": settings.seed, "epochs": len(keeper.history), "kept": kept, **begun}


def _checkpoint(folder: Path, member: int) -> Path:
    return folder / MEMBERS / f"{member}.ckpt"


def plot_members(folder: Path, members: int) -> None:
    """curves.png from the members' CSV files."""
    from .scores.plots import curves

    curves(folder / "curves.png", [folder / MEMBERS / f"{i}.csv" for i in range(members)])
