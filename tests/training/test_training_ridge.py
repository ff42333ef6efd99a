from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.data import Splits, Table, reverse_complement, simulate_mpra, split_by_fold
from agblocks.training import RunError, fit_ridge, score
from agblocks.training.baseline.ridge import kmer_counts


@given(st.text("ACGTN", min_size=1, max_size=30), st.integers(1, 4))
def test_counts_are_the_naive_ones(sequence, k):
    words = sorted({min(w, reverse_complement(w)) for w in _words(k)})
    wanted = dict.fromkeys(words, 0)
    for start in range(len(sequence) - k + 1):
        word = sequence[start : start + k]
        if "N" not in word:
            wanted[min(word, reverse_complement(word))] += 1
    assert kmer_counts([sequence], k)[0].tolist() == list(wanted.values())


@given(st.text("ACGTN", min_size=1, max_size=30), st.integers(1, 5))
def test_counts_do_not_know_the_strand(sequence, k):
    np.testing.assert_array_equal(kmer_counts([sequence], k), kmer_counts([reverse_complement(sequence)], k))


def _words(k: int) -> list[str]:
    return [""] if k == 0 else [w + b for w in _words(k - 1) for b in "ACGT"]


def test_there_are_2080_of_length_six():
    assert kmer_counts(["ACGTACGT"], 6).shape == (1, 2080)


def test_ridge_learns_and_never_sees_the_test_rows():
    table, _ = simulate_mpra(600, 60)
    splits = split_by_fold(table, valid="1", test="0")
    ridge = fit_ridge(table, splits, k=4)
    predicted = ridge.predict(table)
    assert score(predicted[splits.test], table.targets[splits.test])[0].pearson > 0.3
    spoiled = table.targets.copy()
    spoiled[splits.test] = 1e6
    again = fit_ridge(replace(table, targets=spoiled), splits, k=4)
    np.testing.assert_array_equal(predicted, again.predict(table))


def test_alpha_needs_validation_rows():
    table = Table(("ACGTAA", "ACGGTA", "ACCCTA", "AGGGTA"), np.zeros((4, 1), np.float32), ("a",), tuple("abcd"))
    with pytest.raises(RunError, match="validation rows, but there are none"):
        fit_ridge(table, Splits(np.arange(4), np.arange(0), np.arange(0)))
