"""Splits and leaks: groups stay whole, and a copy of an insert is found wherever it hides."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.data import (
    LENTIMPRA_STRAND,
    Construct,
    DataError,
    Table,
    check_leaks,
    common_affixes,
    find_leaks,
    fold_groups,
    genomic_blocks,
    insert_groups,
    inserts,
    lentimpra,
    load,
    reverse_complement,
    split_by_fold,
    split_by_group,
    split_random,
)


def table(sequences, ids=None, **kwargs):
    n = len(sequences)
    return Table(
        sequences=tuple(sequences),
        targets=np.zeros((n, 1), np.float32),
        target_names=("y",),
        ids=tuple(ids or (f"r{i}" for i in range(n))),
        **kwargs,
    )


def naive_leaks(sequences, part, left, right):
    """Every pair, base by base."""
    found = set()
    for i, a in enumerate(sequences):
        for j, b in enumerate(sequences[:i]):
            x, y = (s[len(left) : len(s) - len(right)] for s in (a, b))
            turned = "".join({"A": "T", "C": "G", "G": "C", "T": "A"}[c] for c in reversed(y))
            if part[i] != part[j] and part[i] and part[j] and x in (y, turned):
                found.add((j, i))
    return found


@given(
    st.lists(st.text("AC", min_size=1, max_size=3), min_size=1, max_size=12),
    st.lists(st.booleans(), min_size=12, max_size=12),
    st.lists(st.sampled_from(["train", "valid", "test", ""]), min_size=12, max_size=12),
    st.sampled_from([("", ""), ("ACG", "TT")]),
)
def test_leaks_are_those_of_the_loop(cores, turned, part, adapters):
    left, right = adapters
    texts = [reverse_complement(c) if t else c for c, t in zip(cores, turned, strict=False)]
    sequences = [left + t + right for t in texts]
    parts = {p: [i for i in range(len(texts)) if part[i] == p] for p in ("train", "valid", "test")}
    lines = find_leaks(table(sequences), parts, construct=Construct(strip_left=left, strip_right=right))
    want = naive_leaks(sequences, part, left, right)
    # Of a clique across two parts every row is named, against the first of the other part.
    named = {i for pair in want for i in pair}
    assert bool(lines) == bool(want)
    said = {i for i in range(len(texts)) if any(f"'r{i}'" in line for line in lines)}
    assert said == named


def test_a_leak_is_told_with_its_rows():
    data = table(["AAACCG", "CGGTTT", "AAACCG", "GGGGGG"], ["a", "b", "c_F", "c"])
    with pytest.raises(DataError) as error:
        check_leaks(data, {"train": [0, 3], "valid": [1], "test": [2]}, id_suffix="_F$")
    assert error.value.problems == (
        "train 'a' (row 0) and valid 'b' (row 1): reverse complement",
        "train 'a' (row 0) and test 'c_F' (row 2): same insert",
        "valid 'b' (row 1) and test 'c_F' (row 2): reverse complement",
        "test 'c_F' (row 2) and train 'c' (row 3): same element 'c'",
    )
    check_leaks(data, {"train": [0, 1, 2], "test": [3]})


def test_parts_are_checked():
    with pytest.raises(DataError, match="row 1 stands both in 'train' and in 'test'"):
        check_leaks(table(["A", "C"]), {"train": [0, 1], "test": [1]})
    with pytest.raises(DataError, match="holds row 2; the table has rows 0 to 1"):
        check_leaks(table(["A", "C"]), {"train": [2]})
    with pytest.raises(DataError, match="no regular expression"):
        check_leaks(table(["A", "C"]), {"train": [0]}, id_suffix="(")


@given(st.lists(st.text("ACGT", min_size=1, max_size=6), min_size=2, max_size=9), st.text("ACGT", max_size=5))
def test_common_ends(cores, end):
    sequences = [end + c + end for c in cores]
    prefix, suffix = common_affixes(sequences)
    if len(set(sequences)) < 2:
        assert (prefix, suffix) == ("", "")
        return
    assert prefix.startswith(end) and all(s.startswith(prefix) and s.endswith(suffix) for s in sequences)
    assert len(prefix) + len(suffix) <= min(map(len, sequences))
    assert len({s[: len(prefix) + 1] for s in sequences}) > 1  # not one base longer


def test_inserts_say_which_rows_lack_their_adapters():
    data = table(["ACGG", "TCGG"], file=np.array([0, 0]), row=np.array([2, 3]), files=("t.tsv",))
    with pytest.raises(DataError, match=r"1 row without the construct's adapters\n  'r1' \(t.tsv:3\)"):
        inserts(data, Construct(strip_left="A"))


groups = st.lists(st.integers(0, 12), min_size=15, max_size=60).filter(lambda g: len(set(g)) >= 5)


@given(groups, st.integers(0, 5), st.randoms(use_true_random=False))
def test_groups_stay_whole(labels, seed, random):
    splits = split_by_group(labels, valid=0.2, test=0.2, seed=seed)
    part = {i: name for name, rows in splits.parts().items() for i in rows.tolist()}
    assert sorted(part) == list(range(len(labels)))
    assert all(len({part[i] for i, g in enumerate(labels) if g == label}) == 1 for label in set(labels))
    assert len(splits.valid) and len(splits.test) and len(splits.train)
    order = list(range(len(labels)))
    random.shuffle(order)
    again = split_by_group([labels[i] for i in order], valid=0.2, test=0.2, seed=seed)
    assert sorted(order[i] for i in again.test.tolist()) == splits.test.tolist()


@given(groups, st.integers(2, 5), st.integers(0, 3))
def test_folds_hold_whole_groups_and_are_even(labels, folds, seed):
    fold = fold_groups(labels, folds=folds, seed=seed)
    assert set(fold.tolist()) == {str(i) for i in range(folds)}
    assert all(len({fold[i] for i, g in enumerate(labels) if g == label}) == 1 for label in set(labels))
    sizes = Counter(fold.tolist()).values()
    assert max(sizes) - min(sizes) <= max(Counter(labels).values())


def test_split_by_fold():
    data = table(["A"] * 6, fold=np.array(["1", "2", "10", "1", "3", "2"]))
    splits = split_by_fold(data, valid=1, test=("10", 3))
    assert [splits.train.tolist(), splits.valid.tolist(), splits.test.tolist()] == [[1, 5], [0, 3], [2, 4]]
    for kwargs, message in [
        ({"valid": 4}, "valid: there is no fold '4'; there are '1', '2', '3', '10'"),
        ({"valid": 1, "test": "1"}, "fold 1 is named for validation and for test"),
        ({"valid": [1, 2], "test": [3, 10]}, "no row is left to train on: validation and test hold them all"),
    ]:
        with pytest.raises(DataError) as error:
            split_by_fold(data, **kwargs)
        assert str(error.value) == message
    with pytest.raises(DataError, match="the table has no fold"):
        split_by_fold(table(["A"]), valid=1)


def test_random_splits_leak_where_inserts_repeat_and_group_splits_do_not():
    core = ["".join("ACGT"[(i >> k) & 3] for k in (0, 2, 4, 6)) for i in range(200)]
    data = table(core + [reverse_complement(c) for c in core])
    with pytest.raises(DataError, match="leak"):
        check_leaks(data, split_random(len(data)).parts())
    check_leaks(data, split_by_group(insert_groups(data)).parts())
    with pytest.raises(DataError, match="too few"):
        split_by_group([1, 1, 2], valid=0.3, test=0.3)
    with pytest.raises(DataError, match="together below 1"):
        split_random(10, valid=0.5, test=0.5)


def test_blocks():
    blocks = genomic_blocks(["X", "X", "Y"], [10, 250_000, 10])
    assert blocks.tolist() == ["X:0", "X:1", "Y:0"]
    chained = genomic_blocks(["X"] * 4, [40, 95, 99, 130], size=100, end=[50, 99, 104, 140])
    assert chained.tolist() == ["X:0", "X:0", "X:0", "X:1"]
    assert genomic_blocks(["X"] * 2, [95, 101], size=100, end=[105, 110]).tolist() == ["X:0", "X:0"]
    with pytest.raises(DataError, match="a size above 0"):
        genomic_blocks(["X"], [1], size=0)


def test_the_74_pairs_of_the_lentimpra_sample(real_data):
    data = load("human_lentimpra_3k")
    a, b = common_affixes(data.sequences)
    assert (a, b) == (lentimpra().strip_left, lentimpra().strip_right)
    whole = set(data.sequences)
    assert not any(reverse_complement(s) in whole for s in whole), "whole sequences show nothing"
    apart = {"train": [], "test": []}
    seen = {}
    for i, key in enumerate(insert_groups(data).tolist()):
        apart["test" if key in seen else "train"].append(i)
        seen[key] = i
    assert len(apart["test"]) == 74
    for construct in (None, lentimpra()):
        lines = find_leaks(data, apart, construct=construct)
        assert len(lines) == 74 and all(line.endswith("reverse complement") for line in lines)
    by_name = find_leaks(data, apart, construct=Construct(), id_suffix=LENTIMPRA_STRAND)
    assert len(by_name) == 74 and all("same element" in line for line in by_name)
    assert not find_leaks(data, apart, construct=Construct())
    folds = {f: np.flatnonzero(data.fold == f) for f in sorted(set(data.fold.tolist()))}
    check_leaks(data, folds, construct=lentimpra(), id_suffix=LENTIMPRA_STRAND)
    assert len(set(data.group.tolist())) == 2866
    with pytest.raises(DataError):
        check_leaks(data, split_random(len(data), test=0.5).parts())
