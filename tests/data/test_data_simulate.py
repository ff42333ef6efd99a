"""The simulated assay: its truth against a brute-force count, and its noise against the stated ceiling."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.data import DataError, Motif, Pair, check_leaks, reverse_complement, simulate_mpra

CODES = {
    "R": "AG",
    "Y": "CT",
    "S": "CG",
    "W": "AT",
    "K": "GT",
    "M": "AC",
    "N": "ACGT",
    **{b: b for b in "ACGT"},
}
TINY = (Motif("one", "ACR", 1.0, reverse=0.5), Motif("two", "GGW", -2.0))
TINY_PAIRS = (Pair("one", "two", 3.0, opposite=0.25),)


def brute_sites(sequence, motif):
    found = []
    k = len(motif.consensus)
    for i in range(len(sequence) - k + 1):
        word = sequence[i : i + k]
        turned = "".join({"A": "T", "C": "G", "G": "C", "T": "A"}[c] for c in reversed(word))
        if all(b in CODES[c] for b, c in zip(word, motif.consensus, strict=True)):
            found.append((i + (k - 1) / 2, True))
        elif all(b in CODES[c] for b, c in zip(turned, motif.consensus, strict=True)):
            found.append((i + (k - 1) / 2, False))
    return found


def brute_activity(sequence, motifs, pairs):
    sites = {m.name: brute_sites(sequence, m) for m in motifs}
    total = 0.0
    for m in motifs:
        strong = sum(f for _, f in sites[m.name])
        weak = len(sites[m.name]) - strong
        full = min(strong, 2)
        total += m.weight * (full + m.reverse * min(weak, 2 - full))
    for p in pairs:
        values = [0.0]
        for x, f in sites[p.first]:
            for y, g in sites[p.second]:
                wave = (1 + math.cos(2 * math.pi * abs(x - y) / 10.5)) / 2
                values.append(wave * math.exp(-abs(x - y) / 40) * (1 if f == g else p.opposite))
        total += p.strength * max(values)
    return total


_, truth = simulate_mpra(20, length=30, motifs=TINY, pairs=TINY_PAIRS, folds=2)


@given(st.text("ACGT", min_size=1, max_size=40))
def test_truth_is_the_brute_force_count(sequence):
    assert truth.activity(sequence)[0] == pytest.approx(brute_activity(sequence, TINY, TINY_PAIRS))


def test_spacing_and_orientation_matter():
    def pair(gap, turned=False):
        second = reverse_complement("GGA") if turned else "GGA"
        return truth.activity("ACA" + "C" * gap + second)[0]

    assert pair(8) > pair(3)  # centres 11 and 6 apart: one turn of the helix, and half a turn
    assert pair(8) > pair(8, turned=True)
    assert pair(8) > pair(18)


def test_table_and_truth_agree():
    table, truth = simulate_mpra(400, seed=3, ceiling=0.8)
    assert np.array_equal(truth.activity(table.sequences), truth.clean)
    assert np.corrcoef(table.targets[:, 0], truth.clean)[0, 1] == pytest.approx(0.8, abs=0.06)
    assert truth.noise == pytest.approx(truth.clean.std() * 0.75)
    assert {len(s) for s in table.sequences} == {200}
    assert set(table.fold.tolist()) == set("0123456789")
    check_leaks(table, {f: np.flatnonzero(table.fold == f) for f in "0123456789"})
    again, _ = simulate_mpra(400, seed=3, ceiling=0.8)
    other, _ = simulate_mpra(400, seed=4, ceiling=0.8)
    assert again.sequences == table.sequences and np.array_equal(again.targets, table.targets)
    assert other.sequences != table.sequences


def test_every_rule_takes_part():
    table, truth = simulate_mpra(300)
    present = {s.motif for t in table.sequences for s in truth.sites(t)}
    assert present == {m.name for m in truth.motifs}
    additive = simulate_mpra(300, pairs=())[1].motifs
    assert additive == truth.motifs
    assert simulate_mpra(30, adapters=("ACGT", "TT"))[0].sequences[0].startswith("ACGT")
    assert np.array_equal(
        simulate_mpra(30, ceiling=1.0)[1].clean.astype(np.float32),
        simulate_mpra(30, ceiling=1.0)[0].targets[:, 0],
    )


@pytest.mark.parametrize(
    "kwargs",
    [{"n": 5}, {"n": 50, "length": 20}, {"n": 50, "ceiling": 0}, {"n": 50, "gc": 1}, {"n": 50, "folds": 1}],
)
def test_arguments_are_checked(kwargs):
    with pytest.raises(DataError, match="simulate_mpra"):
        simulate_mpra(**kwargs)
