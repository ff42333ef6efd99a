"""Processes of one machine that train one model: started, watched, and ended together."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import tempfile
import threading
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ...errors import AgblocksError
from ..errors import RunError
from ..run import Model
from ..settings import Settings
from .processes import LAUNCHED, cluster, lost, meet, part, size

if TYPE_CHECKING:
    from ..keeper import Keeper
    from ..work import Work

_GRACE = 5.0  # seconds that a process has to say why it fails, and then to end by itself
_GUARD = ', see above; in a script, fit has to stand below `if __name__ == "__main__":`, as it is read once more'
_SAID = ("done", "error", "crash", "killed", "lost", "interrupted")


def train(work: Work, model: Model, settings: Settings, checkpoint: Path, logs: Path, progress: bool) -> Keeper:
    """Train one member as `work.train` does, by as many processes as the settings say.

    Where a cluster started them, this process is one of them and trains its part. Otherwise they are started here, with
    copies of work and model: what they find comes back in the checkpoint, and the model is as it was.
    Errors: those of any of the processes, which ends all; `RunError` for one that was killed, and for too few GPUs.
    """
    if settings.processes == 1 or size() > 1 or cluster(settings) is not None:
        return work.train(model, settings, checkpoint, logs, progress)
    from ..keeper import Keeper

    there = torch.cuda.device_count() if settings.device != "cpu" else 0
    if (there or settings.device == "gpu") and there < settings.devices:
        raise RunError(f"devices is {settings.devices}, this machine has {there} GPUs; or say device cpu")
    keeper = Keeper(checkpoint, settings)
    keeper.restore()
    if not keeper.done:
        try:
            payload = pickle.dumps((work, model, settings, checkpoint, logs, progress))
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            raise RunError(
                f"what is trained cannot be handed to {settings.processes} processes ({error}); wanted devices 1, or "
                "processes that srun or torchrun starts, which need no copies"
            ) from None
        _run(payload, settings.processes)
        keeper.restore()
    return keeper


def _run(payload: bytes, count: int) -> None:
    """Start the processes, hand each its copy, and wait for all."""
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads of OpenMP may hang
    threads = max(1, torch.get_num_threads() // count)
    children: list[Any] = []
    lines: list[Connection] = []
    with tempfile.TemporaryDirectory(prefix="agblocks-") as folder:
        try:
            for number in range(count):
                ours, theirs = context.Pipe()
                arguments = (theirs, number, count, f"file://{folder}/meeting", threads)
                children.append(context.Process(target=_child, args=arguments, daemon=True))
                children[-1].start()
                theirs.close()
                lines.append(ours)
            for line in lines:
                try:
                    line.send_bytes(payload)
                except (BrokenPipeError, ConnectionResetError):
                    break  # it has ended already
            _watch(children, lines)
        finally:
            _end(children)


def _watch(children: list[Any], lines: list[Connection]) -> None:
    """Return when all have said that they are done. Errors: what the first to fail says, in the order of `_SAID`."""
    said: dict[int, tuple[str, str]] = {}
    until = None
    while len(said) < len(lines):
        left = None if until is None else max(0.0, until - time.monotonic())
        ready = wait([line for number, line in enumerate(lines) if number not in said], left)
        for number, line in enumerate(lines):
            if line in ready:
                said[number] = _heard(number, children[number], line)
        if not ready:
            break
        if until is None and any(what != "done" for what, _ in said.values()):
            until = time.monotonic() + _GRACE  # for who lost another process speaks first now and then
    what, words = min((s for s in said.values() if s[0] != "done"), key=lambda s: _SAID.index(s[0]), default=("", ""))
    if what == "interrupted":
        raise KeyboardInterrupt
    if what:
        raise RunError(words)


def _heard(number: int, child: Any, line: Connection) -> tuple[str, str]:
    try:
        what, words = line.recv()
        return what, words
    except (EOFError, ConnectionResetError):
        child.join(_GRACE)
        code = child.exitcode
        how = (
            f"was killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended by itself ({code}){_GUARD}"
        )
        return "killed", f"process {number} {how}; the run is as after its last whole epoch, and can be resumed"


def _end(children: list[Any]) -> None:
    """No process outlives this: a moment to end by itself, then it is killed."""
    until = time.monotonic() + _GRACE
    for child in children:
        child.join(max(0.1, until - time.monotonic()))
    for child in children:
        if child.is_alive():
            child.kill()  # one that waits for another in a collective hears no SIGTERM
            child.join()


def _child(line: Connection, number: int, count: int, where: str, threads: int) -> None:
    """One process: reads its copy, trains its part, says how it ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()  # type: ignore[func-returns-value]
    os.environ.update({LAUNCHED: "1", "LOCAL_RANK": str(number), "NODE_RANK": "0", "WORLD_SIZE": str(count)})
    torch.set_num_threads(threads)
    try:
        work, model, settings, checkpoint, logs, progress = pickle.loads(line.recv_bytes())
        meet(settings, number, where)
        work.train(model, settings, checkpoint, logs, progress and number == 0)
        line.send(("done", ""))
        part()
    except KeyboardInterrupt:
        line.send(("interrupted", ""))
    except AgblocksError as error:
        line.send(("error", str(error)))
    except BaseException as error:
        text = f"process {number} of {count} failed: {traceback.format_exc()}"
        line.send(("lost" if lost(error) else "crash", text))
