"""From a study to its cells: axes to combinations, controls beside each, what comes first, what is shared."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from ... import __version__
from ...errors import AgblocksError, Mark, Problem, RecipeError, near
from ...graph.forms import Findings
from ...graph.source import Tree
from ..errors import StudyError
from ..file.form import DEFAULTS
from ..file.study import Option, Study
from ..likeness import Likeness, likeness
from . import models, rows
from .cell import Cell
from .making import Maker, under

Labels = dict[str, str]
_SHOWN = 3  # places of the grid that an error names


@dataclass(frozen=True)
class Entry:
    """A place of the plan: which cell stands there, under which labels, and of which control it is."""

    cell: str
    labels: Mapping[str, str]
    control: str | None = None


@dataclass(frozen=True)
class Plan:
    """What a study comes to: every cell once, in an order in which what others need comes first; and its places."""

    study: Study
    cells: Mapping[str, Cell]
    entries: tuple[Entry, ...]
    axes: tuple[tuple[str, tuple[str, ...]], ...]
    similarity: Mapping[str, Likeness] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """plan.json."""
        study, names = self.study, [name for name, _ in self.axes]
        over = [name for name in ("fold", "seed") if name in names]
        layout: dict[str, Any] = {"x": "tap" if "tap" in names else None, "line": None, "over": over, **study.report}
        taken = {layout["x"], layout["line"], *layout["over"]}
        layout.setdefault("panel", [name for name in names if name not in taken])
        return {
            "format": "agblocks-study", "version": 1, "name": study.name, "about": study.about, "digest": study.digest,
            "command": study.command, "agblocks": __version__,
            "axes": [{"name": name, "options": list(options)} for name, options in self.axes],
            "entries": [{"cell": e.cell, "labels": dict(e.labels), "control": e.control} for e in self.entries],
            "reference": dict(study.reference) if study.reference else None,
            "report": layout, "similarity": list(study.similarity),
        }  # fmt: skip


def plan(study: Study) -> Plan:
    """The cells of a study. Every recipe is resolved, every table read, all settings checked; nothing is trained.

    Errors: `StudyError` with everything that cannot work, each once, with its place and where in the grid it is.
    """
    rows.forget()
    models.forget()
    maker = Maker(study)
    wrong = _Wrong(study)
    entries: list[Entry] = []
    cells: dict[str, Cell] = {}
    options: dict[str, dict[str, None]] = {axis.name: {} for axis in study.axes}

    def add(values: Mapping[str, Tree], labels: Labels, control: str | None) -> Cell | None:
        plain = {path: tree.plain() for path, tree in values.items()}
        try:
            cell = maker.cell(plain)
        except AgblocksError as error:
            wrong.note(error, values, labels, control)
            _look_on(maker, plain, lambda other: wrong.note(other, values, labels, control))
            return None
        cells.setdefault(cell.id, cell)
        return cell

    for labels, values in _combinations(study, options, wrong):
        cell = add(values, labels, None)
        if cell is None:
            continue
        entries.append(Entry(cell.id, labels))
        for control in study.controls:
            changed = _controlled(control, values, cell)
            beside = None if changed is None else add(changed, labels, control)
            if beside is not None and beside.id != cell.id:
                entries.append(Entry(beside.id, labels, control))
    asked: dict[str, Likeness] = {}
    for name, tree in study.similarity.items():
        try:
            asked[name] = likeness(name, tree, maker)
        except AgblocksError as error:
            wrong.add(str(error), tree.mark, f"similarity.{name}")
    axes = tuple((name, tuple(labels)) for name, labels in options.items())
    _check_names(study, dict(axes), wrong)
    if wrong.problems:
        raise StudyError(wrong.told())
    # A cell that others start from keeps its weights, and comes before them.
    ordered: dict[str, Cell] = {}
    for cell in cells.values():
        _before(cell, maker.trained, ordered)
    for one in asked.values():
        for need in one.needs:
            _before(maker.trained[need], maker.trained, ordered)
    return Plan(study, ordered, tuple(_once(entries)), axes, asked)


def _look_on(maker: Maker, values: Mapping[str, Any], found: Callable[[AgblocksError], None]) -> None:
    """What else is wrong with a cell that cannot be made: its settings hang on nothing else."""
    try:
        maker.settings({**DEFAULTS, **{path: value for path, value in values.items() if value is not None}})
    except AgblocksError as error:
        found(error)


def _before(cell: Cell, trained: Mapping[str, Cell], ordered: dict[str, Cell]) -> None:
    for need in cell.needs:
        if need not in ordered:
            _before(trained[need], trained, ordered)
    ordered.setdefault(cell.id, trained.get(cell.id, cell))


def _once(entries: Sequence[Entry]) -> Iterator[Entry]:
    seen = set()
    for entry in entries:
        key = (entry.cell, tuple(entry.labels.items()), entry.control)
        if key not in seen:
            seen.add(key)
            yield entry


def _combinations(
    study: Study, options: dict[str, dict[str, None]], wrong: _Wrong
) -> Iterator[tuple[Labels, dict[str, Tree]]]:
    """Labels and values of every place of the grid, or of those that are listed."""
    for listed in study.listed if study.listed is not None else ({},):
        chosen = []
        for axis in study.axes:
            wanted = listed.get(axis.name)
            own = [o for o in axis.options if wanted is None or o.pattern or o.label in wanted]
            chosen.append([(axis.name, option) for option in own])
        for combination in itertools.product(*chosen):
            values = dict(study.base)
            for _, option in combination:
                values |= option.values
            for labels, made in _expanded(study, combination, values, wrong):
                if all(name not in listed or labels[name] in listed[name] for name in labels):
                    for name, label in labels.items():
                        options[name].setdefault(label)
                    yield labels, made


def _expanded(
    study: Study, combination: Sequence[tuple[str, Option]], values: dict[str, Tree], wrong: _Wrong
) -> Iterator[tuple[Labels, dict[str, Tree]]]:
    """A combination, or one for each edge that a pattern of taps means in its recipe."""
    labels = {name: option.label for name, option in combination}
    tap = values.get("tap")
    if tap is None or not isinstance(tap.value, str) or "*" not in tap.value:
        yield labels, values
        return
    plain = {path: tree.plain() for path, tree in values.items()}
    try:
        resolved = models.whole(plain.get("recipe", ""), under(plain, "set"), study.folder)
    except AgblocksError as error:
        wrong.note(error, values, labels, None)
        return
    found = models.taps(resolved, tap.value)
    owner = next((name for name, option in combination if option.values.get("tap") is tap), None)
    if not found or owner is None:
        there = models.outputs(resolved)
        said = f"no edge is like {tap.value!r}; {near(tap.value, there)}" if not found else "only an axis has patterns"
        wrong.note(AgblocksError(said), values, labels, None, "tap")
        return
    for edge in found:
        yield {**labels, owner: edge}, {**values, "tap": Tree(edge, tap.mark)}


def _controlled(control: str, values: Mapping[str, Tree], cell: Cell) -> dict[str, Tree] | None:
    """The values of a control beside a cell; None where the cell has no such control."""
    changed = dict(values)
    if control == "kmer":
        return None if cell.fit == "kmer" else {**changed, "fit": Tree("kmer")}
    if cell.fit == "kmer":
        return None
    gone: tuple[str, ...] = ("transfer.weights", "transfer.reinit")
    if control == "full":
        gone = ("tap", "transfer.freeze", "transfer.unfreeze", "transfer.reinit", "transfer.rates", "transfer.adapters")
    elif "transfer.weights" not in values or values["transfer.weights"].value is None:
        return None
    for path in gone:
        changed.pop(path, None)
    if control == "full":
        changed |= {"fit": Tree("gradient"), "transfer.tune": Tree("full")}
    return changed


def _check_names(study: Study, axes: Mapping[str, tuple[str, ...]], wrong: _Wrong) -> None:
    listed = [(f"cells[{i}]", "cells", entry) for i, entry in enumerate(study.listed or ())]
    if study.reference:
        listed.append(("reference", "reference", {k: (v,) for k, v in study.reference.items()}))
    for path, key, labels in listed:
        for name, wanted in labels.items():
            mark = study.marks.get(key)
            if path == "reference" and name == "control":
                for label in wanted:
                    if label not in study.controls:
                        wrong.add(f"there is no control {label!r}; {near(label, study.controls)}", mark, path)
            elif name not in axes:
                wrong.add(f"there is no axis {name!r}; {near(name, axes)}", mark, path)
            else:
                for label in wanted:
                    known = axes[name] or tuple(o.label for a in study.axes if a.name == name for o in a.options)
                    if label not in known and not any(fnmatchcase(other, label) for other in known):
                        wrong.add(
                            f"axis {name!r} has no option {label!r}; {near(label, known)}", mark, f"{path}.{name}"
                        )


class _Wrong:
    """What cannot work, each thing once, with the places of the grid where it shows."""

    def __init__(self, study: Study):
        self.study = study
        self.problems: dict[Problem, list[str]] = {}

    def add(self, message: str, mark: Mark | None, path: str) -> None:
        self.problems.setdefault(Problem(message, mark, path), [])

    def note(
        self, error: AgblocksError, values: Mapping[str, Tree], labels: Labels, control: str | None, path: str = ""
    ) -> None:
        where = ", ".join(f"{name}={label}" for name, label in labels.items()) or "the one cell"
        where += f" (control {control})" if control else ""
        if isinstance(error, RecipeError):
            problems = [self._placed(problem, values) for problem in error.problems]
        else:
            path = path or _blamed(str(error), values)
            mark = values[path].mark if path in values else self.study.marks.get("cell")
            problems = [Problem(str(error), mark, path)]
        for problem in problems:
            self.problems.setdefault(problem, []).append(where)

    def _placed(self, problem: Problem, values: Mapping[str, Tree]) -> Problem:
        """A recipe's problem at the place in the study that brought it about, where that is known."""
        path = ""
        if problem.mark is not None and problem.mark.file == "command line":
            name = problem.mark.text.partition("=")[0]
            head = f"head.{name.rpartition('.')[2]}"
            path = f"set.{name}" if f"set.{name}" in values else "tap" if name.endswith(".in") else head
        elif problem.path.startswith("keep"):
            path = "tap"
        elif problem.mark is None and "recipe" in values:
            path = "recipe"
        if path not in values:
            return problem
        said = problem.path if not problem.path.startswith("keep") else ""
        return Problem(problem.message, values[path].mark, path, (*problem.notes, *([f"at {said}"] if said else [])))

    def told(self) -> Findings:
        made = Findings()
        for problem, places in self.problems.items():
            more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
            notes = (f"in {'; '.join(places[:_SHOWN])}{more}",) if places else ()
            made.append(Problem(problem.message, problem.mark, problem.path, (*problem.notes, *notes)))
        return made


# What a message speaks of, for errors that know no place themselves.
_WORDS = (
    ("weights", "transfer.weights"), ("start", "transfer.weights"), ("tune", "transfer.tune"),
    ("unfreeze", "transfer.unfreeze"), ("adapter", "transfer.adapters"), ("rows:", "rows"), ("fold", "fold"),
    ("tap", "tap"), ("head.pool", "head.pool"), ("target", "data"), ("construct", "data"), ("sequences", "recipe"),
)  # fmt: skip


def _blamed(message: str, values: Mapping[str, Tree]) -> str:
    first = message.partition("\n")[0]
    if first.startswith("settings: "):
        for path in values:
            if path.startswith("training.") and f"{path.removeprefix('training.')} is" in first:
                return path
    return next((path for word, path in _WORDS if word in first and path in values), "")
