"""Batches, augmentation and resuming: against loops written apart."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agblocks.data import (
    Augment,
    Construct,
    DataError,
    Loader,
    Table,
    decode,
    encode,
    plan_batches,
    reverse_complement,
)
from agblocks.data.augment import apply, draws
from agblocks.data.draw import uniform


def loop_augment(text, shift, turned, fill, start, stop, left="", right=""):
    """One sequence, base by base."""
    core = text[start:stop]
    if fill == "roll":
        new = [core[(i - shift) % len(core)] for i in range(len(core))]
    elif fill == "n":
        new = [core[i - shift] if 0 <= i - shift < len(core) else "N" for i in range(len(core))]
    else:
        whole = left + core + right
        new = [whole[len(left) + i - shift] for i in range(len(core))]
    moved = "".join(new)
    return text[:start] + (reverse_complement(moved) if turned else moved) + text[stop:]


@given(st.data(), st.integers(1, 12), st.sampled_from(["n", "roll", "flanks"]))
def test_augmentation_is_the_loop(data, length, fill):
    n = data.draw(st.integers(1, 4))
    texts = data.draw(st.lists(st.text("ACGTNRY", min_size=length, max_size=length), min_size=n, max_size=n))
    limit = 5 if fill == "flanks" else 15
    shift = np.array(data.draw(st.lists(st.integers(-limit, limit), min_size=n, max_size=n)))
    turned = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    start, stop = np.zeros(n, int), np.full(n, length)
    if fill != "flanks":
        start = np.array(data.draw(st.lists(st.integers(0, length - 1), min_size=n, max_size=n)))
        stop = np.array([data.draw(st.integers(s + 1, length)) for s in start])
    left, right = "ACGTA", "GGTCC"
    codes = encode(texts)
    found = apply(codes, shift, turned, fill=fill, start=start, stop=stop, flank_left=left, flank_right=right)
    rows = zip(texts, shift, turned, start, stop, strict=True)
    want = [loop_augment(t, s, r, fill, a, b, left, right) for t, s, r, a, b in rows]
    assert (found == encode(want)).all()
    assert (codes == encode(texts)).all()


@given(st.integers(0, 9), st.integers(0, 9), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_draws_belong_to_a_row_and_not_to_its_company(seed, epoch, rows):
    augment = Augment(0.5, shift=7, shift_probability=0.7)
    shift, turned = draws(augment, rows, seed=seed, epoch=epoch)
    for i, row in enumerate(rows):
        alone = draws(augment, [row], seed=seed, epoch=epoch)
        assert (alone[0][0], alone[1][0]) == (shift[i], turned[i])
    assert np.abs(shift).max() <= 7


def test_draws_are_fair_and_new_in_each_epoch():
    rows = np.arange(20_000)
    shift, turned = draws(Augment(0.3, shift=2), rows, seed=1, epoch=0)
    assert abs(turned.mean() - 0.3) < 0.015
    assert all(abs(c / 20_000 - 0.2) < 0.015 for c in Counter(shift.tolist()).values())
    assert abs(np.corrcoef(shift, turned)[0, 1]) < 0.03
    streams = np.stack([uniform(s, e, rows, k) for s, e, k in [(1, 0, 2), (1, 1, 2), (2, 0, 2), (1, 0, 3)]])
    assert np.abs(np.corrcoef(streams) - np.eye(4)).max() < 0.03
    assert uniform(0, 0, [0, 1, 2], 0).tolist() == uniform(0, 0, np.array([0, 1, 2]), 0).tolist()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"reverse_complement": 1.5}, "reverse_complement is 1.5, wanted a probability from 0 to 1"),
        ({"shift": -1}, "shift is -1, wanted a whole number of bases from 0"),
        ({"fill": "zeros"}, "fill is 'zeros', wanted one of n, roll, flanks"),
        ({"scope": "all"}, "scope is 'all', wanted one of construct, insert"),
        ({"fill": "flanks", "scope": "insert"}, "scope='insert' cannot use it"),
    ],
)
def test_augment_is_checked(kwargs, message):
    with pytest.raises(DataError, match=message):
        Augment(**kwargs)


@given(
    st.lists(st.sampled_from([3, 5, 8]), min_size=1, max_size=40),
    st.integers(1, 5),
    st.booleans(),
    st.sampled_from(["keep", "drop", "merge"]),
    st.integers(0, 3),
)
def test_plans(lengths, size, shuffle, small, epoch):
    min_batch = min(2, size)
    kwargs = {"batch_size": size, "shuffle": shuffle, "seed": 4, "small": small, "min_batch": min_batch}
    counts = Counter(lengths)
    lost = sum(c % size for c in counts.values() if 0 < c % size < min_batch) if small == "drop" else 0
    if lost == len(lengths):
        with pytest.raises(DataError, match="make no batch"):
            plan_batches(lengths, epoch=epoch, **kwargs)
        return
    plan = plan_batches(lengths, epoch=epoch, **kwargs)
    rows = [r for batch in plan for r in batch.tolist()]
    assert len(rows) == len(set(rows)) == len(lengths) - lost
    for batch in plan:
        assert len({lengths[r] for r in batch}) == 1
        alone = counts[lengths[batch[0]]] < min_batch
        assert (min_batch if small != "keep" and not alone else 1) <= len(batch)
        assert len(batch) <= size + (min_batch - 1 if small == "merge" else 0)
    assert len(plan_batches(lengths, epoch=epoch + 1, **kwargs)) == len(plan)
    again = plan_batches(lengths, epoch=epoch, **kwargs)
    assert [b.tolist() for b in plan] == [b.tolist() for b in again]
    if not shuffle and len(counts) == 1 and small == "keep":
        assert rows == list(range(len(lengths)))


def test_a_batch_of_one_is_kept_dropped_or_merged():
    sizes = {
        small: [len(b) for b in plan_batches([7] * 11, batch_size=5, small=small)]
        for small in ("keep", "drop", "merge")
    }
    assert sizes == {"keep": [5, 5, 1], "drop": [5, 5], "merge": [5, 6]}
    merged = plan_batches([7] * 11, batch_size=5, small="merge", shuffle=True)
    assert sorted(r for b in merged for r in b.tolist()) == list(range(11))
    torch_like = plan_batches([7] * 14, batch_size=5, small="drop", min_batch=5)
    assert [len(b) for b in torch_like] == [5, 5]


def make(n=23, lengths=(10,), **kwargs):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGT"), lengths[i % len(lengths)])) for i in range(n)]
    table = Table(
        sequences=tuple("AC" + t + "GG" for t in texts),
        targets=np.arange(2 * n, dtype=np.float32).reshape(n, 2),
        target_names=("dev", "hk"),
        ids=tuple(map(str, range(n))),
    )
    construct = Construct(strip_left="AC", strip_right="GG", left="TT", flank_left="ACG", flank_right="CCC")
    return table, Loader(table, construct=construct, batch_size=5, **kwargs)


def test_batches_hold_the_assembled_rows():
    table, loader = make(lengths=(10, 13))
    seen = []
    for batch in loader:
        index = batch["index"].tolist()
        assert decode(batch["inputs"]["dna"]) == ["TT" + table.sequences[i][2:-2] for i in index]
        assert batch["targets"]["hk"].tolist() == table.targets[index, 1:].tolist()
        assert batch["targets"]["dev"].shape == (len(index), 1)
        seen += index
    assert sorted(seen) == list(range(23)) and len(loader) == len(list(loader))


def test_heads_choose_their_targets():
    table, _ = make()
    loader = Loader(table, [3, 1], targets={"activity": ("hk", "dev")}, reverse_input="strand")
    (batch,) = loader
    assert batch["targets"]["activity"].tolist() == [[7, 6], [3, 2]] and batch["index"].tolist() == [3, 1]
    assert batch["inputs"]["strand"].tolist() == [0, 0] and batch["inputs"]["strand"].dtype == torch.int64
    with pytest.raises(DataError, match="head 'activity': no target 'hkk'; did you mean 'hk'"):
        Loader(table, targets={"activity": ["hkk"]})


def test_the_reverse_flag_follows_the_strand():
    table, loader = make(augment=Augment(0.5), shuffle=True, reverse_input="strand")
    turned = 0
    for batch in loader:
        texts = decode(batch["inputs"]["dna"])
        for text, i, flag in zip(texts, batch["index"], batch["inputs"]["strand"], strict=True):
            plain = "TT" + table.sequences[i][2:-2]
            assert text == (reverse_complement(plain) if flag else plain)
            turned += int(flag)
    assert 0 < turned < 23


@pytest.mark.parametrize(
    "augment",
    [Augment(0.5, shift=3, scope="insert"), Augment(0.5, shift=3, fill="flanks"), Augment(0, shift=2)],
)
def test_scopes(augment):
    table, loader = make(lengths=(10, 12), augment=augment, shuffle=True, seed=3)
    for batch in loader:
        index = batch["index"].numpy()
        shift, turned = draws(augment, index, seed=3, epoch=0)
        for text, i, s, t in zip(decode(batch["inputs"]["dna"]), index, shift, turned, strict=True):
            plain = "TT" + table.sequences[i][2:-2]
            start = 2 if augment.scope == "insert" else 0
            assert text == loop_augment(plain, s, t, augment.fill, start, len(plain), "ACG", "CCC")


def test_flanks_are_checked_before_training():
    with pytest.raises(DataError, match="a shift of 4 needs 4 bases of flank_left, the construct has 3"):
        make(augment=Augment(shift=4, fill="flanks"))
    table, _ = make()
    with pytest.raises(DataError, match="real flanks don't adjoin a padded construct"):
        padded = Construct(length=30, pad="both", flank_left="AAAA", flank_right="AAAA")
        Loader(table, construct=padded, augment=Augment(shift=2, fill="flanks"))


def stream(loader, epochs):
    return [
        (b["index"].tolist(), decode(b["inputs"]["dna"]), loader.state_dict()) for _ in range(epochs) for b in loader
    ]


def same(a, b):
    return [x[:2] for x in a] == [x[:2] for x in b]


def test_each_epoch_is_augmented_anew():
    _, loader = make(augment=Augment(0.5, shift=3))
    first, second = ([decode(b["inputs"]["dna"]) for b in loader] for _ in range(2))
    assert first != second
    loader.start(0)
    assert [decode(b["inputs"]["dna"]) for b in loader] == first


def test_resuming_after_any_batch_gives_the_rest():
    kwargs = {
        "lengths": (10, 12),
        "shuffle": True,
        "seed": 9,
        "augment": Augment(0.5, shift=3),
        "small": "merge",
    }
    whole = stream(make(**kwargs)[1], 3)
    per_epoch = len(make(**kwargs)[1])
    assert len(whole) == 3 * per_epoch
    assert whole[0][0] != whole[per_epoch][0]
    for done in range(1, len(whole)):
        _, fresh = make(**kwargs)
        fresh.load_state_dict(whole[done - 1][2])
        rest = stream(fresh, 3 - done // per_epoch)
        assert same(rest, whole[done:]), done


def test_an_iterator_reads_its_epoch_at_its_first_batch():
    _, loader = make(shuffle=True)
    iterator = iter(loader)
    loader.set_epoch(2)
    assert next(iterator)["index"].tolist() == loader.plan(2)[0].tolist()
    loader.set_epoch(2)
    assert loader.state_dict()["batch"] == 1 and loader.sampler is loader


def test_a_pass_broken_off_starts_over():
    _, loader = make(shuffle=True)
    first = next(iter(loader))["index"].tolist()
    assert next(iter(loader))["index"].tolist() == first
    assert len(list(loader)) == len(loader) and loader.epoch == 1


def test_a_state_of_something_else_is_refused():
    _, loader = make(shuffle=True)
    state = loader.state_dict()
    for kwargs, name in [({"seed": 1}, "seed"), ({"n": 22}, "data"), ({"augment": Augment(0.5)}, "augment")]:
        with pytest.raises(DataError, match=f"was saved with {name} = "):
            make(**{"shuffle": True, **kwargs})[1].load_state_dict(state)
    for damaged in ({}, {**state, "batch": 99}, {**state, "epoch": "1"}, {"epoch": 1, "batch": 1, "of": 3}):
        with pytest.raises(DataError, match="damaged"):
            loader.load_state_dict(damaged)


def test_rows_that_do_not_fit_are_all_listed():
    table, _ = make()
    with pytest.raises(DataError) as error:
        Loader(table, [1, 2], construct=Construct(length=5))
    assert str(error.value).startswith("2 rows cannot be assembled by the construct\n  '1' (row 1): the assembled")
    with pytest.raises(DataError, match="empty selection"):
        Loader(table, [])
    with pytest.raises(DataError, match="the table has 0 to 22"):
        Loader(table, [23])
    with pytest.raises(DataError, match="wanted one of keep, drop, merge"):
        Loader(table, small="skip")
    with pytest.raises(DataError, match="batch_size=0"):
        Loader(table, batch_size=0)
