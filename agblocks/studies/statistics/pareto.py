"""What accuracy costs: who is beaten by nobody, and which share of the accuracy a share of the cost gives."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .family import half_width, simultaneous
from .paired import LEVEL, RESAMPLES
from .tables import Laid, lay
from .units import Groups, UnitsError
from .words import percent

_NAN = float("nan")
_METRICS = {"pearson": "Pearson r", "spearman": "Spearman r"}


def pareto(costs: Sequence[float | None], values: Sequence[float | None]) -> list[bool]:
    """Which points no other point beats: none is at most as costly and at least as good, and better in one of both.

    Points that are the same in both stand on the front together. A missing cost or value (None, nan) is never on it,
    and beats nobody.
    Errors: `UnitsError` where there are more of one than of the other.
    """
    if len(costs) != len(values):
        raise UnitsError(f"{len(costs)} costs for {len(values)} values")
    known = [
        (float(c), -float(v), i)
        for i, (c, v) in enumerate(zip(costs, values, strict=True))
        if c is not None and v is not None and not np.isnan(c) and not np.isnan(v)
    ]
    front = [False] * len(costs)
    best: tuple[float, float] | None = None  # the last on the front: cost, and value with its sign turned
    for cost, worse, i in sorted(known):
        if best is None or worse < best[1] or (cost, worse) == best:
            front[i] = True
            best = (cost, worse)
    return front


@dataclass(frozen=True)
class Share:
    """The share of a reference's mean score that a group reaches, at which share of its cost.

    `low` to `high` holds for the whole family of groups at once; nan where nothing can be said: `reason` says why.
    """

    group: Hashable
    reference: Hashable
    metric: str
    share: float
    low: float
    high: float
    cost_share: float
    units: int
    level: float
    reason: str = ""
    what: str = "cost"

    @property
    def sentence(self) -> str:
        """ "97 % [94 %, 101 %] of the Pearson r at 20 % of the multiply-adds", or why not."""
        cost = f"at {percent(self.cost_share)} of the {self.what}" if np.isfinite(self.cost_share) else ""
        if np.isnan(self.share):
            return f"no share can be stated: {self.reason}"
        between = "" if np.isnan(self.low) else f" [{percent(self.low)}, {percent(self.high)}]"
        said = f"{percent(self.share)}{between} of the {_METRICS[self.metric]} {cost}".rstrip()
        return f"{said} ({self.reason})" if self.reason else said


def shares(
    groups: Groups,
    reference: Hashable,
    costs: Mapping[Any, float | None] | None = None,
    *,
    what: str = "cost",
    metric: str = "pearson",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Any, Share]:
    """Every group's mean score as a share of the reference's, on the units that both have.

    Intervals: of `group - share * reference` by the same spread and the same correction as differences (`paired`), over
    the reference's mean. They leave out that the reference may have been chosen for being the best: name it before.
    costs: by group, in any unit; what: their name in the sentence.
    Errors: as `paired`; `UnitsError` for squared error, of which shares mean nothing.
    """
    if metric not in _METRICS:
        raise UnitsError(f"a share of {metric!r} means nothing; there are {', '.join(_METRICS)}")
    if reference not in groups:
        raise UnitsError(f"there is no group {reference!r} to compare")
    names = [name for name in groups if name != reference]
    tables = dict(zip(names, lay(groups, [(n, reference) for n in names], metric, resamples, seed), strict=True))
    ratios = {name: table.mean(0.0) / _base(table) if _base(table) else _NAN for name, table in tables.items()}
    usable = [name for name, table in tables.items() if table.units > 1 and _stands(table, level)]
    spreads = {name: tables[name].spread(ratios[name]) for name in usable}
    each = level
    if usable:
        draws = np.stack([tables[name].draws(ratios[name]) for name in usable], axis=1)
        part = np.array([s.rows / s.variance if s.variance else 0.0 for s in spreads.values()])
        _, each = simultaneous(np.ones(len(usable)), draws, part, level, seed)
    spent = dict(costs or {})
    made: dict[Any, Share] = {}
    for name, table in tables.items():
        mine, theirs = spent.get(name), spent.get(reference)
        of_cost = _NAN if mine is None or not theirs else float(mine) / float(theirs)
        ratio = low = high = _NAN
        if name in spreads:
            ratio = ratios[name]
            wide = half_width(spreads[name].error, spreads[name].freedom, each) / _base(table)
            low, high = ratio - wide, ratio + wide
            reason = ""
        elif table.units == 1 and _base(table) > 0:
            ratio, reason = ratios[name], "one unit: no interval"
        else:
            reason = "the reference's own score is not clearly above zero" if table.units else "no units in common"
        made[name] = Share(name, reference, metric, ratio, low, high, of_cost, table.units, level, reason, what)
    return made


def _base(table: Laid) -> float:
    """The reference's mean over the units of a table; nan without any."""
    return table.mean(0.0) - table.mean(1.0) if table.units else _NAN


def _stands(table: Laid, level: float) -> bool:
    """Whether the reference's mean is above zero by more than its interval."""
    alone = Laid(table.theirs, table.theirs * 0, table.their_draws, table.their_draws * 0, table.rows, 0, 0)
    found = alone.spread()
    return alone.mean() - half_width(found.error, found.freedom, level) > 0
