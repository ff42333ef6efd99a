"""One task: claimed, its cells done that are not, results and failures written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from ..engines.task import Outcome, Task
from ..planning.cell import Cell
from ..store import Store
from .memory import Peak
from .outcome import Done, failure

Ended = Callable[[Cell, "Done | Exception"], None]


def perform(out: str, task: Task) -> Outcome:
    """Do what of a task is not done. Safe to call from several processes at once, and again after one was killed.

    A cell that failed before is not tried again: `Store.forget_failure` asks for that.
    """
    from . import gradient, kmer, ridge

    doing: dict[str, Callable[[Sequence[Cell], Store, Ended], None]] = {
        "kmer": kmer.do, "ridge": ridge.do, "gradient": gradient.do,
    }  # fmt: skip
    store, begun = Store(out), time.monotonic()
    done: list[str] = []
    failed: dict[str, str] = {}
    with store.claim(task.id) as mine:
        if not mine:
            return Outcome(task.id, busy=True)
        left: list[Cell] = []
        for cell in map(Cell.from_dict, task.cells):
            if store.done(cell):
                done.append(cell.id)
            elif (before := store.failed(cell.id)) is not None:
                failed[cell.id] = before["error"]
            else:
                left.append(cell)
        peak = Peak()

        def ended(cell: Cell, made: Done | Exception) -> None:
            if isinstance(made, Exception):
                store.write_failed(cell, told := failure(cell, made))
                failed[cell.id] = told["error"]
            else:
                store.write(cell, made.to_dict(cell, cell.given.get("command", ""), peak.mb()), made.predictions)
                done.append(cell.id)

        if left:
            try:
                doing[left[0].fit](left, store, ended)
            except Exception as error:
                # What they share could not be had: each of them fails of it.
                for cell in left:
                    if cell.id not in done and cell.id not in failed:
                        ended(cell, error)
    return Outcome(task.id, tuple(done), failed, seconds=time.monotonic() - begun)
