"""What is averaged: cells that differ only in fold, seed and the like make a group, one point of a figure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..results import Results, expand
from ..written import Result

Unit = tuple[str, ...]
_CONTROLS = {"random": "random encoder", "kmer": "k-mer ridge", "full": "whole model fine-tuned"}
_STAGE = re.compile(r"(?P<before>.*?)(?P<stage>stage)?(?P<number>\d+(\.\d+)?)\Z")


@dataclass(frozen=True)
class Group:
    """Cells that differ in the axes of `over` only: their labels, and which cell is which unit (fold, seed).

    Axes that a control's cells do not depend on have no label.
    """

    number: int
    labels: Mapping[str, str]
    control: str | None
    units: Mapping[Unit, str]

    @property
    def anchor(self) -> str:
        """Its place in the page."""
        return f"group-{self.number}"

    def says(self, without: Sequence[str] = ()) -> str:
        """Its labels as text."""
        parts = [label for axis, label in self.labels.items() if axis not in without]
        return ", ".join(([control_name(self.control)] if self.control else []) + parts) or "all cells"


def control_name(control: str) -> str:
    """A control in words."""
    return _CONTROLS.get(control, control)


@dataclass(frozen=True)
class Grouped:
    """All groups of a study, and how the figures lay them out."""

    results: Results
    groups: tuple[Group, ...]
    x: str | None
    line: str | None
    panel: tuple[str, ...]
    over: tuple[str, ...]

    @cached_property
    def of_cell(self) -> dict[tuple[str | None, str], list[Group]]:
        """Groups by (control, cell)."""
        found: dict[tuple[str | None, str], list[Group]] = {}
        for group in self.groups:
            for cell in dict.fromkeys(group.units.values()):
                found.setdefault((group.control, cell), []).append(group)
        return found

    @cached_property
    def drawn(self) -> tuple[Group, ...]:
        """The groups of figures: a control's whose cells are some of another's of that control stands in that one."""
        drawn = []
        for whole in self.groups:
            same = [group for group in self.groups if group.control == whole.control and whole.control is not None]
            if any(whole.units.items() < group.units.items() for group in same):
                continue
            parts = [group.labels for group in same if group.units.items() < whole.units.items()]
            shared = {a: v for a, v in whole.labels.items() if all(labels.get(a) == v for labels in parts)}
            drawn.append(replace(whole, labels=shared))
        return tuple(drawn)

    def done(self, group: Group) -> dict[Unit, Result]:
        """The results that are there, by unit."""
        found = ((unit, self.results.cells[cell].result) for unit, cell in group.units.items())
        return {unit: result for unit, result in found if result is not None}

    def targets(self, group: Group) -> list[str]:
        """Targets of its results, in their order."""
        scores = (s for result in self.done(group).values() for s in result.scores.get("test", ()))
        return list(dict.fromkeys(s.target for s in scores))

    def values(self, group: Group, target: str, metric: str) -> dict[Unit, float]:
        """A target's test scores by unit, where there are any."""
        found = {}
        for unit, result in self.done(group).items():
            for score in result.scores.get("test", ()):
                value = getattr(score, metric)
                if score.target == target and value is not None:
                    found[unit] = float(value)
        return found


def grouped(results: Results) -> Grouped:
    """The plan's entries in groups, in its order; a control's groups with the very same cells are one."""
    plan, axes = results.plan, results.axes
    over = tuple(axis for axis in plan.report.over if axis in axes)
    units: dict[tuple[str | None, tuple[tuple[str, str], ...]], dict[Unit, str]] = {}
    for entry in plan.entries:
        labels = tuple((a, entry.labels[a]) for a in axes if a not in over and a in entry.labels)
        held = units.setdefault((entry.control, labels), {})
        for unit in expand(entry, axes, over):
            held.setdefault(unit, entry.cell)
    kept: dict[tuple[str | None, object], tuple[dict[str, str], dict[Unit, str]]] = {}
    for (control, labels), cells in units.items():
        same = frozenset(cells.items()) if control is not None else labels
        before = kept.get((control, same))
        shared = dict(labels) if before is None else {a: v for a, v in labels if before[0].get(a) == v}
        kept[control, same] = (shared, cells)
    groups = tuple(Group(i, labels, key[0], cells) for i, (key, (labels, cells)) in enumerate(kept.items()))
    free = [axis for axis in axes if axis not in over]
    # What a study leaves open: the first axis along x, the last one as lines; what the data are stays a panel.
    layout = plan.report
    left = [a for a in free if a not in (layout.x, layout.line, "data")]
    x = layout.x or next((a for a in left if a not in layout.panel), left[0] if left else None)
    line = layout.line or next((a for a in reversed(left) if a != x), None)
    rest = tuple(a for a in free if a not in (x, line, *layout.panel))
    panel = tuple(a for a in layout.panel if a not in (x, line))
    return Grouped(results, groups, x, line, (*panel, *rest), over)


def in_order(labels: Iterable[str]) -> list[str]:
    """Stages in the order of their encoder and numbers by size; anything else as it stands."""
    labels = list(labels)
    keys = [_place(label) for label in labels]
    known = [key for key in keys if key is not None]
    # The end of an encoder (`encoder.pool`, `encoder`) and `all` of the rows come last.
    if len(known) < 2 or len({key[0] for key in known}) > 1:
        return labels
    before = known[0][0]
    ends = {before.rstrip("."), f"{before}pool", "all"}
    if any(key is None and label not in ends for key, label in zip(keys, labels, strict=True)):
        return labels
    last = max(key[1] for key in known)
    numbers = [(last + 1 + (label == "all"), i) if key is None else (key[1], i)
               for i, (key, label) in enumerate(zip(keys, labels, strict=True))]  # fmt: skip
    return [labels[i] for _, i in sorted(numbers)]


def _place(label: str) -> tuple[str, float] | None:
    found = _STAGE.match(label)
    if found is None or not (found["stage"] or found["before"] == ""):
        return None
    return found["before"], float(found["number"])
