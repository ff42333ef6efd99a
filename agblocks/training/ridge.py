"""The baseline that any network has to beat: ridge regression on counts of k-mers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Construct, Splits, Table, encode, inserts
from .errors import RunError
from .metrics import pearson

ALPHAS = tuple(float(a) for a in np.logspace(2, 6, 9))


def kmer_counts(sequences: Sequence[str], k: int) -> NDArray[np.float32]:
    """How often each k-mer stands on either strand of each sequence; a k-mer and its reverse complement are one.

    Shapes: n sequences -> (n, (4**k + palindromes) / 2): 2,080 for k = 6. k-mers with an N or another ambiguity
    letter are not counted.
    """
    if not 1 <= k <= 8:
        raise RunError(f"k is {k}, wanted 1 to 8")
    code = np.arange(4**k)
    other = np.zeros_like(code)
    for place in range(k):
        other += (3 - code // 4**place % 4) * 4 ** (k - 1 - place)
    _, column = np.unique(np.minimum(code, other), return_inverse=True)
    width = int(column.max()) + 1
    out = np.zeros((len(sequences), width), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        codes = encode(sequence)[0].astype(np.int64)
        if len(codes) < k:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(codes, k)
        clean = windows[(windows < 4).all(axis=1)]
        words = clean @ (4 ** np.arange(k - 1, -1, -1))
        out[row] = np.bincount(column[words], minlength=width)
    return out


@dataclass(frozen=True)
class Ridge:
    """A fitted baseline: one ridge regression a target, and what chose its alpha."""

    k: int
    alphas: tuple[float, ...]  # chosen, one a target
    valid_pearson: tuple[float, ...]
    construct: Construct | None
    models: tuple[Any, ...] = field(repr=False)
    scaler: Any = field(repr=False)

    def predict(self, table: Table) -> NDArray[np.float64]:
        """Shapes: n rows -> (n, targets)."""
        counts = self.scaler.transform(kmer_counts(inserts(table, self.construct), self.k))
        return np.stack([model.predict(counts) for model in self.models], axis=1).astype(np.float64)


def fit_ridge(
    table: Table,
    splits: Splits,
    *,
    k: int = 6,
    alphas: Sequence[float] = ALPHAS,
    construct: Construct | None = None,
) -> Ridge:
    """Fit on the training rows, choose alpha for each target by Pearson on the validation rows.

    Counts are taken on the inserts and standardised on the training rows. Rows without a target's measurement are
    left out of its fit.
    Errors: `RunError` without validation rows, or with fewer than 3 measured rows in a part.
    Use when: saying how good a network is; the same table and splits go to both.
    """
    from sklearn.linear_model import Ridge as Regression
    from sklearn.preprocessing import StandardScaler

    if not len(splits.valid):
        raise RunError("the ridge baseline chooses alpha on the validation rows, but there are none")
    # Without a construct, `inserts` takes off the ends that all rows share: one answer for the whole table.
    if construct is None:
        construct = Construct()
    texts = inserts(table, construct)
    scaler = StandardScaler()
    train = scaler.fit_transform(kmer_counts([texts[i] for i in splits.train], k))
    valid = scaler.transform(kmer_counts([texts[i] for i in splits.valid], k))
    models, chosen, reached = [], [], []
    for i, name in enumerate(table.target_names):
        y, held = table.targets[splits.train, i].astype(float), table.targets[splits.valid, i].astype(float)
        has, holds = ~np.isnan(y), ~np.isnan(held)
        if has.sum() < 3 or holds.sum() < 3:
            raise RunError(f"target {name!r}: fewer than 3 measured rows in training or validation")
        best: tuple[float, float, Any] | None = None
        for alpha in alphas:
            model = Regression(alpha=alpha).fit(train[has], y[has])
            r = pearson(model.predict(valid[holds]).astype(np.float64), held[holds])
            if best is None or r > best[0]:
                best = (r, alpha, model)
        assert best is not None
        reached.append(best[0])
        chosen.append(best[1])
        models.append(best[2])
    return Ridge(k, tuple(chosen), tuple(reached), construct, tuple(models), scaler)
