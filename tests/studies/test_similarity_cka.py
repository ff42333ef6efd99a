from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import agblocks
from agblocks.errors import InputError
from agblocks.studies.similarity import Accumulator, SimilarityError, as_file, cka, compare_features, compare_models


def song(x, y):
    """Unbiased HSIC as Song et al. 2012 write it, with loops."""
    k, m = (f @ f.T for f in (x, y))
    n = len(k)
    for a in (k, m):
        np.fill_diagonal(a, 0)
    trace = sum(k[i, j] * m[j, i] for i in range(n) for j in range(n))
    ones = np.ones(n)
    return (trace + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2)) - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))  # fmt: skip


def oracle(x, y):
    return song(x, y) / math.sqrt(song(x, x) * song(y, y))


pairs = st.tuples(st.integers(4, 12), st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**31))


def features(size):
    n, p, q, seed = size
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, p)) + rng.normal(size=p) * 3
    return x, x @ rng.normal(size=(p, q)) + 0.5 * rng.normal(size=(n, q)), rng


@given(pairs)
def test_cka_is_that_of_song(size):
    x, y, _ = features(size)
    assert cka(x, y) == pytest.approx(oracle(x, y), abs=1e-9)


@given(pairs)
def test_it_lies_in_its_bounds_and_turning_scaling_moving_and_sorting_change_nothing(size):
    x, y, rng = features(size)
    here = cka(x, y)
    assert -1 <= here <= 1
    assert cka(x, x) == pytest.approx(1)
    assert cka(y, x) == pytest.approx(here, abs=1e-12)
    turn = np.linalg.qr(rng.normal(size=(x.shape[1],) * 2))[0]
    order = rng.permutation(len(x))
    for other in (x @ turn, 7.5 * x, x + rng.normal(size=x.shape[1]), np.hstack([x, np.full((len(x), 2), 4.0)])):
        assert cka(other, y) == pytest.approx(here, abs=1e-8)
    assert cka(x[order], y[order]) == pytest.approx(here, abs=1e-9)


def test_nothing_in_common_is_zero_however_wide():
    """Where the biased estimate comes out near one."""
    rng = np.random.default_rng(0)
    found = [cka(rng.normal(size=(32, 500)), rng.normal(size=(32, 500))) for _ in range(50)]
    assert abs(np.mean(found)) < 0.02 and min(found) < 0 < max(found)
    x, y = (rng.normal(size=(32, 500)) for _ in range(2))
    x, y = x - x.mean(0), y - y.mean(0)
    biased = np.sum((x.T @ y) ** 2) / np.sqrt(np.sum((x.T @ x) ** 2) * np.sum((y.T @ y) ** 2))
    assert biased > 0.9


@given(st.lists(st.integers(4, 9), min_size=1, max_size=4), st.integers(0, 2**31))
@settings(max_examples=30)
def test_minibatches_are_means_of_each_ones_estimate(sizes, seed):
    rng = np.random.default_rng(seed)
    made = Accumulator(2, 3)
    held = []
    for n in sizes:
        base = rng.normal(size=(n, 4))
        rows = [base @ rng.normal(size=(4, 3)) for _ in range(2)]
        columns = [base @ rng.normal(size=(4, 5)) for _ in range(3)]
        made.add([torch.tensor(r) for r in rows], [torch.tensor(c) for c in columns])
        held.append((n, rows, columns))
    for i in range(2):
        for j in range(3):
            top, one, other = (
                sum(n * song(*pick(r[i], c[j])) for n, r, c in held)
                for pick in (lambda a, b: (a, b), lambda a, _: (a, a), lambda _, b: (b, b))
            )
            assert made.matrix()[i, j] == pytest.approx(top / math.sqrt(one * other), abs=1e-8)
    assert made.sequences == sum(sizes)


def test_minibatches_come_near_the_whole():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2048, 6))
    y = x @ rng.normal(size=(6, 6)) + rng.normal(size=(2048, 6))
    made = Accumulator(1, 1)
    for start in range(0, 2048, 128):
        made.add([torch.tensor(x[start : start + 128])], [torch.tensor(y[start : start + 128])])
    assert made.matrix()[0, 0] == pytest.approx(cka(x, y), abs=0.02)


def test_what_does_not_vary_has_no_similarity():
    x = torch.randn(8, 3)
    assert math.isnan(cka(x, torch.full((8, 2), 0.1)))
    nearly = torch.full((8, 2), 3.0) + 2e-7 * torch.randn(8, 2)
    assert math.isnan(cka(x, nearly))
    made = Accumulator(1, 1)
    made.add([x], [nearly])
    assert as_file("a", ["x"], ["y"], made)["matrix"] == [[None]]


