"""Cells on a Ray cluster: as many at once as it has room for, and again where a worker died."""

from __future__ import annotations

import logging
import os
import pickle
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import WorkError
from .task import Outcome, Perform, Queue, Task, Told

RETRIES = 3  # of a task whose worker was killed, or whose machine is gone
STARTS = 3  # of a cluster of this machine: where it is busy, Ray's own parts don't come up in their seconds
GB = 1024**3
_HINT = (
    "wanted a Ray cluster: `ray start --head` starts one, host:6379 names it, 'auto' that of this machine, and without "
    "an address one is started for the study"
)
_LOOK = 1.0  # seconds between looks at what others, outside this cluster, have ended


class Ray:
    """The engine for many machines.

    address: `auto` for the cluster that runs on this machine, `host:6379` or `ray://host:10001` for another; without
        one a cluster of this machine alone is started, and ended with the study. cpus: of that one, by default all.
    A task takes the study's `resources` (cpus, 1 by default; gpus; memory in GB). The study's folder and its data have
    to be on a file system that all machines see, under the same paths, and agblocks installed there.

    Errors: `WorkError` where ray is not installed, the address is no cluster's, or no machine has room for a cell.
    Use when: cells are many and take minutes. `--share` needs no cluster, an array of jobs is enough for that.
    """

    def __init__(self, address: str = "", cpus: int | None = None):
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
        try:
            self._ray: Any = import_module("ray")
        except ImportError as error:
            raise WorkError(f"--engine ray: {error}; it comes with pip install 'agblocks[ray]'") from None
        self.address, self.cpus = address, cpus

    def run(self, out: str, tasks: Sequence[Task], perform: Perform, told: Told) -> None:
        """Every task on some worker, each after what it needs; results are written by the workers, once."""
        folder = str(Path(out).resolve())
        queue = Queue(tasks)
        with self._cluster():
            self._check_room(tasks)
            running: dict[Any, Task] = {}
            while queue.left:
                while (task := queue.next()) is not None:
                    running[self._begin(folder, task, perform)] = task
                if not running:
                    time.sleep(max(0.05, queue.pause()))
                    continue
                ended, _ = self._ray.wait(list(running), timeout=_LOOK)
                for promise in ended:
                    outcome = self._outcome(folder, promise, running.pop(promise))
                    queue.ended(outcome)
                    if not outcome.busy:
                        told(outcome)
        for outcome in queue.stuck():
            told(outcome)

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        """Be connected; afterwards as before."""
        ray = self._ray
        if ray.is_initialized():
            yield
            return
        for left in reversed(range(1 if self.address else STARTS)):
            try:
                self._connect()
                break
            except Exception as error:  # ray's are ConnectionError, ValueError, RuntimeError or its own, by the address
                ray.shutdown()
                said = (str(error).strip() or type(error).__name__).splitlines()[0]
                if left == 0:
                    raise WorkError(f"--address {self.address or 'local'}: {said.rstrip('.')}; {_HINT}") from None
        try:
            yield
        finally:
            ray.shutdown()

    def _connect(self) -> None:
        options: dict[str, Any] = {"address": self.address}
        if not self.address:
            options = {"address": "local", "include_dashboard": False, "num_cpus": self.cpus or os.cpu_count()}
        elif self.address != "auto":
            _call(self.address)
        self._ray.init(**options, logging_level=logging.ERROR, log_to_driver=False)

    def _check_room(self, tasks: Sequence[Task]) -> None:
        """What fits no machine would wait forever."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        for wanted in {tuple(sorted(task.resources.items())): task.resources for task in tasks}.values():
            amounts = _amounts(wanted)
            if not any(all(node.get(name, 0) >= amount for name, amount in amounts.items()) for node in nodes):
                there = "; ".join(_said(node) for node in nodes) or "none"
                raise WorkError(f"resources: a cell wants {_said(amounts)}, and no machine has that: there are {there}")

    def _begin(self, folder: str, task: Task, perform: Perform) -> Any:
        amounts = _amounts(task.resources)
        options = {
            "num_cpus": amounts["CPU"], "num_gpus": amounts.get("GPU", 0), "max_retries": RETRIES,
            "memory": int(amounts.get("memory", 0)) or None, "name": f"{task.id} {' '.join(task.ids[:3])}",
        }  # fmt: skip
        here = {name: value for name, value in os.environ.items() if name.startswith("AGBLOCKS_")}
        remote = self._ray.remote(**options)(_done_there)
        # Pickled here, so that it is read where modules beside the study's own command are found as they are here.
        work = pickle.dumps((perform, folder, task))
        return remote.remote(work, os.getcwd(), sys.path, here, max(1, int(amounts["CPU"])))

    def _outcome(self, folder: str, promise: Any, task: Task) -> Outcome:
        """What a worker said. Of one that never came to say anything: what it had finished, and that it died."""
        errors = self._ray.exceptions
        try:
            outcome: Outcome = self._ray.get(promise)
            return outcome
        except errors.RayTaskError:
            raise  # of `perform` itself, which never raises for a cell: the folder is not there, say
        except errors.RayError as error:
            from ..store import Store

            store = Store(folder)
            done = tuple(cell for cell in task.ids if store.result(cell) is not None)
            said = (str(error).strip() or type(error).__name__).splitlines()[0]
            reason = f"its worker died {RETRIES + 1} times, out of memory perhaps ({type(error).__name__}: {said})"
            return Outcome(task.id, done, {cell: reason for cell in task.ids if cell not in done})


def _call(address: str) -> None:
    """Whether anybody listens there, which Ray would take many minutes to find out. Errors: `OSError`, `ValueError`."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("not an address")
    with socket.create_connection((host.strip("[]"), int(port)), timeout=10):
        pass


def _done_there(work: bytes, where: str, path: Sequence[str], environment: Mapping[str, str], threads: int) -> Outcome:
    """A task in a worker, as it would be done where the study was started."""
    import torch

    os.environ.update(environment)
    if os.path.isdir(where):
        os.chdir(where)  # paths of a study are relative to it
    sys.path += [entry for entry in path if entry not in sys.path]
    torch.set_num_threads(threads)
    perform, folder, task = pickle.loads(work)
    outcome: Outcome = perform(folder, task)
    return outcome


def _amounts(resources: Mapping[str, float]) -> dict[str, float]:
    """A study's resources by Ray's names."""
    amounts = {"CPU": float(resources.get("cpus", 1))}
    if resources.get("gpus"):
        amounts["GPU"] = float(resources["gpus"])
    if resources.get("memory"):
        amounts["memory"] = float(resources["memory"]) * GB
    return amounts


def _said(amounts: Mapping[str, float]) -> str:
    parts = [f"{amounts[name]:g} {word}" for name, word in (("CPU", "cpus"), ("GPU", "gpus")) if name in amounts]
    return ", ".join([*parts, *([f"{amounts['memory'] / GB:.1f} GB"] if "memory" in amounts else [])])
