"""The units of a study's statistics: one trained model's predictions of the rows it was not trained on."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import AgblocksError

Array = NDArray[np.float64]
Groups = Mapping[Any, Sequence["Unit"]]


class UnitsError(AgblocksError):
    """Held-out rows that cannot be compared; the message says which, and why."""


@dataclass(frozen=True, eq=False)
class Unit:
    """Held-out rows of one fold as one model predicts them, for one target.

    Shapes: ids, observed and predicted (rows,). Rows that were not measured (NaN) count in nothing.
    Errors: `UnitsError` for lengths that differ, or a prediction that is not finite.
    """

    fold: str
    seed: str
    ids: Sequence[str]
    observed: NDArray
    predicted: NDArray

    def __post_init__(self) -> None:
        sizes = len(self.ids), len(self.observed), len(self.predicted)
        if len(set(sizes)) > 1 or np.ndim(self.observed) != 1 or np.ndim(self.predicted) != 1:
            raise UnitsError(
                f"{self}: {sizes[0]} ids, {sizes[1]} measurements, {sizes[2]} predictions; wanted one a row"
            )
        wrong = ~np.isnan(self.observed) & ~np.isfinite(self.predicted)
        if wrong.any():
            row = int(np.argmax(wrong))
            raise UnitsError(f"{self}: the prediction of row {self.ids[row]!r} is {self.predicted[row]}")

    def __str__(self) -> str:
        return f"fold {self.fold}, seed {self.seed}"

    @property
    def key(self) -> tuple[str, str]:
        return self.fold, self.seed

    @cached_property
    def rows(self) -> bytes:
        """What the rows are, apart from what is predicted: units with equal rows are resampled together."""
        text = "\n".join(self.ids).encode()
        return hashlib.sha1(text + np.ascontiguousarray(self.observed, np.float64).tobytes()).digest()

    def take(self, index: Sequence[int]) -> Unit:
        at = np.asarray(index, np.int64)
        return Unit(self.fold, self.seed, [self.ids[i] for i in at], self.observed[at], self.predicted[at])


def by_key(units: Sequence[Unit], name: Hashable) -> dict[tuple[str, str], Unit]:
    """Units by fold and seed. Errors: `UnitsError` where two say the same."""
    found: dict[tuple[str, str], Unit] = {}
    for unit in units:
        if unit.key in found:
            raise UnitsError(f"{name}: {unit} is there twice")
        found[unit.key] = unit
    return found


def aligned(one: Unit, other: Unit) -> tuple[Unit, Unit]:
    """Both on the rows that both have, in the first one's order; themselves where the rows are the same.

    Errors: `UnitsError` where ids repeat in rows that differ, or a row was measured otherwise in the other.
    """
    if one.rows == other.rows:
        return one, other
    for unit in (one, other):
        if len(set(unit.ids)) < len(unit.ids):
            raise UnitsError(f"{unit}: ids are there twice, so rows cannot be matched with those of another model")
    place = {name: i for i, name in enumerate(other.ids)}
    mine = [i for i, name in enumerate(one.ids) if name in place]
    theirs = [place[one.ids[i]] for i in mine]
    kept, matched = one.take(mine), other.take(theirs)
    apart = ~np.isclose(kept.observed, matched.observed, rtol=1e-5, atol=1e-6, equal_nan=True)
    if apart.any():
        row = int(np.argmax(apart))
        raise UnitsError(
            f"{one}: row {kept.ids[row]!r} was measured as {kept.observed[row]:.6g} for one model and as "
            f"{matched.observed[row]:.6g} for the other: these are not the same data"
        )
    return kept, Unit(matched.fold, matched.seed, kept.ids, kept.observed, matched.predicted)
