from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statistics_helpers import made, naive

from agblocks.studies.statistics import Unit, UnitsError, means, paired
from agblocks.studies.statistics.family import half_width, simultaneous, two_sided
from agblocks.studies.statistics.resampling import resampled
from agblocks.studies.statistics.spread import mean_of, spread, weights_of
from agblocks.studies.statistics.words import number, percent
from agblocks.training.scores.resampled import draw_counts

# Scores and resamples


@pytest.mark.parametrize("metric", ["pearson", "spearman", "mse"])
def test_scores_and_resamples_are_those_of_rows_written_out(metric):
    units = [unit for group in made(2, folds=2, rows=17).values() for unit in group]
    observed = units[0].observed.copy()
    observed[3] = np.nan
    units[0] = replace(units[0], observed=observed)
    found = resampled(units, metric, 6, 4)
    for i, unit in enumerate(units):
        there = ~np.isnan(unit.observed)
        p, o = unit.predicted[there], unit.observed[there]
        assert found.rows[i] == len(o)
        assert found.values[i] == pytest.approx(naive(metric, p, o), abs=1e-12)
        rng = np.random.default_rng([4, int.from_bytes(unit.rows[:8], "big")])
        for times, value in zip(draw_counts(rng, len(o), 6).astype(int), found.draws[:, i], strict=True):
            assert value == pytest.approx(naive(metric, np.repeat(p, times), np.repeat(o, times)), abs=1e-10)


def test_resamples_of_a_unit_do_not_hang_on_the_others():
    groups = made(3)
    alone = resampled(groups["g1"], "pearson", 20, 0)
    among = resampled([*groups["g2"], *groups["g1"]], "pearson", 20, 0)
    np.testing.assert_allclose(alone.draws, among.draws[:, len(groups["g2"]) :], atol=1e-12)


# Where the variance comes from


@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**31))
def test_variances_are_those_of_the_formula(folds, seeds, seed):
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(folds, seeds))
    holes = rng.random(table.shape) < 0.2
    holes[:, 0] = False
    table[holes] = np.nan
    draws = rng.normal(size=50)
    found = spread(table, draws, 300)
    by_fold = [[v for v in row if not math.isnan(v)] for row in table.tolist()]
    fold_means = [sum(v) / len(v) for v in by_fold]
    mean = sum(fold_means) / folds
    assert mean_of(table) == pytest.approx(mean)
    assert np.nansum(weights_of(table) * np.where(holes, 0, table)) == pytest.approx(mean)
    rows = np.var(draws, ddof=1)
    assert found.rows == pytest.approx(rows)
    of_folds = sum((m - mean) ** 2 for m in fold_means) / (folds - 1) / folds if folds > 1 else rows
    assert found.folds == pytest.approx(of_folds)
    effects = [
        [row[s] - m for row, m in zip(table.tolist(), fold_means, strict=True) if not math.isnan(row[s])]
        for s in range(seeds)
    ]
    effects = [sum(e) / len(e) for e in effects if e]
    k = len(effects)
    of_seeds = sum(e**2 for e in effects) / (k * (k - 1)) if k > 1 else 0.0
    assert found.seeds == pytest.approx(of_seeds, abs=1e-15)
    below = rows**2 / 299 + of_folds**2 / (folds - 1 if folds > 1 else 299)
    below += of_seeds**2 / (k - 1) if k > 1 else 0
    assert found.freedom == pytest.approx((rows + of_folds + of_seeds) ** 2 / below)


def test_seeds_that_change_nothing_count_as_nothing():
    groups = made(2, seeds=1)
    again = {name: [replace(u, seed=str(s)) for u in units for s in range(5)] for name, units in groups.items()}
    once, often = paired(groups, "g0")["g1"], paired(again, "g0")["g1"]
    assert (once.units, often.units) == (3, 3)
    assert (once.mean, once.low, once.high) == pytest.approx((often.mean, often.low, often.high))


