"""Differences to a reference, unit by unit, with intervals that hold for all of them together."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ...errors import near
from .family import half_width, simultaneous, two_sided
from .tables import Laid, lay
from .units import Groups, UnitsError
from .words import number

Verdict = Literal["better", "worse", "none", "few"]
LEVEL, RESAMPLES = 0.95, 1000
_NAN = float("nan")


@dataclass(frozen=True)
class Difference:
    """How a group differs from its reference in the mean score over (fold, seed) units that both have.

    `mean` is group less reference in the metric's own units, `low` to `high` its interval, which holds for the whole
    `family` of comparisons at once; `alone` is the interval as if this comparison were the only one. `p` and
    `adjusted` are the p-values of both. `missing` counts units that only one of the two has, or where a score does not
    exist; they take no part. `verdict` is better or worse only where `low` to `high` leaves out zero.
    """

    group: Hashable
    reference: Hashable
    metric: str
    mean: float
    low: float
    high: float
    alone: tuple[float, float]
    p: float
    adjusted: float
    units: int
    folds: int
    seeds: int
    rows: int
    missing: int
    family: int
    level: float
    verdict: Verdict
    caveats: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What the data allow to be said, and no more."""
        if self.verdict == "few":
            return f"too few units: {self.units}"
        ends = sorted((self.low, self.high))
        if self.verdict != "none" and self.mean < 0:
            ends = sorted(-end for end in ends)
        mean = abs(self.mean) if self.verdict != "none" else self.mean
        told, low, high = number((mean, *ends))
        said = "no difference can be shown:" if self.verdict == "none" else f"{self.verdict} by"
        return f"{said} {told} [{low}, {high}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON and tables, nan as None; with the sentence."""
        held = {k: v for k, v in vars(self).items() if k != "alone"}
        held |= {"alone_low": self.alone[0], "alone_high": self.alone[1], "caveats": list(self.caveats)}
        plain = {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in held.items()}
        return {**plain, "sentence": self.sentence}


def paired(
    groups: Groups,
    reference: Hashable | Mapping[Any, Any],
    *,
    metric: str = "pearson",
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Any, Difference]:
    """Each group against its reference on the same held-out rows, folds and seeds.

    groups: by name (anything hashable, but no mapping) the units of each; a unit is one fold and one seed.
    reference: the group that all others are compared with; or for each group to compare, in a mapping, its own.
    All comparisons of one call are one family: they are corrected together (`simultaneous`).
    level: of the intervals. resamples, seed: of the bootstrap of rows; the same seed gives the same answer.

    What the intervals stand on, in `Spread`'s words: rows are drawn at random and are independent within a fold, folds
    are alike, seeds are drawn at random. They say what to expect of new rows, training sets of this size and seeds;
    not of other data. With one unit nothing is claimed; with one fold the caveat says so.
    Errors: `UnitsError` for names that are not there, units that are there twice, rows measured differently.
    Use when: saying that one way is better than another.
    """
    against = dict(reference) if isinstance(reference, Mapping) else {k: reference for k in groups if k != reference}
    for name in (reference,) if not isinstance(reference, Mapping) else (*against, *against.values()):
        if name not in groups:
            raise UnitsError(f"there is no group {name!r} to compare; {near(str(name), map(str, groups))}")
    if not 0.5 <= level < 1:
        raise UnitsError(f"the level is {level}, wanted 0.5 to below 1, like 0.95")
    tables = dict(zip(against, lay(groups, list(against.items()), metric, resamples, seed), strict=True))
    enough = [name for name, table in tables.items() if table.units > 1]
    spreads = {name: tables[name].spread() for name in enough}
    p = {name: two_sided(tables[name].mean(), s.error, s.freedom) for name, s in spreads.items()}
    adjusted, each = np.zeros(0), level
    if enough:
        draws = np.stack([tables[name].draws() for name in enough], axis=1)
        shared = np.array([s.rows / s.variance if s.variance else 0.0 for s in spreads.values()])
        adjusted, each = simultaneous(np.array(list(p.values())), draws, shared, level, seed)
    corrected = dict(zip(enough, adjusted.tolist(), strict=True))
    made: dict[Any, Difference] = {}
    for name, table in tables.items():
        mean, caveats = table.mean(), _caveats(table)
        low = high = alone_low = alone_high = p_value = p_adjusted = _NAN
        verdict: Verdict = "few"
        if name in spreads:
            s = spreads[name]
            wide, narrow = (half_width(s.error, s.freedom, at) for at in (each, level))
            low, high, alone_low, alone_high = mean - wide, mean + wide, mean - narrow, mean + narrow
            p_value, p_adjusted = p[name], corrected[name]
            verdict = _verdict(mean, low, high, s.error, metric)
        made[name] = Difference(
            name, against[name], metric, mean, low, high, (alone_low, alone_high), p_value, p_adjusted, table.units,
            table.folds, table.seeds, table.rows, table.missing, len(enough), level, verdict, caveats,
        )  # fmt: skip
    return made


def _verdict(mean: float, low: float, high: float, error: float, metric: str) -> Verdict:
    if error <= 0 or low <= 0 <= high:
        return "none"
    return "better" if (mean > 0) != (metric == "mse") else "worse"


def _caveats(table: Laid) -> tuple[str, ...]:
    said = []
    if table.folds == 1 and table.units:
        said.append("one fold: other splits are taken to differ as its rows do")
    if table.seeds == 1 and table.units:
        said.append("one seed: what training draws at random is not told from what is compared")
    if table.missing:
        said.append(f"{table.missing} units are missing from one of the two and left out")
    if table.apart:
        said.append(f"{table.apart} rows are in one of the two only and left out")
    return tuple(said)
