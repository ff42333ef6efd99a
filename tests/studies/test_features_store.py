"""The cache on disk: several writers, crashes, damage, limits."""

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agblocks.studies.errors import WorkError
from agblocks.studies.features.shard import Damaged, open_shard, write_shard
from agblocks.studies.features.store import Gone, Memory, Store

SPACE, OTHER = "a" * 32, "b" * 32


def keys(*numbers):
    return [number.to_bytes(16, "little") for number in numbers]


def values(*numbers, shape=(3, 2), dtype=torch.float32):
    return torch.stack([torch.full(shape, float(number % 97)) for number in numbers]).to(dtype)


@pytest.fixture(params=["disk", "memory"])
def store(request, tmp_path):
    return Store(tmp_path / "features") if request.param == "disk" else Memory()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64])
@pytest.mark.parametrize("shape", [(1,), (5,), (3, 7), (2, 2, 3)])
def test_rows_come_back_bit_for_bit(store, dtype, shape):
    wanted = torch.randn(6, *shape).mul(10).to(dtype)
    store.put(SPACE, {"what": "a test"}, keys(*range(6)), wanted)
    assert store.missing(SPACE, keys(*range(8))) == [6, 7]
    order = [4, 0, 0, 5]
    found = store.get(SPACE, keys(*order))
    assert found.dtype == dtype and torch.equal(found, wanted[order])
    assert store.missing(OTHER, keys(0)) == [0]
    with pytest.raises(Gone):
        store.get(SPACE, keys(0, 9))


def test_rows_of_several_shards_and_another_process(tmp_path):
    one, two = Store(tmp_path), Store(tmp_path)
    one.put(SPACE, {}, keys(1, 2), values(1, 2))
    assert two.missing(SPACE, keys(1, 2, 3)) == [2]
    two.put(SPACE, {}, keys(3), values(3))
    two.put(SPACE, {}, keys(2), values(2))  # twice: either is right
    assert one.missing(SPACE, keys(1, 2, 3)) == []
    assert torch.equal(one.get(SPACE, keys(3, 1, 2)), values(3, 1, 2))


def test_rows_of_different_shapes_are_asked_by_length(tmp_path):
    store = Store(tmp_path)
    store.put(SPACE, {}, keys(1), values(1))
    store.put(SPACE, {}, keys(2), values(2, shape=(3, 5)))
    assert store.missing(SPACE, keys(1, 2)) == []
    with pytest.raises(WorkError, match="rows of different shapes"):
        store.get(SPACE, keys(1, 2))


def test_a_shard_says_what_it_is_in_words(tmp_path):
    path = write_shard(tmp_path, SPACE, {"edge": "abc", "pool": "mean"}, keys(1), values(1))
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["agblocks-features"])
        assert told["space"] == SPACE and told["document"] == {"edge": "abc", "pool": "mean"}
        assert torch.equal(file.get_tensor("values"), values(1))


def shard_file(tmp_path):
    store = Store(tmp_path)
    store.put(SPACE, {"edge": "abc"}, keys(1, 2, 3), values(1, 2, 3))
    (path,) = (tmp_path / SPACE).iterdir()
    return path


def test_every_byte_counts(tmp_path):
    """One changed byte anywhere: a row is missing, or the same as before (a byte of padding); never another row."""
    path = shard_file(tmp_path)
    good = path.read_bytes()
    unnoticed = 0
    for place in range(len(good)):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0x55]) + good[place + 1 :])
        store = Store(tmp_path)
        missing = store.missing(SPACE, keys(1, 2, 3))
        there = [n for i, n in enumerate((1, 2, 3)) if i not in missing]
        if there:
            assert torch.equal(store.get(SPACE, keys(*there)), values(*there)), place
        assert not missing or store.problems
        unnoticed += not missing
    assert unnoticed < 40, "only the words of `document`, which the key says anyway, and spaces may change"


def test_every_cut_is_found(tmp_path):
    path = shard_file(tmp_path)
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        store = Store(tmp_path)
        assert store.missing(SPACE, keys(1, 2, 3)) == [0, 1, 2]
        assert list(store.problems) == [path]
    path.write_bytes(good + b"\0")
    assert Store(tmp_path).missing(SPACE, keys(1)) == [0]
    path.write_bytes(good)
    assert Store(tmp_path).missing(SPACE, keys(1)) == []


