"""Cells one after the other in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence

from .task import Perform, Queue, Task, Told


class Inline:
    """The engine that needs nothing. Several processes on one folder share its work: what one claims, others leave.

    Use when: on one machine; start it twice for two cores.
    """

    def run(self, out: str, tasks: Sequence[Task], perform: Perform, told: Told) -> None:
        """Every task in turn; waits for what other processes are doing."""
        queue = Queue(tasks)
        while queue.left:
            task = queue.next()
            if task is None:
                time.sleep(max(0.05, queue.pause()))
                continue
            outcome = perform(out, task)
            queue.ended(outcome)
            if not outcome.busy:
                told(outcome)
        for outcome in queue.stuck():
            told(outcome)