def test_t_intervals_are_those_of_scipy():
    assert half_width(0.3, 4.5, 0.95) == pytest.approx(stats.t(4.5).ppf(0.975) * 0.3)
    assert two_sided(-1.2, 0.5, 7) == pytest.approx(2 * stats.t(7).sf(2.4))
    assert two_sided(1.0, 0.0, 7) == 1


# Together


@pytest.mark.parametrize(("alike", "wanted"), [(False, lambda k: 1 - 0.95 ** (1 / k)), (True, lambda k: 0.05)])
def test_the_level_of_each_lies_where_theory_has_it(alike, wanted):
    """Independent comparisons: Šidák's. One comparison in many copies: no correction."""
    rng = np.random.default_rng(0)
    family = 20
    draws = rng.normal(size=(2000, 1 if alike else family)) * np.ones(family)
    adjusted, level = simultaneous(np.full(family, 0.02), draws, np.ones(family), 0.95, 0)
    assert 1 - level == pytest.approx(wanted(family), rel=0.15)
    assert adjusted[0] == pytest.approx(0.02 if alike else 1 - 0.98**family, rel=0.1)


def test_what_does_not_come_from_rows_counts_as_independent():
    draws = np.random.default_rng(0).normal(size=(1000, 1)) * np.ones(10)
    _, all_rows = simultaneous(np.full(10, 0.5), draws, np.ones(10), 0.95, 0)
    _, half = simultaneous(np.full(10, 0.5), draws, np.full(10, 0.5), 0.95, 0)
    _, none = simultaneous(np.full(10, 0.5), draws, np.zeros(10), 0.95, 0)
    assert all_rows < half < none


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=30), st.integers(0, 2**31))
@settings(max_examples=30)
def test_corrected_is_never_beyond_bonferroni_nor_before_nothing(p, seed):
    p = np.array(p)
    draws = np.random.default_rng(seed).normal(size=(40, len(p)))
    adjusted, level = simultaneous(p, draws, np.ones(len(p)), 0.95, seed)
    assert 0.05 / len(p) - 1e-12 <= 1 - level <= 0.05 + 1e-12
    assert (adjusted >= p - 1e-12).all()
    assert (adjusted <= np.maximum(np.minimum(1, p * len(p)), 0.0500001) + 1e-12).all()
    assert ((adjusted <= 0.05) == (p < 1 - level)).all() or len(p) == 1
    assert (np.diff(adjusted[np.argsort(p)]) >= -1e-12).all()


# Differences


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 3), st.floats(-0.5, 0.5), st.integers(0, 2**31))
@settings(max_examples=40)
def test_nothing_is_called_better_whose_interval_covers_zero(groups, folds, seeds, gain, seed):
    units = made(groups, folds, seeds, 40, seed, {1: gain}, own=0.05)
    for metric, sign in (("pearson", 1), ("mse", -1)):
        found = paired(units, "g0", metric=metric, resamples=100)
        assert list(found) == [f"g{i}" for i in range(1, groups)]
        for d in found.values():
            scores = [
                naive(metric, a.predicted, a.observed) - naive(metric, b.predicted, b.observed)
                for a, b in zip(units[d.group], units["g0"], strict=True)
            ]
            assert d.mean == pytest.approx(np.mean(scores))
            assert d.units == folds * seeds and d.family == (groups - 1 if folds * seeds > 1 else 0)
            if d.units < 2:
                assert d.verdict == "few" and d.sentence == "too few units: 1"
                assert math.isnan(d.low) and math.isnan(d.p)
                continue
            assert d.low <= d.alone[0] <= d.mean <= d.alone[1] <= d.high
            clear = not d.low <= 0 <= d.high
            assert clear == (d.adjusted <= 0.05 if d.family > 1 else d.p < 0.05)
            assert d.verdict == ("none" if not clear else "better" if sign * d.mean > 0 else "worse")
            assert d.sentence.startswith({"none": "no difference can be shown: "}.get(d.verdict, f"{d.verdict} by 0"))
            assert json.loads(json.dumps(d.to_dict()))["sentence"] == d.sentence


