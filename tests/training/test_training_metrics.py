from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from agblocks.training import RunError, Score, score
from agblocks.training.scores.metrics import _bootstrap, ranks

# Whole numbers: ties are common, and no spread is so small that rounding decides.
columns = st.integers(3, 30).flatmap(
    lambda n: st.tuples(*[hnp.arrays(np.float64, n, elements=st.integers(-9, 9).map(float)) for _ in range(2)])
)


@given(columns, st.integers(0, 3))
def test_scores_are_those_of_scipy_on_all_rows_with_a_measurement(pair, holes):
    predicted, observed = pair
    observed = observed.copy()
    observed[:holes] = np.nan
    there = ~np.isnan(observed)
    p, o = predicted[there], observed[there]
    made = score(predicted, observed)[0]
    assert made.n == there.sum()
    if made.n:
        assert made.mse == pytest.approx(np.mean([(a - b) ** 2 for a, b in zip(p, o, strict=True)]))
    if made.n < 3 or np.ptp(p) == 0 or np.ptp(o) == 0:
        assert math.isnan(made.pearson)
        assert math.isnan(made.spearman)
        assert made.reason
    else:
        assert made.pearson == pytest.approx(stats.pearsonr(p, o).statistic, abs=1e-9)
        assert made.spearman == pytest.approx(stats.spearmanr(p, o).statistic, abs=1e-9)
        assert not made.reason


@given(hnp.arrays(np.float64, st.integers(1, 40), elements=st.integers(-5, 5).map(float)))
def test_ranks_are_those_of_scipy(values):
    np.testing.assert_allclose(ranks(values), stats.rankdata(values))


@given(columns, st.integers(0, 2**32))
def test_bootstrap_is_the_naive_one_on_the_same_draws(pair, seed):
    p, o = pair
    assume(np.ptp(p) > 0 and np.ptp(o) > 0)
    made = _bootstrap(p, o, 5, seed)
    drawn = np.random.default_rng(seed).integers(len(p), size=(5, len(p)))
    for row, found in zip(drawn, made, strict=True):
        a, b = p[row], o[row]
        assert found[2] == pytest.approx(np.mean((a - b) ** 2))
        if np.ptp(a) > 0 and np.ptp(b) > 0:
            assert found[0] == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-9)
            assert found[1] == pytest.approx(stats.spearmanr(a, b).statistic, abs=1e-9)


def test_intervals_are_seeded_and_hold_the_score():
    rng = np.random.default_rng(0)
    o = rng.normal(size=(300, 2))
    p = o + rng.normal(size=o.shape)
    first, again, other = (score(p, o, bootstrap=300, seed=s) for s in (1, 1, 2))
    assert first == again
    assert first != other
    for s in first:
        for value, (low, high) in (
            (s.pearson, s.pearson_interval),
            (s.spearman, s.spearman_interval),
            (s.mse, s.mse_interval),
        ):
            assert low < value < high
            assert high - low < 0.6


def test_pooled_is_not_the_mean_of_batches():
    o = np.array([0.0, 1, 2, 10, 11, 12])
    p = np.array([2.0, 1, 0, 12, 11, 10])
    assert score(p, o)[0].pearson > 0.9
    assert score(p[:3], o[:3])[0].pearson == pytest.approx(-1)


@pytest.mark.parametrize(
    ("predicted", "observed", "reason"),
    [
        ([1, 1, 1], [1, 2, 3], "all predictions are 1"),
        ([1, 2, 3], [5, 5, 5], "all measurements are 5"),
        ([1, 2, 3], [1, np.nan, 2], "2 rows; a correlation wants at least 3"),
        ([1, 2], [np.nan, np.nan], "0 rows; a correlation wants at least 3"),
        ([1, 1 + 1e-7, 1], [1, 2, 3], "all predictions are 1"),
    ],
)
def test_no_correlation_says_why(predicted, observed, reason):
    made = score(predicted, observed, ["a"], bootstrap=10)[0]
    assert made.reason == reason
    assert math.isnan(made.pearson)
    assert Score.from_dict(made.to_dict()).reason == reason


def test_bad_input_is_refused():
    with pytest.raises(RunError, match=r"predictions are \[3\] and measurements \[2\]"):
        score([1, 2, 3], [1, 2])
    with pytest.raises(RunError, match="the prediction of row 1 is nan"):
        score([1, np.nan, 3], [1, 2, 3])
    assert score([1, np.nan, 3], [1, np.nan, 3])[0].n == 2  # not measured, so not scored
