"""Running a study: its plan into the folder, its tasks to an engine, what came of them told."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import near
from .cost.costing import measure_costs
from .engines import Engine, Inline, Outcome, Task
from .errors import WorkError
from .file.study import Study
from .likeness import write_likenesses
from .planning.cell import Cell, digest
from .planning.plan import Plan, plan
from .store import MOST_FEATURES, Store
from .work import perform
from .work.outcome import failure

CONTROL = "control"  # beside the axes, what `only` can ask for

Say = Callable[[str], None]


@dataclass
class Summary:
    """How a run ended: cells by state, and why some failed. `ok` if nothing failed and nothing is left."""

    done: set[str] = field(default_factory=set)
    failed: dict[str, str] = field(default_factory=dict)
    waits: dict[str, tuple[str, ...]] = field(default_factory=dict)
    before: int = 0  # finished when the run began
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.failed and not self.waits


def run_study(
    study: Study | Plan,
    out: str | Path,
    *,
    engine: Engine | None = None,
    share: str = "",
    only: Sequence[str] = (),
    retry: bool = False,
    features: str | Path | None = None,
    most_features: int | None = MOST_FEATURES,
    costs: bool = True,
    say: Say = lambda _: None,
) -> Summary:
    """Do what of a study is not done in a folder; finished cells are never done again.

    share: "0/2" does about half of the tasks, "1/2" the others: for processes that start together on several machines.
        Processes on one folder never do the same work twice, with or without.
    only: ids of cells, or labels like `way=probe` (all of them must hold; `*` stands for anything), `control=full` or
        `control=none`; and what they need.
    features: folder in which features of frozen models are kept, which studies may share (default: out/features), and
        how many bytes of them, None for any number; what was not used for longest goes first.
    costs: measure the models in the end: multiply-adds, latency, memory; seconds for each that differs.
    retry: do again what failed. say: hears of each task as it ends, with an estimate of what remains.
    Errors: `StudyError` before anything is run; `WorkError` for a folder, a share or an `only` that cannot be.
        Cells that fail are in the summary.
    """
    planned = study if isinstance(study, Plan) else plan(study)
    store = Store(out)
    store.begin(planned.to_dict())
    store.keep_features(features, most_features)
    wanted = chosen(planned, only)
    if retry:
        for cell in wanted:
            store.forget_failure(cell)
    finished = {cell for cell in wanted if store.done(planned.cells[cell])}
    told = Summary(done=set(finished), before=len(finished))
    left = {name: cell for name, cell in wanted.items() if name not in finished}
    tasks = tasks_of(left, planned, out, share)
    doing = {cell for task in tasks for cell in task.ids}
    say(f"{len(wanted)} cells: {len(finished)} are finished, {len(doing)} to do in {len(tasks)} tasks")
    progress = _Progress(store, planned.cells, tasks, say)

    def ended(outcome: Outcome) -> None:
        told.done.update(outcome.done)
        told.failed.update(outcome.failed)
        for cell in outcome.failed:
            if store.failed(cell) is None:  # the engine says so: its worker died
                store.write_failed(planned.cells[cell], failure(planned.cells[cell], WorkError(outcome.failed[cell])))
        if outcome.waits:
            told.waits.update(dict.fromkeys(next(t.ids for t in tasks if t.id == outcome.task), outcome.waits))
        progress.ended(outcome)

    begun = time.monotonic()
    (engine or Inline()).run(str(out), tasks, perform, ended)
    write_likenesses(planned.similarity, store, say)
    if costs:
        measure_costs(wanted.values(), store, say)
    told.seconds = time.monotonic() - begun
    return told


def chosen(planned: Plan, only: Sequence[str]) -> dict[str, Cell]:
    """The cells that `only` names, by id or labels, with those that they need; all without it."""
    if not only:
        return dict(planned.cells)
    names = {name for name, _ in planned.axes}
    ids = [text for text in only if "=" not in text]
    labels = [text.partition("=")[::2] for text in only if "=" in text]
    for text in ids:
        if text not in planned.cells:
            raise WorkError(f"--only {text}: the study has no such cell; `agblocks study show` lists them")
    for name, _ in labels:
        if name not in names | {CONTROL}:
            raise WorkError(f"--only {name}: there is no such axis; {near(name, [*names, CONTROL])}")
    found = set(ids)
    controls = ["none", *dict.fromkeys(e.control for e in planned.entries if e.control)]
    for _, label in (pair for pair in labels if pair[0] == CONTROL and CONTROL not in names):
        if not any(fnmatchcase(control, label) for control in controls):
            raise WorkError(f"--only {CONTROL}={label}: there is no such control; {near(label, controls)}")
    if labels:
        for entry in planned.entries:
            stands = {CONTROL: entry.control or "none", **entry.labels}
            if all(name in stands and fnmatchcase(stands[name], label) for name, label in labels):
                found.add(entry.cell)
    if not found:
        raise WorkError(f"--only {' '.join(only)}: no cell is like that")
    queue = list(found)
    while queue:
        for need in planned.cells[queue.pop()].needs:
            if need not in found:
                found.add(need)
                queue.append(need)
    return {name: cell for name, cell in planned.cells.items() if name in found}


def tasks_of(cells: Mapping[str, Cell], planned: Plan, out: str | Path, share: str = "") -> list[Task]:
    """Cells as tasks: those that share a model or counts in one; of a share, its part and all that this needs."""
    groups: dict[str, list[Cell]] = {}
    for cell in cells.values():
        groups.setdefault(cell.share or cell.id, []).append(cell)
    tasks = []
    for name, members in groups.items():
        needs = tuple(dict.fromkeys(need for cell in members for need in cell.needs if need in cells))
        plain = tuple(
            replace(c, given={**c.given, "command": _command(planned.study, out, c)}).to_dict() for c in members
        )
        tasks.append(Task(name if len(name) == 16 else digest(name), plain, needs, dict(planned.study.resources)))
    if not share:
        return tasks
    index, slash, count = share.partition("/")
    if not slash or not index.isdecimal() or not count.isdecimal() or not int(index) < int(count):
        raise WorkError(f"--share {share}: wanted one share of several, 0/2 or 1/2 say")
    # By id, not by place: what is finished by now must not change whose the rest is.
    mine = [task for task in tasks if int(task.id, 16) % int(count) == int(index)]
    needed = {need for task in mine for need in task.needs}
    while more := [t for t in tasks if t not in mine and needed.intersection(t.ids)]:
        mine += more
        needed.update(need for task in more for need in task.needs)
    return [task for task in tasks if task in mine]


def _command(study: Study, out: str | Path, cell: Cell) -> str:
    return f"{study.command} -o {shlex.quote(str(out))} --only {cell.id}"


class _Progress:
    """Tells of each task as it ends, and how long the rest may take, going by the cells of its kind so far."""

    def __init__(self, store: Store, cells: Mapping[str, Cell], tasks: Sequence[Task], say: Say):
        self.say, self.cells, self.tasks = say, cells, {task.id: task for task in tasks}
        self.left = {cell for task in tasks for cell in task.ids}
        self.spent: dict[str, list[float]] = {}
        for name, cell in cells.items():
            if name not in self.left and (result := store.result(name)) is not None:
                self.spent.setdefault(cell.fit, []).append(float(result["seconds"]))
        self.total = len(self.left)

    def ended(self, outcome: Outcome) -> None:
        ids = self.tasks[outcome.task].ids
        self.left.difference_update(ids)
        if outcome.done:
            fit = self.cells[ids[0]].fit
            self.spent.setdefault(fit, []).extend([outcome.seconds / len(ids)] * len(outcome.done))
        what = f"{ids[0]}{f' and {len(ids) - 1} more' if len(ids) > 1 else ''}, {self.cells[ids[0]].fit}"
        at = f"[{self.total - len(self.left)}/{self.total}]"
        for cell, reason in outcome.failed.items():
            self.say(f"{at} {cell} failed: {reason}")
        if outcome.waits:
            self.say(f"{at} {what}: not begun, as {', '.join(outcome.waits)} is not there")
        elif outcome.done:
            self.say(f"{at} {what}: {_time(outcome.seconds)}{self._remaining()}")

    def _remaining(self) -> str:
        kinds = [self.cells[cell].fit for cell in self.left]
        if not kinds or any(kind not in self.spent for kind in kinds):
            return ""
        means = {kind: sum(seconds) / len(seconds) for kind, seconds in self.spent.items()}
        return f"; about {_time(sum(means[kind] for kind in kinds))} to go"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
