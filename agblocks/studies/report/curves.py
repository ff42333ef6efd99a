"""Transfer curves: which points stand in which panel, before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from .groups import Group, Grouped, in_order
from .look import Key, Look, line_of, looks
from .means import Mean, Means


@dataclass(frozen=True)
class Point:
    """A group's mean at a place of the x axis."""

    x: int
    mean: Mean
    group: Group


@dataclass(frozen=True)
class Line:
    """A line's points from left to right; `flat` where one group stands for all of x."""

    look: Look
    points: tuple[Point, ...]
    flat: bool = False


@dataclass(frozen=True)
class Panel:
    """One small figure: what all its cells share, one target, and its lines."""

    labels: Mapping[str, str]
    target: str
    lines: tuple[Line, ...]

    @property
    def title(self) -> str:
        """What all its cells share, as text."""
        return " · ".join([*self.labels.values(), self.target])


@dataclass(frozen=True)
class Curves:
    """All panels for one metric, with the labels of the x axis in order."""

    metric: str
    axis: str
    xs: tuple[str, ...]
    panels: tuple[Panel, ...]


def curves(grouped: Grouped, means: Means, metric: str) -> Curves:
    """The panels of a metric. A panel without any number is left out."""
    xs = tuple(in_order(grouped.results.axes[grouped.x])) if grouped.x else ("all",)
    known = looks(grouped)
    panels = []
    for labels in panel_labels(grouped):
        inside = [group for group in grouped.drawn if fits(group, labels)]
        targets = dict.fromkeys(t for group in inside if group.control is None for t in grouped.targets(group))
        panels += [Panel(labels, t, tuple(_lines(grouped, inside, means, metric, t, xs, known))) for t in targets]
    return Curves(metric, grouped.x or "", xs, tuple(p for p in panels if any(line.points for line in p.lines)))


def panel_labels(grouped: Grouped) -> list[dict[str, str]]:
    """The labels of each panel, in the order of the plan."""
    found: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
    for group in grouped.groups:
        if group.control is None:
            labels = {axis: group.labels[axis] for axis in grouped.panel}
            found.setdefault(tuple(labels.items()), labels)
    order = [grouped.results.axes[axis] for axis in grouped.panel]
    return sorted(found.values(), key=lambda p: [o.index(v) for o, v in zip(order, p.values(), strict=True)])


def fits(group: Group, labels: Mapping[str, str]) -> bool:
    """Whether nothing in a group's labels speaks against these."""
    return all(group.labels.get(axis, label) == label for axis, label in labels.items())


def _lines(
    grouped: Grouped, groups: Sequence[Group], means: Means, metric: str, target: str, xs: Sequence[str],
    known: Mapping[Key, Look],
) -> Iterator[Line]:  # fmt: skip
    by_line: dict[Key, list[Group]] = {key: [] for key in known}
    for group in groups:
        by_line[line_of(group, grouped)].append(group)
    for key, members in by_line.items():
        flat = grouped.x is not None and all(grouped.x not in group.labels for group in members)
        points = []
        for group in members:
            mean = means.get((group.number, target, metric))
            if mean is not None:
                places = [xs.index(group.labels[grouped.x])] if grouped.x in group.labels and grouped.x else range(1)
                points += [Point(place, mean, group) for place in places]
        if points:
            yield Line(known[key], tuple(sorted(points, key=lambda p: p.x)), flat and bool(members))
