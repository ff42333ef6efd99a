"""Which share of the whole model's accuracy a point of the front gives, at which share of its cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..statistics import Share, UnitsError, shares
from .curves import fits
from .groups import Group, Grouped
from .html import Markup, tag
from .kept import Kept
from .means import Means
from .pareto import spending, trades

COST, WHAT = "macs_per_base", "multiply-adds"


@dataclass(frozen=True)
class Part:
    """A group on the front, and its share of the whole model fine-tuned on the same rows."""

    group: Group
    whole: Group
    target: str
    share: Share


def parts(grouped: Grouped, kept: Kept, means: Means) -> list[Part]:
    """Groups of the grid on the front of multiply-adds, against the control that fine-tunes the whole model.

    That control is named before anything is measured, so it was not chosen for being the best. Intervals hold for
    all groups of a panel at once, those off the front too.
    """
    made: list[Part] = []
    front = {
        (spot.group.number, trade.target)
        for trade in trades(grouped, means, COST)
        for spot in trade.spots
        if spot.front and spot.group.control is None
    }
    for whole in (group for group in grouped.groups if group.control == "full"):
        own = [group for group in grouped.groups if group.control is None and fits(whole, group.labels)]
        for target in grouped.targets(whole):
            if not any((group.number, target) in front for group in own):
                continue
            units = {group.number: kept.units.get((group.number, target), ()) for group in (*own, whole)}
            costs = {group.number: spending(grouped, group, COST) for group in (*own, whole)}
            try:
                found = shares(units, whole.number, costs, what=WHAT)
            except UnitsError:  # the comparisons say why
                continue
            made += [Part(g, whole, target, found[g.number]) for g in own if (g.number, target) in front]
    return made


def parts_list(grouped: Grouped, made: Sequence[Part]) -> Markup | None:
    """The sentences, the cheapest first."""
    if not made:
        return None
    cheapest = sorted(made, key=lambda part: (part.target, spending(grouped, part.group, COST) or 0.0))
    items = []
    for part in cheapest:
        name = tag("a", f"{part.group.says()} · {part.target}", href=f"#{part.group.anchor}")
        items.append(tag("li", name, ": ", part.share.sentence))
    summary = tag("summary", "The front as shares of the whole model, fine-tuned")
    return tag("details", summary, tag("ul", *items), open=True)
