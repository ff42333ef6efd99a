"""Units of groups as tables of folds and seeds, with what their mean is under resamples of rows."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .resampling import resampled
from .spread import Spread, mean_of, spread, weights_of
from .units import Groups, Unit, aligned, by_key

Array = NDArray[np.float64]
Pair = tuple[Unit, Unit | None]
_SAME = 1e-12  # scores that differ by rounding alone


@dataclass(frozen=True)
class Laid:
    """The units of one group, or of one group and the reference, that can be used.

    Seeds that all give the same count as one: nothing of what they compare is drawn at random, and the same numbers
    again are no more of them.

    Shapes: mine, theirs (folds, seeds), nan where a unit is missing; my_draws, their_draws (resamples,): their means.
    Of a group alone, `theirs` is 0.
    """

    mine: Array
    theirs: Array
    my_draws: Array
    their_draws: Array
    rows: int
    missing: int
    apart: int  # rows that only one of the two has

    @property
    def folds(self) -> int:
        return len(self.mine)

    @property
    def seeds(self) -> int:
        return int((~np.isnan(self.mine)).any(axis=0).sum()) if self.mine.size else 0

    @property
    def units(self) -> int:
        return int((~np.isnan(self.mine)).sum())

    def mean(self, times: float = 1.0) -> float:
        """The mean of `mine - times * theirs` over units; nan without any."""
        return mean_of(self.mine - times * self.theirs) if self.units else float("nan")

    def draws(self, times: float = 1.0) -> Array:
        return self.my_draws - times * self.their_draws

    def spread(self, times: float = 1.0) -> Spread:
        return spread(self.mine - times * self.theirs, self.draws(times), self.rows)


@dataclass
class _Wanted:
    pairs: list[Pair] = field(default_factory=list)
    missing: int = 0
    apart: int = 0


def lay(
    groups: Groups,
    against: Sequence[tuple[Hashable, Hashable | None]],
    metric: str,
    resamples: int,
    seed: int,
) -> list[Laid]:
    """The tables of each (group, reference), or of a group alone where the reference is None.

    Errors: `UnitsError` as `Unit`, `aligned` and `resampled` say.
    """
    keyed = {name: by_key(groups[name], name) for pair in against for name in pair if name is not None}
    wanted = [_match(keyed[name], None if other is None else keyed[other]) for name, other in against]
    units: dict[int, Unit] = {id(u): u for want in wanted for pair in want.pairs for u in pair if u is not None}
    column = {known: i for i, known in enumerate(units)}
    found = resampled(list(units.values()), metric, resamples, seed)
    return [_table(want, column, found.values, found.draws, found.rows) for want in wanted]


def _match(mine: dict[tuple[str, str], Unit], theirs: dict[tuple[str, str], Unit] | None) -> _Wanted:
    if theirs is None:
        return _Wanted([(unit, None) for unit in mine.values()])
    made = _Wanted(missing=len(mine.keys() ^ theirs.keys()))
    for key in mine:
        if key in theirs:
            one, other = aligned(mine[key], theirs[key])
            made.apart += len(mine[key].ids) + len(theirs[key].ids) - 2 * len(one.ids)
            made.pairs.append((one, other))
    return made


def _table(want: _Wanted, column: dict[int, int], values: Array, draws: Array, rows: NDArray[np.int64]) -> Laid:
    good: dict[tuple[str, str], Pair] = {}
    for pair in want.pairs:
        if all(u is None or not np.isnan(values[column[id(u)]]) for u in pair):
            good[pair[0].key] = pair
    folds, seeds = (list(dict.fromkeys(key[i] for key in good)) for i in (0, 1))
    mine, theirs = (np.full((len(folds), len(seeds)), np.nan) for _ in range(2))
    my_draws, their_draws = np.zeros((2, len(draws)))
    for (fold, name), (one, other) in good.items():
        at = folds.index(fold), seeds.index(name)
        mine[at] = values[column[id(one)]]
        theirs[at] = 0.0 if other is None else values[column[id(other)]]
    weights = weights_of(mine) if good else mine
    held: dict[str, int] = {}
    for (fold, name), (one, other) in good.items():
        weight = weights[folds.index(fold), seeds.index(name)]
        my_draws += weight * draws[:, column[id(one)]]
        if other is not None:
            their_draws += weight * draws[:, column[id(other)]]
        held[fold] = max(held.get(fold, 0), int(rows[column[id(one)]]))
    missing = want.missing + len(want.pairs) - len(good)
    if len(seeds) > 1 and all(np.allclose(t, t[:, :1], rtol=0, atol=_SAME) for t in (mine, theirs)):
        mine, theirs = mine[:, :1], theirs[:, :1]
    return Laid(mine, theirs, my_draws, their_draws, sum(held.values()), missing, want.apart)
