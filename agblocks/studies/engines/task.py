"""What engines are given: tasks, what becomes of them, and the order in which they can be done."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

AGAIN = 1.0  # seconds before work that another process has claimed is asked for again


@dataclass(frozen=True)
class Task:
    """Cells that are done together, because they share a model or features; mostly one.

    cells: as `Cell.to_dict` gives them, plain values. needs: ids of cells that must be finished before.
    resources: cpus, gpus, memory in GB, where the study says. Picklable.
    """

    id: str
    cells: tuple[Mapping[str, Any], ...]
    needs: tuple[str, ...] = ()
    resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(cell["cell"] for cell in self.cells)


@dataclass(frozen=True)
class Outcome:
    """What became of a task: which of its cells are finished, which failed and why; or that somebody else has it.

    seconds: that it took. waits: of a task that was never begun, the cells that did not come. Picklable.
    """

    task: str
    done: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    busy: bool = False
    seconds: float = 0.0
    waits: tuple[str, ...] = ()


Perform = Callable[[str, Task], Outcome]
Told = Callable[[Outcome], None]


class Engine(Protocol):
    """Does every task for which `perform(out, task)` has to be called, each after the cells that it needs.

    `perform` is a function at the top of a module. It claims the task, does what is not done, writes each result once,
    and never raises for a cell that fails; called again for a task that is done it does nothing. `told` hears of every
    task's outcome as it comes, and of what could not be begun.
    """

    def run(self, out: str, tasks: Sequence[Task], perform: Perform, told: Told) -> None: ...


class Queue:
    """The order of tasks: which can be begun, which wait for others, which never can. Knows no engine.

    Use when: writing an engine: `next()` until it is None, `ended(outcome)` as they come, while `left`; then `stuck()`.
    """

    def __init__(self, tasks: Iterable[Task], clock: Callable[[], float] = time.monotonic):
        self.waiting: list[Task] = list(tasks)
        self.running: dict[str, Task] = {}
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self._clock = clock
        self._again: dict[str, float] = {}
        self._coming = {cell for task in self.waiting for cell in task.ids}

    @property
    def left(self) -> bool:
        """Whether anything runs, or can still be begun."""
        return bool(self.running) or any(not self._lost(task) for task in self.waiting)

    def next(self) -> Task | None:
        """A task that can be begun now, counted as running from here on; None if none can (yet)."""
        now = self._clock()
        for task in self.waiting:
            if self._again.get(task.id, 0.0) <= now and all(self._there(need) for need in task.needs):
                self.waiting.remove(task)
                self.running[task.id] = task
                return task
        return None

    def pause(self) -> float:
        """Seconds until something that somebody else has may be asked for again; 0 if there is no such thing."""
        soon = [self._again[task.id] - self._clock() for task in self.waiting if task.id in self._again]
        return max(0.0, min(soon)) if soon else 0.0

    def ended(self, outcome: Outcome) -> None:
        """Take note of what became of a running task. One that somebody else has goes back to the end."""
        task = self.running.pop(outcome.task)
        self.done.update(outcome.done)
        self.failed.update(outcome.failed)
        if outcome.busy:
            self._again[task.id] = self._clock() + AGAIN
            self.waiting.append(task)

    def stuck(self) -> list[Outcome]:
        """Of every task that can never be begun, which cells it waits for."""
        lost = [task for task in self.waiting if self._lost(task)]
        return [Outcome(t.id, waits=tuple(n for n in t.needs if not self._there(n))) for t in lost]

    def _there(self, need: str) -> bool:
        # A cell that no task of this queue makes was there before.
        return need in self.done or need not in self._coming

    def _lost(self, task: Task) -> bool:
        """Whether something it needs has failed, or waits for something that has."""
        gone = set(self.failed)
        changed = True
        while changed:
            changed = False
            for other in self.waiting:
                if gone.intersection(other.needs) and not gone.issuperset(other.ids):
                    gone.update(other.ids)
                    changed = True
        return bool(gone.intersection(task.needs))
