"""What stands in the folder of a study: its plan, and of every planned cell whether and how it ended.

Files are whole or absent, so a file that cannot be read was damaged or put there by something else. The plan must be
right; any other such file is refused, named in `problems`, and the rest is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from ..errors import AgblocksError, shown
from .written import CELL, Cost, Entry, Failed, Planned, Result, Similarity, Written

State = Literal["done", "failed", "refused", "missing"]
STATES: tuple[State, ...] = ("done", "failed", "refused", "missing")


@dataclass(frozen=True)
class Cell:
    """How one planned cell ended. `reason` says in one line why it has no numbers, `where` which node or file."""

    id: str
    state: State
    result: Result | None = None
    reason: str = ""
    where: str = ""


@dataclass(frozen=True)
class Results:
    """A study's folder, read. `problems` names the files that were refused; `strangers` counts other studies' cells."""

    folder: Path
    plan: Planned
    cells: Mapping[str, Cell]
    costs: Mapping[str, Cost]
    similarity: Mapping[str, Similarity]
    problems: tuple[str, ...] = ()
    strangers: int = 0

    @cached_property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Options by axis, in the order of the file."""
        return {axis.name: axis.options for axis in self.plan.axes}

    def count(self, state: State) -> int:
        """How many cells ended so."""
        return sum(cell.state == state for cell in self.cells.values())

    def predictions(self, cell: str) -> Path:
        """Where the cell's predictions of its test rows are, if they were kept."""
        return self.folder / "cells" / cell / "predictions.parquet"


def read(out: str | Path) -> Results:
    """The folder that `agblocks study run` writes, finished or not.

    Errors: `AgblocksError` where there is no such folder, or its plan.json is missing, damaged or not a study's.
    """
    folder = Path(out)
    if not folder.is_dir():
        raise AgblocksError(f"{folder}: there is no such folder; wanted one that `agblocks study run FILE -o` wrote")
    if not (folder / "plan.json").is_file():
        raise AgblocksError(
            f"{folder / 'plan.json'}: there is no such file; `agblocks study run FILE -o` writes it first"
        )
    problems: list[str] = []
    plan = _file(folder / "plan.json", Planned, problems)
    if plan is None:
        raise AgblocksError(problems[0])
    _check_plan(folder / "plan.json", plan)
    wanted = dict.fromkeys(entry.cell for entry in plan.entries)
    cells = {cell: _cell(folder / "cells" / cell, problems) for cell in wanted}
    keys = {c.result.cost for c in cells.values() if c.result and c.result.cost}
    names = [name for name in plan.similarity if (folder / "similarity" / f"{name}.json").is_file()]
    there = {path.name for path in (folder / "cells").glob("*") if CELL.match(path.name)}
    return Results(
        folder,
        plan,
        cells,
        _files(folder / "costs", sorted(keys), Cost, problems),
        _files(folder / "similarity", names, Similarity, problems),
        tuple(problems),
        len(there - wanted.keys()),
    )


def _check_plan(path: Path, plan: Planned) -> None:
    """Labels and layout speak of axes that there are."""
    axes = {axis.name: set(axis.options) for axis in plan.axes}
    layout = plan.report
    for name in (layout.x, layout.line, *layout.panel):
        if name is not None and name not in axes:
            raise AgblocksError(f"{path}: report: {shown(name)} is not an axis; there is: {', '.join(axes) or 'none'}")
    for i, entry in enumerate(plan.entries):
        for axis, label in entry.labels.items():
            if label not in axes.get(axis, ()):
                what = f"axis {shown(axis)}" if axis not in axes else f"option {shown(label)} of axis {shown(axis)}"
                raise AgblocksError(f"{path}: entries[{i}]: the plan has no {what}")
        if entry.control is None and (left := axes.keys() - entry.labels.keys()):
            raise AgblocksError(f"{path}: entries[{i}]: no label for {', '.join(sorted(left))}")


def _cell(folder: Path, problems: list[str]) -> Cell:
    """A result counts more than an earlier failure of the same cell."""
    name = folder.name
    path = folder / "result.json"
    if path.exists():
        result = _file(path, Result, problems)
        if result is not None and result.cell != name:
            problems.append(f"{path}: is the result of cell {shown(result.cell)}, wanted {name}")
            result = None
        return Cell(name, "done", result) if result else Cell(name, "refused", reason=problems[-1], where=str(path))
    path = folder / "failed.json"
    if path.exists():
        failed = _file(path, Failed, problems)
        if failed is None:
            return Cell(name, "refused", reason=problems[-1], where=str(path))
        return Cell(name, "failed", reason=failed.error, where=failed.where or "")
    return Cell(name, "missing", reason="not run yet")


Kind = TypeVar("Kind", bound=Written)


def _files(folder: Path, names: Iterable[str], kind: type[Kind], problems: list[str]) -> dict[str, Kind]:
    found = {}
    for name in names:
        if Path(name).name != name:
            problems.append(f"{folder}: {shown(name)} is not the name of a file")
        elif (made := _file(folder / f"{name}.json", kind, problems)) is not None:
            found[name] = made
    return found


def _file(path: Path, kind: type[Kind], problems: list[str]) -> Kind | None:
    """A file as its kind; None, with a line in `problems`, where it is anything else."""
    try:
        return kind.model_validate_json(path.read_bytes())
    except OSError as error:
        problems.append(f"{path}: cannot be read: {error.strerror}")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        found = "" if isinstance(first["input"], (dict, bytes)) else f", found {shown(first['input'])}"
        problems.append(f"{path}: {place + ': ' if place else ''}{first['msg']}{found}")
    return None


def expand(entry: Entry, axes: Mapping[str, Sequence[str]], over: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """The units (one label for each axis of `over`) an entry counts for: a control without a fold counts for all."""
    return itertools.product(*([entry.labels[a]] if a in entry.labels else axes[a] for a in over if a in axes))
