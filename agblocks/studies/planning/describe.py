"""A plan in words: what there is to do, what is done, what trains."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from ..features.foreseen import foreseen
from ..store import Store
from .cell import Cell
from .plan import Plan

_MOST = 8  # lines on what trains
_KINDS = {"ridge": "probes in closed form", "gradient": "fits by gradient", "kmer": "ridge on k-mers"}


def described(planned: Plan, out: str | Path | None = None, *, cells: bool = False) -> str:
    """The plan as text. out: a folder in which some of it may be done. cells: with a line for each cell."""
    study, store = planned.study, Store(out) if out is not None else None
    lines = [f"{study.name}  {study.digest}", *([study.about] if study.about else []), ""]
    for name, options in planned.axes:
        lines.append(f"{name:12} {', '.join(options)}")
    lines += _idle(planned)
    places = Counter(entry.control for entry in planned.entries)
    controls = ", ".join(f"{n} {name}" for name, n in places.items() if name)
    lines += ["", f"{places[None]} places of the grid{f', and beside them {controls}' if controls else ''}"]
    named = {entry.cell for entry in planned.entries}
    before = [cell for name, cell in planned.cells.items() if name not in named]
    parts = [f"{n} {_KINDS[fit]}" for fit, n in Counter(c.fit for c in planned.cells.values()).items()]
    lines.append(f"{len(planned.cells)} cells: {', '.join(parts)}")
    if before:
        lines.append(f"{len(before)} of them train models that others start from")
    shares = Counter(cell.share for cell in planned.cells.values() if cell.fit == "ridge")
    if shares:
        lines.append(f"the probes read {len(shares)} models, each in one pass over its rows")
    trained = Counter((c.given["parameters"]["trained"], c.given["parameters"]["all"]) for c in _fits(planned))
    if len(trained) > _MOST:
        some, total = (sorted({counts[i] for counts in trained}) for i in (0, 1))
        lines.append(f"fits train {some[0]:,} to {some[-1]:,} parameters, of {total[0]:,} to {total[-1]:,}")
    else:
        lines += [f"{n} fits train {some:,} of {total:,} parameters" for (some, total), n in sorted(trained.items())]
    lines += _frozen_parts(_fits(planned))
    if store is not None:
        states = Counter(_state(store, cell) for cell in planned.cells.values())
        lines.append(f"in {out}: " + ", ".join(f"{states[s]} {s}" for s in ("finished", "failed", "to do")))
    if cells:
        lines.append("")
        for entry in planned.entries:
            labels = " ".join(f"{name}={label}" for name, label in entry.labels.items())
            state = f"  {_state(store, planned.cells[entry.cell])}" if store is not None else ""
            lines.append(f"{entry.cell}  {entry.control or '-':6}  {labels}{state}")
    return "\n".join(lines)


def _idle(planned: Plan) -> list[str]:
    """Axes that make no difference somewhere: a closed-form probe has no learning rate, a drawn model no weights."""
    lines = []
    for name, _ in planned.axes:
        places: dict[tuple[tuple[str, str], ...], list[str]] = {}
        for entry in planned.entries:
            if entry.control is None and name in entry.labels:
                others = tuple((axis, label) for axis, label in entry.labels.items() if axis != name)
                places.setdefault(others, []).append(entry.cell)
        several = [cells for cells in places.values() if len(cells) > 1]
        same = sum(len(set(cells)) == 1 for cells in several)
        if same:
            where = "" if same == len(several) else f" at {same} of {len(several)} places"
            lines.append(f"{name} changes nothing{where}: its options are one cell there")
    return lines


def _fits(planned: Plan) -> list[Cell]:
    return [cell for cell in planned.cells.values() if cell.fit == "gradient"]


def _frozen_parts(fits: list[Cell]) -> list[str]:
    """How many fits run what is frozen in them once, and why the others don't."""
    why = Counter(foreseen(c.given["recipe"], c.given["settings"], c.given["transfer"]) for c in fits)
    once = why.pop(None, 0)
    lines = [f"{once} fits run what is frozen once, and keep its features"] if once else []
    lines += [f"{n} fits keep no features: {reason}" for reason, n in why.most_common(_MOST)]
    if (left := sum(n for _, n in why.most_common()[_MOST:])) > 0:
        lines.append(f"{left} fits keep no features, for other reasons")
    return lines


def _state(store: Store, cell: Cell) -> str:
    return "finished" if store.done(cell) else "failed" if store.failed(cell.id) is not None else "to do"