def test_turning_a_comparison_round_turns_its_sign():
    units = made(2, gains={1: 0.4})
    one, other = paired(units, "g0")["g1"], paired(units, "g1")["g0"]
    assert (one.verdict, other.verdict) == ("better", "worse")
    assert (one.mean, one.low, one.high) == pytest.approx((-other.mean, -other.high, -other.low))
    assert one.sentence.removeprefix("better") == other.sentence.removeprefix("worse")


def test_order_and_scale_change_nothing():
    units = made(3, gains={1: 0.3})
    before = paired(units, "g0")
    turned = {
        name: [replace(u, predicted=3 * u.predicted - 5) for u in reversed(units[name])] for name in reversed(units)
    }
    after = paired(turned, "g0")
    for name, d in before.items():
        assert (d.mean, d.low, d.high) == pytest.approx((after[name].mean, after[name].low, after[name].high), rel=0.02)
        assert d.alone == pytest.approx(after[name].alone)
    assert paired(units, "g0") == before


def test_more_comparisons_widen_each():
    units = made(12, gains={1: 0.3})
    two, all_of_them = paired(units, {"g1": "g0"})["g1"], paired(units, "g0")["g1"]
    assert two.alone == pytest.approx((two.low, two.high))
    assert two.alone == pytest.approx(all_of_them.alone)
    assert all_of_them.high - all_of_them.low > 1.1 * (two.high - two.low)
    assert all_of_them.adjusted > two.adjusted == two.p


def test_each_may_have_a_reference_of_its_own():
    turned = made(2, rows=300, seed=1, gains={0: 0.6})
    units = {**made(2, rows=300, gains={1: 0.6}), "h0": turned["g0"], "h1": turned["g1"]}
    found = paired(units, {"g1": "g0", "h1": "h0"})
    assert [d.verdict for d in found.values()] == ["better", "worse"]
    assert found["h1"].reference == "h0"


def test_a_group_that_predicts_the_same_does_not_differ():
    units = made(1)
    d = paired({**units, "twin": units["g0"]}, "g0")["twin"]
    assert (d.mean, d.low, d.high, d.p, d.verdict) == (0, 0, 0, 1, "none")
    assert d.sentence == "no difference can be shown: 0.000 [0.000, 0.000]"


def test_missing_units_are_paired_away_and_counted():
    units = made(2, gains={1: 0.2})
    units["g1"] = units["g1"][1:]
    units["g0"] = [u for u in units["g0"] if u.key != ("2", "1")]
    flat = units["g1"][0]
    units["g1"][0] = replace(flat, predicted=np.ones_like(flat.predicted))
    d = paired(units, "g0")["g1"]
    assert (d.units, d.missing, d.folds, d.seeds) == (3, 3, 2, 2)
    assert d.caveats == ("3 units are missing from one of the two and left out",)
    assert d.mean == pytest.approx(
        np.mean([
            np.mean([naive("pearson", a.predicted, a.observed) - naive("pearson", b.predicted, b.observed)
                     for a in units["g1"] for b in units["g0"] if a.key == b.key and a.fold == fold and a is not units["g1"][0]])
            for fold in "12"
        ])
    )  # fmt: skip
    gone = paired({"g0": units["g0"], "g1": []}, "g0")["g1"]
    assert (gone.units, gone.sentence) == (0, "too few units: 0")
    assert math.isnan(gone.mean) and gone.to_dict()["mean"] is None


def test_rows_that_only_one_has_are_left_out_and_order_does_not_matter():
    units = made(2)
    turn = np.random.default_rng(0).permutation(60)
    units["g1"] = [u.take(turn[:50]) for u in units["g1"]]
    d = paired(units, "g0")["g1"]
    assert d.rows == 150 and d.caveats == ("60 rows are in one of the two only and left out",)
    same = {"g0": [u.take(turn[:50]) for u in units["g0"]], "g1": units["g1"]}
    assert paired(same, "g0")["g1"].mean == pytest.approx(d.mean)


