from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.errors import AgblocksError
from agblocks.files import beside, held, write_whole


@given(st.binary(max_size=300), st.none() | st.binary(max_size=9), st.booleans(), st.sampled_from(["", ".bw"]))
def test_the_new_file_whole_or_the_old_one(tmp_path_factory, content, old, breaks, suffix):
    file = tmp_path_factory.mktemp("files") / "a.bin"
    if old is not None:
        file.write_bytes(old)
    try:
        with beside(file, suffix) as part:
            assert part.parent == file.parent and part.name.endswith(f".part{suffix}")
            part.write_bytes(content)
            assert (file.read_bytes() if file.exists() else None) == old
            if breaks:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert (file.read_bytes() if file.exists() else None) == (old if breaks else content)
    assert [p.name for p in file.parent.iterdir()] == (["a.bin"] if file.exists() else [])


def test_writers_at_once(tmp_path):
    """Threads share a process number, machines may: the file is one writer's, and nothing else is left."""
    contents = [bytes([i]) * 100_000 for i in range(8)]
    writers = [
        threading.Thread(target=lambda c=c: [write_whole(tmp_path / "x", c, AgblocksError) for _ in range(5)])
        for c in contents
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert (tmp_path / "x").read_bytes() in contents and os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("name", ["x" * 255, "ж" * 127])
def test_names_as_long_as_file_systems_allow(tmp_path, name):
    write_whole(tmp_path / name, b"1", AgblocksError)
    assert (tmp_path / name).read_bytes() == b"1"


@pytest.mark.parametrize("name", [".", "/", "a\0b"])
def test_names_of_no_file(tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AgblocksError, match="cannot be written: "):
        write_whole(name, b"1", AgblocksError)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("place", ["none/file", "folder", "file/below"])
def test_why_it_cannot_be_written(tmp_path, place):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(AgblocksError, match=rf"{Path(place).name}: cannot be written: [A-Z]"):
        write_whole(tmp_path / place, b"1", AgblocksError)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"] and not os.listdir(tmp_path / "folder")


HOLDER = """
import sys, time
from pathlib import Path
from agblocks.files import held
with held(Path(sys.argv[1])) as mine:
    print(mine, flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_lock_dies_with_its_process(tmp_path, kind):
    lock = tmp_path / "lock" if kind == "file" else tmp_path
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "True\n"
        with held(lock) as mine:
            assert not mine
        holder.kill()
        holder.wait()
        with held(lock) as mine:
            assert mine
            with held(lock) as also:
                assert not also
        with held(lock) as mine:
            assert mine
    assert os.listdir(tmp_path) == (["lock"] if kind == "file" else [])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_at_a_time(tmp_path, kind):
    lock, inside, worst, times = tmp_path / "lock" if kind == "file" else tmp_path, 0, 0, []

    def work():
        nonlocal inside, worst
        while len(times) < 200:
            with held(lock) as mine:
                if mine:
                    inside += 1
                    worst = max(worst, inside)
                    times.append(1)
                    time.sleep(1e-4)
                    inside -= 1

    workers = [threading.Thread(target=work) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert worst == 1


def test_what_holds_a_lock_may_be_taken_away(tmp_path):
    """A folder that is removed and made again is another one: the old holder's end lets nobody else in."""
    folder = tmp_path / "run"
    folder.mkdir()
    with contextlib.ExitStack() as old:
        assert old.enter_context(held(folder))
        folder.rmdir()
        folder.mkdir()
        with held(folder) as mine:
            assert mine
            old.close()
            with held(folder) as third:
                assert not third
