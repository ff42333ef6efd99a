"""Where this process stands among those that train one model, and what it says to them."""

from __future__ import annotations

import atexit
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any

import torch

from ..errors import RunError
from ..settings import Settings

LAUNCHED = "AGBLOCKS_LAUNCHED"  # set in processes that `launch` started
_PATIENCE = timedelta(days=30)  # for one process to score and write while the others wait
_waiting: Any = None  # the group for messages, beside that for gradients
_within = False  # whether this process trains with others right now: groups outlive that


def size() -> int:
    """How many processes train together, 1 outside of training by several."""
    return torch.distributed.get_world_size() if _joined() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return torch.distributed.get_rank() if _joined() else 0


def _joined() -> bool:
    return _within and torch.distributed.is_initialized()


def is_first(settings: Settings) -> bool:
    """Whether this process is the one that writes and speaks, also before the processes have met."""
    environment = cluster(settings)
    return rank() == 0 if _joined() or environment is None else environment.global_rank() == 0


def cluster(settings: Settings) -> Any:
    """Lightning's view of whoever started several processes for this training (srun, torchrun); None if nobody has.

    Errors: `RunError` if there are others than the settings say.
    """
    if settings.processes == 1:
        return None
    from ..._torchvision import mend

    mend()
    from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment, TorchElasticEnvironment

    if os.environ.get(LAUNCHED):
        return LightningEnvironment()
    asked = f"--devices {settings.devices} --nodes {settings.nodes}"
    # In a job's own script SLURM_NTASKS is there too; that of a step says that srun started this process.
    if (tasks := int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))) > 1:
        if tasks != settings.processes:
            raise RunError(f"srun started {tasks} processes, {asked} are {settings.processes}: wanted as many")
        if "SLURM_NTASKS_PER_NODE" not in os.environ:  # Lightning wants it, with other words
            raise RunError(f"srun started {tasks} processes by --ntasks; wanted --ntasks-per-node={settings.devices}")
        return SLURMEnvironment(auto_requeue=False)
    if TorchElasticEnvironment.detect():
        if (tasks := TorchElasticEnvironment().world_size()) != settings.processes:
            raise RunError(f"torchrun started {tasks} processes, {asked} are {settings.processes}: wanted as many")
        return TorchElasticEnvironment()
    if settings.nodes > 1:
        raise RunError(
            f"nodes is {settings.nodes}, but nobody started this process on several: wanted a cluster's srun (see "
            "examples/slurm/fit.sbatch) or torchrun"
        )
    return None


def together(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with a parameter `settings` that all processes of a cluster call together: they meet before it."""
    signature = inspect.signature(function)

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with met(signature.bind(*args, **kwargs).arguments["settings"]):
            return function(*args, **kwargs)

    return called


@contextmanager
def met(settings: Settings) -> Iterator[None]:
    """Meet the processes that a cluster started for this training; nothing where this one is alone, or met already.

    Errors: as `cluster`; `RunError` where another process has ended.
    """
    environment = None if _joined() else cluster(settings)
    if environment is None:
        yield
        return
    global _within
    where = f"tcp://{environment.main_address}:{environment.main_port}"
    # torchrun has a meeting place of its own at that port
    meet(settings, environment.global_rank(), "env://" if os.environ.get("TORCHELASTIC_RUN_ID") else where)
    try:
        yield
    except RuntimeError as error:
        if lost(error):
            raise RunError(
                f"process {rank()} of {size()} lost the others ({str(error).splitlines()[0]}); the one that failed "
                "first says why"
            ) from error
        raise
    finally:
        _within = False  # but the group stays, for the next training of this process


def meet(settings: Settings, number: int, where: str) -> None:
    """Join the others at an address: `tcp://host:port`, or a file that all see. Once for all trainings of a process."""
    global _waiting, _within
    if not torch.distributed.is_initialized():
        on_gpu = settings.device != "cpu" and torch.cuda.is_available()
        if on_gpu:  # before Lightning does: groups and shards are made on it
            torch.cuda.set_device(number % settings.devices)
        torch.distributed.init_process_group(
            "nccl" if on_gpu else "gloo", init_method=where, rank=number, world_size=settings.processes,
            timeout=timedelta(minutes=30),
        )  # fmt: skip
        _waiting = torch.distributed.new_group(backend="gloo", timeout=_PATIENCE)
        atexit.register(part)
    _within = True


def part() -> None:
    """Leave the others."""
    global _waiting, _within
    _waiting, _within = None, False
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def lost(error: BaseException) -> bool:
    """Whether it says that another process is gone."""
    said = str(error)
    words = ("closed by peer", "reset by peer", "timed out", "Timed out", "Broken pipe", "[gloo", "NCCL", "TCPStore")
    return isinstance(error, RuntimeError) and any(word in said for word in words)


def once(work: Callable[[], Any]) -> Any:
    """Let the first process do it while the others wait: all get what it gave, or raise what it raised.

    What it gives has to be small and plain. Errors: those of `work`; in the other processes a `RunError` of its words.
    """
    if size() == 1:
        return work()
    said: list[Any] = [None]
    if rank() == 0:
        try:
            said = [("gave", work())]
        except BaseException as error:
            _tell([("failed", str(error) or type(error).__name__)])
            raise
    said = _tell(said)
    what, given = said[0]
    if what == "failed":
        raise RunError(given)
    return given


def _tell(said: list[Any]) -> list[Any]:
    torch.distributed.broadcast_object_list(said, 0, group=_waiting)
    return said
