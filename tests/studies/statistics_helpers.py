"""Studies made by hand, and scores by scipy."""

from __future__ import annotations

import itertools

import numpy as np
from scipy import stats

from agblocks.studies.statistics import Unit


def made(groups, folds=3, seeds=2, rows=60, seed=0, gains=None, own=0.0, shared=0.0):
    """Units of groups that predict the same rows; `gains` make a group better. `own`, `shared`: see below.

    own: how much a unit's skill varies by itself; shared: how much a seed's does, in all folds.
    """
    rng = np.random.default_rng(seed)
    observed = [rng.normal(size=rows) for _ in range(folds)]
    common = [rng.normal(size=rows) for _ in range(folds)]
    found = {}
    for g in range(groups):
        skill = shared * rng.normal(size=seeds)
        units = []
        for f, s in itertools.product(range(folds), range(seeds)):
            r = 0.6 + skill[s] + own * rng.normal() + (gains or {}).get(g, 0.0)
            predicted = r * observed[f] + 0.5 * common[f] + 0.6 * rng.normal(size=rows)
            units.append(Unit(str(f), str(s), [f"f{f}r{i}" for i in range(rows)], observed[f], predicted))
        found[f"g{g}"] = units
    return found


def naive(metric, p, o):
    return {"pearson": lambda: stats.pearsonr(p, o).statistic, "spearman": lambda: stats.spearmanr(p, o).statistic,
            "mse": lambda: np.mean((p - o) ** 2)}[metric]()  # fmt: skip