def test_one_changed_row_costs_one_row(tmp_path):
    path = shard_file(tmp_path)
    good = bytearray(path.read_bytes())
    place = bytes(good).index(values(2).numpy().tobytes())
    good[place] ^= 1
    path.write_bytes(good)
    store = Store(tmp_path)
    assert store.missing(SPACE, keys(1, 2, 3)) == [1]
    assert "row 1 is not as it was written" in store.problems[path]
    store.put(SPACE, {}, keys(2), values(2))
    assert torch.equal(store.get(SPACE, keys(1, 2, 3)), values(1, 2, 3))


@pytest.mark.parametrize("content", [b"", b"abc", b"\xff" * 300, b"{}" * 99, b"\x02\0\0\0\0\0\0\0{}"])
def test_foreign_files_are_left_alone(tmp_path, content):
    from safetensors.torch import save_file

    (tmp_path / SPACE).mkdir()
    (tmp_path / SPACE / "notes.txt").write_bytes(content)
    strange = tmp_path / SPACE / "strange.safetensors"
    strange.write_bytes(content)
    save_file({"weight": torch.zeros(3)}, tmp_path / SPACE / "weights.safetensors")
    store = Store(tmp_path)
    assert store.missing(SPACE, keys(1)) == [0]
    store.put(SPACE, {}, keys(1), values(1))
    assert store.missing(SPACE, keys(1)) == []
    assert set(store.problems) == {strange, tmp_path / SPACE / "weights.safetensors"}
    with pytest.raises(Damaged):
        open_shard(strange, SPACE)


def test_a_shard_in_another_folder_is_not_read(tmp_path):
    path = shard_file(tmp_path)
    (tmp_path / OTHER).mkdir()
    path.rename(tmp_path / OTHER / path.name)
    store = Store(tmp_path)
    assert store.missing(OTHER, keys(1)) == [0]
    assert "of another tap or other weights" in next(iter(store.problems.values()))


# Several processes


def _write(folder, first, count):
    store = Store(folder)
    for number in range(first, first + count):
        if store.missing(SPACE, keys(number)):
            store.put(SPACE, {}, keys(number), values(number))


