from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statistics_helpers import made, naive

from agblocks.studies.statistics import UnitsError, pareto, shares
from agblocks.studies.statistics.words import percent

few = st.one_of(st.none(), st.just(math.nan), st.integers(0, 4).map(float))


@given(st.lists(st.tuples(few, few), max_size=12))
def test_the_front_is_who_nobody_beats(points):
    found = pareto([c for c, _ in points], [v for _, v in points])
    known = [i for i, p in enumerate(points) if not any(x is None or math.isnan(x) for x in p)]
    for i, point in enumerate(points):
        beaten = any(
            points[j][0] <= point[0] and points[j][1] >= point[1] and points[j] != point for j in known if i in known
        )
        assert found[i] == (i in known and not beaten)


def test_the_front_wants_as_many_costs_as_values():
    with pytest.raises(UnitsError, match="2 costs for 1 values"):
        pareto([1, 2], [1])


def test_a_share_is_the_ratio_of_means_and_its_interval_holds_the_truth():
    """g1's correlation is brought to about half of g0's; the interval lies round the ratio of the true ones."""
    rng = np.random.default_rng(0)
    hits, true = 0, None
    for seed in range(20):
        units = made(2, rows=200, seed=seed)
        for unit in units["g1"]:
            unit.predicted[:] += 1.2 * rng.normal(size=200)
        found = shares(units, "g0", {"g0": 50.0, "g1": 10.0}, what="multiply-adds", resamples=200)["g1"]
        scores = {n: np.mean([naive("pearson", u.predicted, u.observed) for u in units[n]]) for n in units}
        assert found.share == pytest.approx(scores["g1"] / scores["g0"])
        assert found.cost_share == 0.2 and found.units == 6
        assert found.sentence.startswith(f"{percent(found.share)} [")
        assert found.sentence.endswith("] of the Pearson r at 20 % of the multiply-adds")
        spread = 0.6**2 + 0.5**2
        true = math.sqrt((spread + 0.6**2) / (spread + 0.6**2 + 1.2**2))
        hits += found.low <= true <= found.high
    assert hits >= 18


def test_no_share_is_stated_of_next_to_nothing():
    units = made(3)
    rng = np.random.default_rng(1)
    for unit in units["g0"]:
        unit.predicted[:] = rng.normal(size=60)
    found = shares(units, "g0")["g1"]
    assert math.isnan(found.share)
    assert found.sentence == "no share can be stated: the reference's own score is not clearly above zero"
    lone = {name: group[:1] for name, group in made(2).items()}
    assert shares(lone, "g0", {"g1": 1})["g1"].sentence.endswith("of the Pearson r (one unit: no interval)")
    assert shares({"a": lone["g0"], "b": []}, "a")["b"].sentence == "no share can be stated: no units in common"
    with pytest.raises(UnitsError, match="a share of 'mse' means nothing"):
        shares(units, "g0", metric="mse")
