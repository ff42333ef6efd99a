"""Work for a cluster that is no cell: notes who did what when, and can be told to fail."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from agblocks.studies.engines import Outcome, Task


def task(name, needs=(), resources=None):
    return Task(name, ({"cell": name},), tuple(needs), resources or {"cpus": 1})


def note(out, kind, name, text=""):
    path = Path(out) / kind
    path.mkdir(exist_ok=True)
    with (path / name).open("a") as file:
        file.write(f"{text or os.getpid()}\n")


def noted(out, kind):
    folder = Path(out) / kind
    return {p.name: p.read_text().split() for p in folder.iterdir()} if folder.exists() else {}


def work(out, task):
    """Notes when it began and ended, and where."""
    note(out, "begun", task.id, str(time.time()))
    note(out, "where", task.id, os.getcwd())
    note(out, "told", task.id, os.environ.get("AGBLOCKS_TOLD", "nothing"))
    time.sleep(0.2)
    note(out, "ended", task.id, str(time.time()))
    return Outcome(task.id, task.ids, seconds=0.2)


def waits(out, task):
    """As `work`, but the first time that it is done, `slow` waits for long: to be killed while it does."""
    if task.id == "slow" and len(noted(out, "tries").get("slow", [])) == 0:
        note(out, "tries", "slow")
        time.sleep(300)
    note(out, "tries", task.id)
    return work(out, task)


def dies(out, task):
    """`bad` ends its worker every time, `broken` fails as a cell does."""
    note(out, "tries", task.id)
    if task.id == "bad":
        os.kill(os.getpid(), signal.SIGKILL)
    if task.id == "broken":
        return Outcome(task.id, (), {"broken": "as cells fail"})
    return work(out, task)


def raises(out, task):
    raise FileNotFoundError(f"{out} is not on this machine")
