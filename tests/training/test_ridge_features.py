from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge as Regression
from sklearn.preprocessing import StandardScaler

from agblocks.training import RunError
from agblocks.training.baseline.ridge import PENALTIES, fit_ridge_features
from agblocks.training.baseline.spectrum import Spectrum, Standard


def made(rows, features, targets=1, held=20, seed=0, noise=1.0, dtype=np.float64):
    """Features on scales of their own and far from zero, targets linear in them, with noise."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(features, features)) * np.logspace(-1, 2, features)
    x = rng.normal(size=(rows + held, features)) @ mixed + 30 * rng.normal(size=features)
    x = x.astype(dtype)
    y = x @ rng.normal(size=(features, targets)) / np.sqrt(features)
    y = y / y.std(axis=0) + noise * rng.normal(size=y.shape) + 7
    return x[:rows], y[:rows], x[rows:], y[rows:]


def by_scikit(x, y, held, penalty):
    """One target, rows without a measurement left out of its fit."""
    scaler = StandardScaler().fit(x)
    has = ~np.isnan(y)
    model = Regression(alpha=penalty, solver="svd").fit(scaler.transform(x)[has], y[has])
    return model.predict(scaler.transform(held))


@given(
    st.integers(5, 60), st.integers(1, 90), st.integers(1, 3), st.sampled_from([0.01, 1.0, 30.0, 1e4]),
    st.integers(0, 2**31),
)  # fmt: skip
@settings(max_examples=60)
def test_predictions_are_those_of_scikit_learn(rows, features, targets, penalty, seed):
    x, y, held, wanted = made(rows, features, targets, seed=seed)
    holes = np.random.default_rng(seed).random(y.shape) < 0.3
    holes[:4] = False
    y = np.where(holes, np.nan, y)
    found = fit_ridge_features(x, y, held, wanted, [penalty], widen=False)
    for i in range(targets):
        oracle = by_scikit(x, y[:, i], held, penalty)
        np.testing.assert_allclose(found.predict(held)[:, i], oracle, atol=1e-8, rtol=1e-8)
        assert found.valid_pearson[i] == pytest.approx(np.corrcoef(oracle, wanted[:, i])[0, 1], abs=1e-8)


@pytest.mark.parametrize(("rows", "features"), [(80, 30), (30, 80)])
def test_the_penalty_is_the_best_of_scikit_learns_on_validation_rows(rows, features):
    for seed in range(8):
        x, y, held, wanted = made(rows, features, 2, seed=seed, noise=2)
        found = fit_ridge_features(x, y, held, wanted, widen=False)
        for i in range(2):
            oracle = [np.corrcoef(by_scikit(x, y[:, i], held, p), wanted[:, i])[0, 1] for p in PENALTIES]
            np.testing.assert_allclose(found.curve[:, i], oracle, atol=1e-8)
            assert found.valid_pearson[i] >= max(oracle) - 1e-6


def test_each_target_is_fitted_as_if_it_were_alone():
    x, y, held, wanted = made(50, 20, 3)
    y[::3, 1] = np.nan
    wanted[::4, 2] = np.nan
    together = fit_ridge_features(x, y, held, wanted)
    for i in range(3):
        alone = fit_ridge_features(x, y[:, i], held, wanted[:, i])
        assert alone.penalties == together.penalties[i : i + 1]
        np.testing.assert_allclose(alone.predict(held)[:, 0], together.predict(held)[:, i], atol=1e-9)


def test_by_rows_and_by_features_are_one_answer():
    """The same features, and as many again that say nothing (constant), which turns the decomposition round."""
    x, y, held, wanted = made(40, 30)
    wide, held_wide = (np.hstack([part, np.full((len(part), 60), 3.25)]) for part in (x, held))
    assert Spectrum.of(x, Standard.of(x)).rows is None
    assert Spectrum.of(wide, Standard.of(wide)).rows is not None
    narrow, broad = fit_ridge_features(x, y, held, wanted), fit_ridge_features(wide, y, held_wide, wanted)
    assert narrow.penalties == broad.penalties
    np.testing.assert_allclose(narrow.predict(held), broad.predict(held_wide), atol=1e-8)


def test_work_in_pieces_changes_nothing(monkeypatch):
    x, y, held, wanted = made(53, 20, 2)
    whole = fit_ridge_features(x, y, held, wanted)
    monkeypatch.setattr("agblocks.training.baseline.spectrum._CHUNK", 7 * 20)
    pieces = fit_ridge_features(x, y, held, wanted)
    np.testing.assert_allclose(whole.predict(held), pieces.predict(held), atol=1e-9)
    assert whole.penalties == pieces.penalties


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_dead_feature_says_nothing(dtype):
    """Rounding of a constant is not scaled up to a feature, whatever it does on rows that were not trained on."""
    x, y, held, wanted = made(40, 10, dtype=dtype)
    rng = np.random.default_rng(1)
    exact = np.finfo(dtype).eps
    nearly = (5 * (1 + exact * rng.integers(0, 2, size=(40, 2)))).astype(dtype)
    other = rng.normal(size=(len(held), 2)).astype(dtype)
    found = fit_ridge_features(np.hstack([x, nearly]), y, np.hstack([held, other]), wanted)
    without = fit_ridge_features(x, y, held, wanted)
    assert np.all(found.weight[10:] == 0)
    np.testing.assert_allclose(found.predict(np.hstack([held, other])), without.predict(held), atol=1e-9)


def test_a_tie_goes_to_the_least_error():
    """With one feature every penalty gives the same correlation: the error decides."""
    x, y, held, wanted = made(200, 1, held=200, noise=0.5)
    found = fit_ridge_features(x, y, held, wanted, [1e-3, 1e1, 1e5], widen=False)
    assert np.ptp(found.curve) < 1e-9
    assert found.penalties[0] < 1e5
    errors = [np.mean((by_scikit(x, y[:, 0], held, p) - wanted[:, 0]) ** 2) for p in (1e-3, 1e1, 1e5)]
    assert found.penalties[0] == (1e-3, 1e1, 1e5)[int(np.argmin(errors))]


def test_a_grid_whose_end_is_best_is_widened_and_says_so():
    x, y, held, wanted = made(60, 40, held=200, noise=3)
    inside = fit_ridge_features(x, y, held, wanted)
    assert not inside.notes
    best = inside.penalties[0]
    for grid in ([best / 1e4, best / 1e3], [best * 1e3, best * 1e4]):
        fixed = fit_ridge_features(x, y, held, wanted, grid, widen=False, names=["Dev"])
        assert fixed.penalties[0] in grid
        assert "Dev: the chosen penalty" in fixed.notes[0] and "that was tried" in fixed.notes[0]
        wide = fit_ridge_features(x, y, held, wanted, grid)
        assert 0.05 < wide.penalties[0] / best < 20
        assert "lies beyond the grid" in wide.notes[0] and "was widened" in wide.notes[0]
        assert len(wide.tried) > 2 and len(wide.curve) == len(wide.tried)
    exact = fit_ridge_features(x, x[:, :1], held, held[:, :1], [1e9])  # the smaller the better, without end
    assert exact.penalties[0] == min(exact.tried) or exact.valid_pearson[0] > 1 - 1e-6


def test_a_grid_is_not_widened_until_only_the_mean_is_left():
    """Validation targets that each feature by itself predicts best: the larger the penalty, the better."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 300)) @ rng.normal(size=(300, 300))
    y = 50 + x[:, 0] + 40 * rng.normal(size=600)
    standard = (x - x[:400].mean(0)) / x[:400].std(0)
    y[400:] = standard[400:] @ (standard[:400].T @ (y[:400] - y[:400].mean()))
    found = fit_ridge_features(x[:400], y[:400], x[400:], y[400:], [1e2, 1e3])
    largest = np.linalg.eigvalsh(standard[:400].T @ standard[:400])[-1]
    assert 10 * largest < found.penalties[0] <= 100 * largest
    assert found.notes == (
        f"target1: the chosen penalty {found.penalties[0]:g} is so large that every feature counts as if it were alone",
    )
    assert found.predict(x[400:]).std() > 1e-3


