"""Splits along chromosomes: no training window sees a base of a test target's field. The oracle has sets of bases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.data import DataError, Splits
from agblocks.data.tracks import (
    Sight,
    Windows,
    by_block,
    by_chromosome,
    by_part,
    check_windows,
    merged,
    separate,
    tile,
)


@st.composite
def cases(draw):
    length = draw(st.integers(4, 40))
    n = draw(st.integers(1, 25))
    start = draw(st.lists(st.integers(-5, 300), min_size=n, max_size=n))
    chromosome = draw(st.lists(st.integers(0, 1), min_size=n, max_size=n))
    first = draw(st.integers(0, length - 1))
    last = draw(st.integers(first + 1, length))
    sight = Sight(first, last, draw(st.none() | st.integers(0, 50)), draw(st.integers(0, 12)))
    labels = np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)))
    return Windows(length, ("a", "b"), np.array(chromosome), np.array(start)), labels, sight


def field_of(windows, row, sight):
    """The bases that the targets of a window see, as the model is shown them there."""
    start = int(windows.start[row])
    shown = set(range(start, start + windows.length))
    if sight.reach is None:
        return shown
    seen = {
        base + by
        for base in range(start + sight.target_start, start + sight.target_stop)
        for by in range(-sight.reach, sight.reach + 1)
    }
    return seen & shown


def shown_by(windows, row, sight):
    start = int(windows.start[row])
    return {b + by for b in range(start, start + windows.length) for by in range(-sight.shift, sight.shift + 1)}


def leaks(windows, held, other, sight):
    return [
        b
        for b in other
        if any(
            windows.chromosome[a] == windows.chromosome[b] and field_of(windows, a, sight) & shown_by(windows, b, sight)
            for a in held
        )
    ]


@given(cases())
def test_separate_leaves_what_does_not_leak(case):
    windows, labels, sight = case
    rows = {
        part: [i for i in range(len(windows)) if labels[i] == mark]
        for mark, part in enumerate(("train", "valid", "test"))
    }
    bad = set(leaks(windows, rows["test"], rows["valid"], sight))
    valid = [i for i in rows["valid"] if i not in bad]
    close = set(leaks(windows, rows["test"], rows["train"], sight)) | set(leaks(windows, valid, rows["train"], sight))
    train = [i for i in rows["train"] if i not in close]
    if not train or (rows["valid"] and not valid):
        with pytest.raises(DataError, match="no window is left for"):
            separate(windows, labels, sight)
        return
    splits, dropped = separate(windows, labels, sight)
    assert (splits.train.tolist(), splits.valid.tolist(), splits.test.tolist()) == (train, valid, rows["test"])
    assert dropped.tolist() == sorted(bad | close)
    check_windows(windows, splits, sight)


@given(cases())
def test_check_finds_exactly_the_leaks(case):
    windows, labels, sight = case
    splits = Splits(*(np.flatnonzero(labels == mark) for mark in range(3)))
    found = any(
        leaks(windows, np.flatnonzero(labels == a), np.flatnonzero(labels == b), sight)
        for a, b in ((2, 1), (2, 0), (1, 0))
    )
    if found:
        with pytest.raises(DataError, match="the parts leak"):
            check_windows(windows, splits, sight)
    else:
        check_windows(windows, splits, sight)


@given(cases())
def test_merged_covers_each_base_once(case):
    windows, labels, _ = case
    rows = np.flatnonzero(labels == 0)
    bases = {
        (windows.names[windows.chromosome[r]], b)
        for r in rows
        for b in range(windows.start[r], windows.start[r] + windows.length)
    }
    found = [(name, b) for name, start, stop in merged(windows, rows) for b in range(start, stop)]
    assert len(found) == len(set(found)) and set(found) == bases


def test_blocks_are_dealt_in_turn():
    windows = tile({"a": 1000, "b": 500}, 50, 25)
    labels = by_block(windows, block=100, folds=4, valid=[1], test=[3])
    for row in range(len(windows)):
        block = (int(windows.start[row]) + 25) // 100
        fold = (block + int(windows.chromosome[row])) % 4
        assert labels[row] == {1: 1, 3: 2}.get(fold, 0)
    with pytest.raises(DataError, match="there is no fold 4"):
        by_block(windows, block=100, folds=4, valid=[4], test=[3])
    with pytest.raises(DataError, match="fold 3 is named for validation and for test"):
        by_block(windows, block=100, folds=4, valid=[3], test=[3])


def test_whole_chromosomes_by_any_name():
    windows = tile({"chrI": 500, "chrII": 300, "chrM": 100}, 50)
    labels = by_chromosome(windows, valid=["II"], test=["MT"])
    assert [windows.names[c] for c in windows.chromosome[labels == 1]] == ["chrII"] * 6
    assert [windows.names[c] for c in windows.chromosome[labels == 2]] == ["chrM"] * 2
    with pytest.raises(DataError, match="test: there is no chromosome 'IX'"):
        by_chromosome(windows, valid=[], test=["IX"])
    with pytest.raises(DataError, match="'chrII' is named for valid and for test"):
        by_chromosome(windows, valid=["II"], test=["chrII"])


def test_parts_of_a_bed():
    windows = Windows(10, ("a",), np.zeros(3, np.int64), np.array([0, 50, 90]), ("train", "test", "valid"))
    assert by_part(windows).tolist() == [0, 2, 1]
    with pytest.raises(DataError, match="fourth column"):
        by_part(Windows(10, ("a",), np.zeros(1, np.int64), np.zeros(1, np.int64)))