def test_what_does_not_fit_is_refused():
    x = torch.randn(8, 3)
    with pytest.raises(SimilarityError, match="3 sequences; an unbiased estimate wants at least 4"):
        cka(x[:3], x[:3])
    with pytest.raises(SimilarityError, match="features of 7, 8 rows"):
        cka(x, x[:7])
    with pytest.raises(SimilarityError, match="not finite"):
        cka(x, torch.full((8, 1), math.inf))
    with pytest.raises(SimilarityError, match="2 by 1 features, wanted 1 by 1"):
        Accumulator(1, 1).add([x, x], [x])
    rest = Accumulator(1, 1)
    rest.add([x], [x])
    rest.add([x[:2]], [x[:2]])
    assert (rest.sequences, rest.left_out) == (8, 2)


def test_features_that_are_there_compare():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 6)).astype(np.float32)
    rows = {"one": x, "two": x @ rng.normal(size=(6, 9)) + rng.normal(size=(300, 9))}
    whole = compare_features("a", rows, {"one": x}, batch=300)
    np.testing.assert_allclose(whole["matrix"], [[1], [cka(rows["two"], x)]], atol=1e-9)
    assert whole == compare_features("a", rows, {"one": x}, seed=1) | {"matrix": whole["matrix"]}
    assert (whole["rows"], whole["columns"], whole["sequences"]) == (["one", "two"], ["one"], 300)
    pieces = compare_features("a", rows, {"one": x}, batch=70)
    assert pieces["sequences"] == 300
    assert 0 < abs(pieces["matrix"][1][0] - whole["matrix"][1][0]) < 0.05
    with pytest.raises(SimilarityError, match="features of 299, 300 rows"):
        compare_features("a", rows, {"one": x[1:]})
    with pytest.raises(SimilarityError, match="at least 4"):
        compare_features("a", {"one": x[:2]}, {"one": x[:2]})


TAPS = ["encoder.stage1", "encoder.stage3"]


@pytest.fixture(scope="module")
def models():
    return {
        name: agblocks.build("alphagenome_small", keep=["encoder.*"], seed=seed) for name, seed in (("a", 0), ("b", 1))
    }


def dna(rows, length, seed):
    codes = torch.randint(4, (rows, length), generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.one_hot(codes, 4).transpose(1, 2).float()


@pytest.mark.parametrize("pool", ["mean", "flatten"])
def test_models_are_compared_in_one_pass(models, pool):
    batches = [dna(8, 128, seed) for seed in range(2)]
    models["a"].train()
    found = compare_models(models, TAPS, iter(batches), pool=pool)
    assert models["a"].training and not any(m.training for m in [models["b"].eval()])
    assert list(found) == ["a", "a vs b", "b"]
    whole = json.loads(json.dumps(found["a vs b"]))
    assert whole["rows"] == whole["columns"] == TAPS and whole["sequences"] == 16
    made = Accumulator(2, 2)
    for batch in batches:
        seen = []
        for model in models.values():
            with torch.no_grad():
                out = model.eval()(dna=batch, outputs=TAPS)
            seen.append([out[t].mean(-1) if pool == "mean" else out[t].flatten(1) for t in TAPS])
        made.add(*seen)
    np.testing.assert_allclose(whole["matrix"], made.matrix(), atol=1e-9)
    itself = np.array(found["a"]["matrix"])
    np.testing.assert_allclose(np.diag(itself), 1)
    np.testing.assert_allclose(itself, itself.T)
    assert not np.allclose(itself, whole["matrix"])


def test_models_with_other_stages_and_inputs_compare(models):
    other = agblocks.build("mpra_small", keep=["encoder.*"], seed=0)
    taps = {"a": TAPS, "other": ["encoder.stage2"]}
    given = {"dna": dna(8, 128, 0), "organism": torch.zeros(8, dtype=torch.long)}
    found = compare_models({"a": models["a"], "other": other}, taps, [given])
    assert np.shape(found["a vs other"]["matrix"]) == (2, 1)
    with pytest.raises(InputError, match="stage33"):
        compare_models(models, ["encoder.stage33"], [])
    with pytest.raises(SimilarityError, match="no batch"):
        compare_models(models, TAPS, [])
    with pytest.raises(SimilarityError, match="pool 'max'"):
        compare_models(models, TAPS, [], pool="max")
