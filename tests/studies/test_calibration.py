"""Whether the statistics keep what they promise, on studies made where the truth is known."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from agblocks.studies.statistics import Unit, paired


def allowed(studies, level=0.95, sure=0.999):
    """The most false claims that `studies` may make: what chance alone exceeds once in a thousand."""
    return stats.binom(studies, 1 - level).ppf(sure)


def drawn(rng, groups, folds, seeds, rows, own=0.0, shared=0.0, by_fold=0.0, gain=0.0):
    """A study of ways that are equally good, but for the last, which is better by `gain` in skill.

    own, shared, by_fold: how much skill varies by the unit, by the seed in all folds, by the fold's training set.
    """
    observed = rng.normal(size=(folds, rows))
    common = rng.normal(size=(folds, rows))
    ids = [[f"f{f}r{i}" for i in range(rows)] for f in range(folds)]
    found = {}
    for g in range(groups):
        of_seed, of_fold = shared * rng.normal(size=seeds), by_fold * rng.normal(size=folds)
        units = []
        for f, s in itertools.product(range(folds), range(seeds)):
            skill = 0.7 + of_seed[s] + of_fold[f] + own * rng.normal() + gain * (g == groups - 1)
            predicted = skill * observed[f] + 0.6 * common[f] + 0.6 * rng.normal(size=rows)
            units.append(Unit(str(f), str(s), ids[f], observed[f], predicted))
        found[g] = units
    return found


# What makes units differ: rows alone, each unit by itself, seeds that all folds share, training sets.
SOURCES = {
    "rows": {},
    "units": {"own": 0.15},
    "seeds": {"shared": 0.15},
    "folds": {"by_fold": 0.1},
    "all": {"own": 0.1, "shared": 0.1, "by_fold": 0.05},
}


@pytest.mark.parametrize("source", SOURCES)
def test_equal_ways_are_rarely_called_different(source):
    rng = np.random.default_rng(0)
    studies, false = 40, 0
    for i in range(studies):
        found = paired(drawn(rng, 8, 3, 3, 80, **SOURCES[source]), 0, resamples=100, seed=i)
        false += any(d.verdict != "none" for d in found.values())
    assert false <= allowed(studies)


def test_a_real_difference_is_found_and_the_others_are_not():
    rng = np.random.default_rng(1)
    studies, found_it, false = 30, 0, 0
    for i in range(studies):
        found = paired(drawn(rng, 8, 5, 2, 300, gain=0.5), 0, resamples=200, seed=i)
        found_it += found[7].verdict == "better"
        false += any(d.verdict != "none" for g, d in found.items() if g != 7)
        assert found[7].verdict != "worse"
    assert found_it >= 0.9 * studies
    assert false <= allowed(studies)


def test_uncorrected_intervals_would_call_equal_ways_different():
    """The correction is what keeps the promise: without it a large family does not."""
    rng = np.random.default_rng(2)
    studies, single, corrected = 12, 0, 0
    for i in range(studies):
        found = paired(drawn(rng, 200, 5, 1, 40), {g: g + 100 for g in range(100)}, resamples=200, seed=i)
        single += any(not d.alone[0] <= 0 <= d.alone[1] for d in found.values())
        corrected += any(d.verdict != "none" for d in found.values())
    assert single > allowed(studies) >= corrected


def learned(rng, rows, held_folds, seeds, groups, crossed):
    """Ridge on exchangeable features of one data set, as studies do it: folds share training rows.

    Each group has features of its own that matter as much as any other group's, so all are equal in expectation, and
    a seed is a random projection of them, drawn for a fold or (`crossed`) once for all folds.
    """
    width, kept, folds = 30, 20, 10
    x = rng.normal(size=(groups, rows, width))
    weights = rng.normal(size=(groups, width))
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    y = np.einsum("gnp,gp->n", x, weights) + rng.normal(size=rows)
    fold = np.arange(rows) % folds
    projections = rng.normal(size=(groups, seeds, width, kept))
    found = {}
    for g in range(groups):
        units = []
        for f, s in itertools.product(range(held_folds), range(seeds)):
            test, train = fold == f, (fold != f) & (fold != (f + 1) % folds)
            seen = x[g] @ (projections[g, s] if crossed else rng.normal(size=(width, kept)))
            t = seen[train]
            fitted = np.linalg.solve(t.T @ t + 100 * np.eye(kept), t.T @ (y[train] - y[train].mean()))
            ids = [str(i) for i in np.flatnonzero(test)]
            units.append(Unit(str(f), str(s), ids, y[test], seen[test] @ fitted))
        found[g] = units
    return found


@pytest.mark.slow
@pytest.mark.parametrize("held_folds", [1, 3, 10])
@pytest.mark.parametrize("crossed", [False, True])
def test_equal_learners_are_rarely_called_different(held_folds, crossed):
    """Real fits on overlapping training sets; with one fold the seeds must be shared by it anyway."""
    rng = np.random.default_rng(3)
    studies, false = 120, 0
    for i in range(studies):
        found = paired(learned(rng, 600, held_folds, 3, 5, crossed), 0, resamples=200, seed=i)
        false += any(d.verdict != "none" for d in found.values())
    print(f"{held_folds} folds, crossed {crossed}: {false} of {studies}")
    assert false <= allowed(studies)
