"""Which groups are compared with which, and what the statistics say of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars

from ..statistics import Difference, UnitsError, paired
from ..statistics.units import aligned
from .curves import fits
from .groups import Group, Grouped, control_name
from .html import Markup, interval, join, number, tag
from .kept import Kept
from .pareto import data_axes

VERDICTS = {"better": "better", "worse": "worse", "none": "not decided", "few": "too few units"}


@dataclass(frozen=True)
class Compared:
    """A group against another on the same units: `against` says as what (`reference`, or a control's name)."""

    group: Group
    other: Group
    against: str
    target: str
    found: Difference

    @property
    def planned(self) -> int:
        """Units that both were planned for; those of the same two cells are one."""
        mine, theirs = self.group.units, self.other.units
        return len({(mine[unit], theirs[unit]) for unit in mine.keys() & theirs.keys()})


def compare(grouped: Grouped, kept: Kept) -> tuple[list[Compared], list[str]]:
    """Every group of the grid against the reference and against each of its controls, on Pearson's r.

    A family, corrected in itself, is what is asked at once: one target of one data set, all of the grid against the
    reference or against one control. Gives the comparisons, and why some could not be made.
    """
    families: dict[tuple[str, ...], list[tuple[Group, Group, str]]] = {}
    axes = data_axes(grouped)
    problems: list[str] = []
    for against, group, other in pairs(grouped):
        for target in grouped.targets(group):
            if target in grouped.targets(other):
                try:
                    _same_rows(kept, group, other, target)
                except UnitsError as error:
                    problems.append(f"{group.says()} against {other.says()}, {target}: {error}")
                else:
                    key = (against, target, *(group.labels[a] for a in axes))
                    families.setdefault(key, []).append((group, other, target))
    made = []
    for (against, *_), members in families.items():
        units = {(g.number, target): kept.units.get((g.number, target), ()) for a, b, target in members for g in (a, b)}
        reference = {(a.number, target): (b.number, target) for a, b, target in members}
        found = paired(units, reference)
        made += [Compared(a, b, against, target, found[a.number, target]) for a, b, target in members]
    return made, problems


def _same_rows(kept: Kept, group: Group, other: Group, target: str) -> None:
    theirs = {unit.key: unit for unit in kept.units.get((other.number, target), ())}
    for unit in kept.units.get((group.number, target), ()):
        if unit.key in theirs:
            aligned(unit, theirs[unit.key])


def pairs(grouped: Grouped) -> Iterator[tuple[str, Group, Group]]:
    """(as what, group, the other one): the reference with the same other labels, and each control's group."""
    reference = grouped.results.plan.reference
    own = {tuple(sorted(g.labels.items())): g for g in grouped.groups if g.control is None}
    controls: dict[str, list[Group]] = {}
    for group in grouped.groups:
        if group.control is not None:
            controls.setdefault(group.control, []).append(group)
    for group in own.values():
        if reference is not None and "control" not in reference:
            labels = {**group.labels, **{a: v for a, v in reference.items() if a not in grouped.over}}
            other = own.get(tuple(sorted(labels.items())))
            if other is not None and other is not group:
                yield "reference", group, other
        for control, candidates in controls.items():
            beside = next((g for g in candidates if fits(g, group.labels)), None)
            if beside is not None:
                yield control, group, beside


def comparisons_table(grouped: Grouped, compared: Sequence[Compared]) -> Markup | None:
    """A row for each comparison: the sentence, who, with whom, the difference."""
    if not compared:
        return None
    axes = [a for a in grouped.results.axes if a not in grouped.over and len(grouped.results.axes[a]) > 1]
    heads = [tag("th", "verdict", scope="col", data_select=True), tag("th", "what can be said", scope="col")]
    heads += [tag("th", axis, scope="col", data_select=True) for axis in axes]
    heads += [tag("th", name, scope="col", data_select=True) for name in ("target", "against")]
    heads += [tag("th", name, scope="col", class_="n") for name in ("difference in r", "alone", "units")]
    rows = []
    for one in compared:
        d = one.found
        other = control_name(one.against) if one.against != "reference" else "reference"
        units = str(d.units) if d.units == one.planned else f"{d.units} of {one.planned}"
        parts = [
            tag("td", tag("span", VERDICTS[d.verdict], class_="verdict")),
            tag("td", tag("a", d.sentence, href=f"#{one.group.anchor}"), _caveats(d), class_="wrap"),
            *(tag("td", one.group.labels.get(axis)) for axis in axes), tag("td", one.target),
            tag("td", tag("a", other, href=f"#{one.other.anchor}", title=one.other.says())),
            *(tag("td", said, class_="n") for said in (number(d.mean), interval(*d.alone), units)),
        ]  # fmt: skip
        rows.append(tag("tr", *parts, class_=d.verdict))
    body = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="data")
    box = tag("div", body, class_="scroll tall", tabindex=0, role="region", aria_label="Comparisons")
    return join([tag("p", "Differences on the same folds and seeds. Intervals in the sentences are corrected for all "
                     "that is compared at once; under ", tag("em", "alone"), " stands each as if it were the only "
                     "one. See ", tag("a", "methods", href="#methods"), "."), box])  # fmt: skip


def _caveats(found: Difference) -> Markup | None:
    return tag("span", f" ({'; '.join(found.caveats)})", class_="quiet") if found.caveats else None


def comparisons_frame(grouped: Grouped, compared: Sequence[Compared]) -> polars.DataFrame:
    """The same as a table for programs: labels of the group under its axes, both groups in words."""
    axes = [a for a in grouped.results.axes if a not in grouped.over]
    rows = []
    for one in compared:
        d = one.found.to_dict()
        row = {**{f"axis_{a}": one.group.labels.get(a) for a in axes}, "target": one.target, "against": one.against}
        row |= {"other": one.other.says(), "difference": d["mean"], **{name: d[name] for name in _KINDS}}
        rows.append({**row, "caveats": "; ".join(one.found.caveats)})
    schema: dict[str, Any] = dict.fromkeys([*(f"axis_{a}" for a in axes), "target", "against", "other"], polars.String)
    schema |= {"difference": polars.Float64, **_KINDS, "caveats": polars.String}
    return polars.DataFrame(rows, schema=schema)


_KINDS: dict[str, Any] = {
    **dict.fromkeys(("low", "high", "alone_low", "alone_high", "p", "adjusted"), polars.Float64),
    **dict.fromkeys(("units", "folds", "seeds", "rows", "missing", "family"), polars.Int64),
    "metric": polars.String, "verdict": polars.String, "sentence": polars.String,
}  # fmt: skip