def test_features_that_say_nothing_give_the_mean_and_a_note():
    y = np.arange(6.0)
    found = fit_ridge_features(np.ones((6, 3)), y, np.ones((4, 3)), np.arange(4.0))
    np.testing.assert_array_equal(found.predict(np.zeros((2, 3))), np.full((2, 1), 2.5))
    assert np.isnan(found.valid_pearson[0])
    assert "no validation correlation" in found.notes[0]


def test_validation_targets_do_not_move_the_fit_at_one_penalty():
    x, y, held, wanted = made(40, 10)
    one = fit_ridge_features(x, y, held, wanted, [3.0], widen=False)
    other = fit_ridge_features(x, y, held[::-1], wanted, [3.0], widen=False)
    np.testing.assert_array_equal(one.weight, other.weight)


def test_what_does_not_fit_is_refused():
    x, y, held, wanted = made(20, 5, 2)
    spoiled = x.copy()
    spoiled[3, 2] = np.nan
    nobody = np.where(np.arange(20)[:, None] < 2, y, np.nan)
    for found, arguments in [
        ("feature 2 of row 3 is nan", (spoiled, y, held, wanted)),
        ("x_train should be numbers", (x[0], y, held, wanted)),
        (r"do not fit together: x_train \[20, 5\], y_train \[19, 2\]", (x, y[1:], held, wanted)),
        ("there are none", (x, y, held[:0], wanted[:0])),
        ("target 'target1': fewer than 3 measured rows", (x, nobody, held, wanted)),
        ("y_train: row 0 is infinite", (x, np.full_like(y, np.inf), held, wanted)),
    ]:
        with pytest.raises(RunError, match=found):
            fit_ridge_features(*arguments)
    for penalties in ([], [0.0], [-1.0], [np.nan]):
        with pytest.raises(RunError, match="positive numbers"):
            fit_ridge_features(x, y, held, wanted, penalties)
    with pytest.raises(RunError, match="4 features, but the ridge was fitted to 5"):
        fit_ridge_features(x, y, held, wanted).predict(held[:, :4])
