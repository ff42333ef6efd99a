"""What accuracy costs: every group's mean Pearson against one counted or measured cost, and the front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from ..statistics import pareto
from .curves import fits
from .groups import Group, Grouped
from .look import Look, line_of, looks
from .means import Mean, Means

# Column of the costs -> axis label, short name.
COSTS = {
    "macs_per_base": ("multiply-adds for each base", "multiply-adds"),
    "latency_1_ms": ("ms a sequence, one at a time", "latency, batch 1"),
    "latency_32_ms": ("ms a sequence, 32 at a time", "latency, batch 32"),
    "parameters": ("parameters", "parameters"),
    "peak_mb": ("peak memory, MB", "memory"),
}


@dataclass(frozen=True)
class Spot:
    """A group at its cost; `front` where nothing cheaper is as accurate."""

    cost: float
    mean: Mean
    group: Group
    look: Look
    front: bool


@dataclass(frozen=True)
class Trade:
    """One small figure: cells on the same data and target, against one cost."""

    cost: str
    labels: Mapping[str, str]
    target: str
    spots: tuple[Spot, ...]

    @property
    def title(self) -> str:
        """What all its cells share, as text."""
        return " · ".join([*self.labels.values(), self.target])


def trades(grouped: Grouped, means: Means, cost: str) -> list[Trade]:
    """One figure for each data and target, architectures together; none where no cost was measured."""
    axes = data_axes(grouped)
    known = looks(grouped)
    made = []
    seen = dict.fromkeys(tuple((a, g.labels[a]) for a in axes) for g in grouped.groups if g.control is None)
    for labels in map(dict, seen):
        inside = [group for group in grouped.drawn if fits(group, labels)]
        for target in dict.fromkeys(t for group in inside if group.control is None for t in grouped.targets(group)):
            spots = []
            for group in inside:
                mean, spent = means.get((group.number, target, "pearson")), spending(grouped, group, cost)
                if mean is not None and spent is not None and spent > 0:
                    spots.append((spent, mean, group))
            front = pareto([spent for spent, _, _ in spots], [mean.mean for _, mean, _ in spots])
            shown = (Spot(*spot, known[line_of(spot[2], grouped)], front[i]) for i, spot in enumerate(spots))
            if spots:
                made.append(Trade(cost, labels, target, tuple(shown)))
    return made


def spending(grouped: Grouped, group: Group, cost: str) -> float | None:
    """What a group's model costs: the median over its units."""
    costs = grouped.results.costs
    found = (costs.get(result.cost) for result in grouped.done(group).values() if result.cost)
    values = [v for c in found if c is not None and (v := getattr(c, cost)) is not None]
    return statistics.median(values) if values else None


def data_axes(grouped: Grouped) -> tuple[str, ...]:
    """The axes that change what is predicted: `data`, and what the k-mer control, which has no model, depends on."""
    places = [(entry.cell, entry.labels) for entry in grouped.results.plan.entries if entry.control == "kmer"]

    def changes(axis: str) -> bool:
        """Whether the control has another cell somewhere, all other labels equal."""
        found: dict[frozenset[tuple[str, str]], str] = {}
        return any(
            found.setdefault(frozenset((a, v) for a, v in labels.items() if a != axis), cell) != cell
            for cell, labels in places
        )

    free = (a for a in grouped.results.axes if a not in grouped.over)
    return tuple(axis for axis in free if axis == "data" or changes(axis))