def test_one_fold_or_seed_is_said():
    one_fold = paired(made(2, folds=1, seeds=3), "g0")["g1"]
    assert "one fold" in one_fold.caveats[0] and len(one_fold.caveats) == 1
    assert "one seed" in paired(made(2, seeds=1), "g0")["g1"].caveats[0]
    assert not paired(made(2), "g0")["g1"].caveats


def test_what_cannot_be_compared_is_refused():
    units = made(2)
    first = units["g1"][0]
    with pytest.raises(UnitsError, match="there is no group 'g7' to compare"):
        paired(units, "g7")
    with pytest.raises(UnitsError, match="g1: fold 0, seed 0 is there twice"):
        paired({**units, "g1": [first, first]}, "g0")
    with pytest.raises(UnitsError, match="row 'f0r3' was measured as"):
        changed = first.observed.copy()
        changed[3] += 1
        paired({**units, "g1": [replace(first, observed=changed)]}, "g0")
    with pytest.raises(UnitsError, match="ids are there twice"):
        paired({**units, "g1": [replace(first, ids=["a"] * 60)]}, "g0")
    with pytest.raises(UnitsError, match="the prediction of row 'b' is nan"):
        Unit("0", "0", ["a", "b"], np.ones(2), np.array([1, np.nan]))
    with pytest.raises(UnitsError, match="2 ids, 3 measurements, 2 predictions"):
        Unit("0", "0", ["a", "b"], np.ones(3), np.ones(2))
    with pytest.raises(UnitsError, match="there is no metric 'person'"):
        paired(units, "g0", metric="person")
    with pytest.raises(UnitsError, match="level is 95"):
        paired(units, "g0", level=95)


# Means


def test_a_mean_has_an_interval_by_the_same_rule():
    units = made(2)
    found = means(units, level=0.9)
    for name, mean in found.items():
        table = np.array([naive("pearson", u.predicted, u.observed) for u in units[name]]).reshape(3, 2)
        drawn = resampled(units[name], "pearson", 1000, 0).draws.mean(axis=1)
        wanted = spread(table, drawn, 180)
        assert mean.mean == pytest.approx(table.mean())
        assert mean.high - mean.mean == pytest.approx(half_width(wanted.error, wanted.freedom, 0.9))
        assert (mean.units, mean.folds, mean.seeds, mean.rows) == (6, 3, 2, 180)
    single = means({"a": units["g0"][:1]})["a"]
    assert single.units == 1 and math.isnan(single.low) and not math.isnan(single.mean)


# Words


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ((0.03111, 0.0122, 0.0499), ("0.031", "0.012", "0.050")),
        ((-0.0041, -0.0202, 0.0104), ("-0.004", "-0.020", "0.010")),
        ((0.00052, 0.00031, 0.00073), ("0.00052", "0.00031", "0.00073")),
        ((0.02, 0.0002, 0.0398), ("0.0200", "0.0002", "0.0398")),
        ((0.0, 0.0, 0.0), ("0.000", "0.000", "0.000")),
        ((-1e-12, -0.01, 0.01), ("0.000", "-0.010", "0.010")),
        ((12.0, 11.0, 13.0), ("12.000", "11.000", "13.000")),
    ],
)
def test_numbers_have_the_digits_of_their_interval(values, wanted):
    assert number(values) == wanted


@pytest.mark.parametrize(("share", "wanted"), [(0.97, "97 %"), (0.2, "20 %"), (0.034, "3 %"), (0.0012, "0.1 %"), (1.3, "130 %"), (0, "0 %")])  # fmt: skip
def test_shares_are_said_in_per_cent(share, wanted):
    assert percent(share) == wanted