def test_several_writers_at_once(tmp_path):
    """Four processes write overlapping rows, while this one reads: what is there is always whole."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, 10 * i, 25)) for i in range(4)]
    for writer in writers:
        writer.start()
    reader = Store(tmp_path)
    wanted = keys(*range(55))
    while any(writer.is_alive() for writer in writers):
        missing = set(reader.missing(SPACE, wanted))
        there = [n for n in range(55) if n not in missing]
        if there:
            assert torch.equal(reader.get(SPACE, keys(*there)), values(*there))
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    assert reader.missing(SPACE, wanted) == [] and not reader.problems
    assert torch.equal(reader.get(SPACE, wanted), values(*range(55)))


def _write_on(folder, first):
    store, number = Store(folder), first
    while True:
        store.put(SPACE, {}, keys(*range(number * 4, number * 4 + 4)), torch.full((4, 300, 500), float(number % 97)))
        number += 1


def test_killed_in_the_middle_of_writing(tmp_path):
    """kill -9 at any moment leaves whole shards and parts nobody reads; the next writer goes on, `prune` cleans up."""
    context = multiprocessing.get_context("fork")
    for turn in range(6):
        writer = context.Process(target=_write_on, args=(tmp_path, turn * 1000))
        writer.start()
        time.sleep(0.1 + 0.037 * turn)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
    store = Store(tmp_path)
    found = [turn * 1000 * 4 + i for turn in range(6) for i in range(400)]
    missing = set(store.missing(SPACE, keys(*found)))
    assert not store.problems
    whole = [number for place, number in enumerate(found) if place not in missing]
    assert whole, "the writers were killed before they wrote anything"
    assert all(number // 4 * 4 + i in whole for number in whole for i in range(4)), "a shard is there whole or not"
    for number in whole[:: max(1, len(whole) // 20)]:
        assert torch.equal(store.get(SPACE, keys(number))[0], torch.full((300, 500), float(number // 4 % 97)))
    store.put(SPACE, {}, keys(10**9), torch.ones(1, 300, 500))
    store.prune()
    assert not [path for path in (tmp_path / SPACE).iterdir() if path.suffix == ".part"]
    assert set(store.missing(SPACE, keys(*found))) == missing


def test_parts_of_the_living_stay(tmp_path):
    (tmp_path / SPACE).mkdir()
    mine = tmp_path / SPACE / f".{'0' * 32}.{socket.gethostname()}.{os.getpid()}.part"
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    theirs = tmp_path / SPACE / f".{'1' * 32}.{socket.gethostname()}.{dead.pid}.part"
    fresh = tmp_path / SPACE / f".{'2' * 32}.another.host.example.7.part"
    old = tmp_path / SPACE / f".{'3' * 32}.another.host.example.7.part"
    for part in (mine, theirs, fresh, old):
        part.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert Store(tmp_path).prune() == 8
    assert set((tmp_path / SPACE).iterdir()) == {mine, fresh}


# Room


def filled(folder, spaces=6, row=(100,)):
    for number in range(spaces):
        path = write_shard(folder / f"{number:032x}", f"{number:032x}", {}, keys(number), values(number, shape=row))
        os.utime(path, (1000 + number, 1000 + number))
    return Store(folder)


def test_prune_removes_what_was_not_used_for_longest(tmp_path):
    store = filled(tmp_path)
    one = store.size() // 6
    used = Store(tmp_path)
    used.missing(f"{0:032x}", keys(0))  # the oldest, but in use now
    removed = store.prune(3 * one + 10)
    assert removed == 3 * one and store.size() == 3 * one
    left = {int(path.parent.name, 16) for path in tmp_path.rglob("*.safetensors")}
    assert left == {0, 4, 5}
    assert used.prune(0) == 2 * one
    assert torch.equal(used.get(f"{0:032x}", keys(0)), values(0, shape=(100,)))


def test_what_was_pruned_meanwhile_is_missing(tmp_path):
    reader, pruner = Store(tmp_path), Store(tmp_path)
    reader.put(SPACE, {}, keys(1), values(1))
    assert reader.missing(SPACE, keys(1)) == []
    pruner.prune(0)
    assert torch.equal(reader.get(SPACE, keys(1)), values(1)), "an open file stays readable"
    assert reader.missing(SPACE, keys(1)) == [0]
    reader.put(SPACE, {}, keys(1), values(1))
    assert reader.missing(SPACE, keys(1)) == []


def test_the_limit_makes_room_or_says_why_not(tmp_path):
    one = filled(tmp_path).size() // 6
    store = Store(tmp_path, limit=4 * one)
    store.room(2 * one)
    assert store.size() == 2 * one
    store.missing(f"{5:032x}", keys(5))
    with pytest.raises(WorkError, match=r"B of features are to be kept, but the limit is .* are in use"):
        store.room(4 * one)
    store.room(3 * one)
    assert store.size() == one
    with pytest.raises(WorkError, match="the limit is -1"):
        Store(tmp_path, limit=-1)


def test_prune_removes_damaged_shards(tmp_path):
    path = shard_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-5])
    store = Store(tmp_path)
    store.missing(SPACE, keys(1))
    assert store.prune() > 0 and not path.exists() and not store.problems


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkError, match="features cannot be written"):
        Store(tmp_path / "file").put(SPACE, {}, keys(1), values(1))


@given(st.lists(st.tuples(st.sampled_from(["put", "get", "prune", "new"]), st.integers(0, 5)), max_size=25))
@settings(max_examples=40, deadline=None)
def test_any_order_of_doing_things(tmp_path_factory, done):
    """A dictionary, whatever happens: rows that are there are right, rows that are not are missing."""
    folder: Path = tmp_path_factory.mktemp("store")
    stores, model = [Store(folder), Store(folder)], set()
    for turn, (what, number) in enumerate(done):
        store = stores[turn % 2]
        if what == "put":
            store.put(SPACE, {}, keys(number), values(number))
            model.add(number)
        elif what == "prune":
            Store(folder).prune(0)
            model.clear()
        elif what == "new":
            stores[turn % 2] = Store(folder)
        else:
            assert (store.missing(SPACE, keys(number)) == []) == (number in model)
            if number in model:
                assert torch.equal(store.get(SPACE, keys(number)), values(number))
