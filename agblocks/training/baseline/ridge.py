"""Ridge regression in closed form, its penalty chosen on validation rows: of any features, or of counts of k-mers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...data import Construct, Splits, Table, inserts
from ..errors import RunError
from .kmers import kmer_counts
from .penalty import Search
from .spectrum import Spectrum, Standard, matrix

Array = NDArray[np.float64]
ALPHAS = tuple(float(a) for a in np.logspace(2, 6, 9))
PENALTIES = tuple(float(a) for a in np.logspace(-1, 6, 15))


@dataclass(frozen=True)
class RidgeProbe:
    """A ridge regression for each target, and how its penalty was chosen.

    Shapes: weight (features, targets) of standardised features, bias (targets,), curve (penalties tried, targets):
    Pearson on the validation rows. `penalties` are those chosen, one a target; `notes` say what to know about them.
    """

    penalties: tuple[float, ...]
    valid_pearson: tuple[float, ...]
    tried: tuple[float, ...]
    curve: Array = field(repr=False)
    notes: tuple[str, ...]
    standard: Standard = field(repr=False)
    weight: Array = field(repr=False)
    bias: Array = field(repr=False)

    def predict(self, x: ArrayLike) -> Array:
        """Shapes: (rows, features) -> (rows, targets). Errors: `RunError` for other features than were fitted."""
        rows = matrix(x, "features")
        if rows.shape[1] != len(self.weight):
            raise RunError(f"{rows.shape[1]} features, but the ridge was fitted to {len(self.weight)}")
        return self.standard(rows) @ self.weight + self.bias


@dataclass(frozen=True)
class Ridge:
    """A fitted baseline on counts of k-mers."""

    k: int
    construct: Construct | None
    probe: RidgeProbe = field(repr=False)

    @property
    def alphas(self) -> tuple[float, ...]:
        """The penalty chosen for each target."""
        return self.probe.penalties

    @property
    def valid_pearson(self) -> tuple[float, ...]:
        return self.probe.valid_pearson

    def predict(self, table: Table) -> Array:
        """Shapes: n rows -> (n, targets)."""
        return self.probe.predict(kmer_counts(inserts(table, self.construct), self.k))


def fit_ridge_features(
    x_train: ArrayLike,
    y_train: ArrayLike,
    x_valid: ArrayLike,
    y_valid: ArrayLike,
    penalties: Sequence[float] = PENALTIES,
    *,
    widen: bool = True,
    names: Sequence[str] | None = None,
) -> RidgeProbe:
    """Ridge for every target at every penalty; for each the penalty whose validation predictions correlate best.

    Features are standardised on the training rows, the targets' means are fitted and not penalised. Rows without a
    target's measurement (NaN) are left out of its fit; targets measured on the same rows share one decomposition, by
    features or by rows, whichever are fewer. Penalties whose Pearson differ by less than 1e-6 are a tie: the one with
    the least squared error wins, then the largest. Where the best lies at an end of the grid, the grid is `widen`ed by
    its own step, up to six decades, and not beyond where a penalty changes nothing but the predictions' scale; `notes`
    say so, and also where the end was reached.

    Shapes: x (rows, features), y (rows, targets) or (rows,).
    Errors: `RunError` for shapes that do not fit, features that are not finite, penalties that are not positive, no
    validation rows, or a target with fewer than 3 measured rows in a part.
    Costs: min(rows, features) cubed once for each set of measured rows; a penalty more is almost free.
    Use when: asking how much of a measurement is linear in features of a frozen model.
    """
    grid = sorted({float(p) for p in penalties})
    if not grid or not all(0 < p < np.inf for p in grid):
        raise RunError(f"penalties should be positive numbers, found {list(penalties)}")
    x, held = matrix(x_train, "x_train"), matrix(x_valid, "x_valid")
    y, wanted = _targets(y_train, "y_train"), _targets(y_valid, "y_valid")
    if not len(held):
        raise RunError("the ridge chooses its penalty on the validation rows, but there are none")
    shapes = {"x_train": x.shape, "y_train": y.shape, "x_valid": held.shape, "y_valid": wanted.shape}
    if x.shape[1] != held.shape[1] or len(x) != len(y) or len(held) != len(wanted) or y.shape[1] != wanted.shape[1]:
        told = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise RunError(f"features and targets do not fit together: {told}")
    names = [f"target{i + 1}" for i in range(y.shape[1])] if names is None else list(names)
    has, holds = ~np.isnan(y), ~np.isnan(wanted)
    for i, name in enumerate(names):
        if has[:, i].sum() < 3 or holds[:, i].sum() < 3:
            raise RunError(f"target {name!r}: fewer than 3 measured rows in training or validation")
    standard = Standard.of(x)
    alike: dict[bytes, list[int]] = {}
    for i in range(y.shape[1]):
        alike.setdefault(has[:, i].tobytes(), []).append(i)
    weight, bias = np.zeros((x.shape[1], y.shape[1])), np.zeros(y.shape[1])
    found: dict[int, Search] = {}
    for columns in alike.values():
        rows = has[:, columns[0]]
        measured = x if rows.all() else x[rows]
        spectrum = Spectrum.of(measured, standard)
        means = y[rows][:, columns].mean(axis=0)
        loads = spectrum.loads(measured, y[rows][:, columns] - means)
        seen = spectrum.seen(held)
        for column, load, mean in zip(columns, loads.T, means, strict=True):
            there = holds[:, column]
            search = Search(spectrum.values, load, seen[there], wanted[there, column] - mean).run(grid, widen)
            weight[:, column] = spectrum.coefficients(load, search.best)
            bias[column] = mean - spectrum.middle @ weight[:, column]
            found[column] = search
    searches = [found[i] for i in range(y.shape[1])]
    chosen = tuple(s.best for s in searches)
    tried = tuple(sorted({p for s in searches for p in s.pearson}))
    curve = np.array([[s.pearson.get(p, np.nan) for s in searches] for p in tried])
    notes = tuple(f"{name}: {told}" for name, s in zip(names, searches, strict=True) if (told := s.note(grid)))
    reached = tuple(s.pearson[p] for s, p in zip(searches, chosen, strict=True))
    return RidgeProbe(chosen, reached, tried, curve, notes, standard, weight, bias)


def fit_ridge(
    table: Table,
    splits: Splits,
    *,
    k: int = 6,
    alphas: Sequence[float] = ALPHAS,
    construct: Construct | None = None,
) -> Ridge:
    """Ridge on counts of k-mers of the inserts: what any network has to beat.

    Fitted on the training rows; the penalty of each target is chosen on the validation rows, as `fit_ridge_features`
    does on whatever features.
    Errors: `RunError` without validation rows, or with fewer than 3 measured rows in a part.
    Use when: saying how good a network is; the same table and splits go to both.
    """
    if not len(splits.valid):
        raise RunError("the ridge baseline chooses alpha on the validation rows, but there are none")
    # Without a construct, `inserts` takes off the ends that all rows share: one answer for the whole table.
    if construct is None:
        construct = Construct()
    texts = inserts(table, construct)
    train, valid = (kmer_counts([texts[i] for i in rows], k) for rows in (splits.train, splits.valid))
    y, held = table.targets[splits.train], table.targets[splits.valid]
    return Ridge(k, construct, fit_ridge_features(train, y, valid, held, alphas, names=table.target_names))


def _targets(y: ArrayLike, name: str) -> Array:
    made = np.asarray(y, np.float64)
    made = made[:, None] if made.ndim == 1 else made
    if made.ndim != 2:
        raise RunError(f"{name} should be (rows, targets), but is {list(made.shape)}")
    if np.isinf(made).any():
        raise RunError(f"{name}: row {int(np.argwhere(np.isinf(made))[0][0])} is infinite")
    return made
