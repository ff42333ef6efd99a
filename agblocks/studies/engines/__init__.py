"""Who runs the tasks of a study: this process, or a cluster."""

from importlib import import_module

from ...errors import near
from ..errors import WorkError
from .inline import Inline
from .task import Engine, Outcome, Perform, Queue, Task

__all__ = ["Engine", "Inline", "Outcome", "Perform", "Queue", "Task", "engine_named"]

ENGINES = ("inline", "ray")


def engine_named(name: str, address: str = "") -> Engine:
    """An engine by name. Errors: `WorkError` for another name, an address for what takes none, ray not installed."""
    if name not in ENGINES:
        raise WorkError(f"there is no engine {name!r}; {near(name, ENGINES)}")
    if name == "inline":
        if address:
            raise WorkError(
                f"--address {address}: the inline engine runs in this process; --engine ray takes an address"
            )
        return Inline()
    engine: Engine = import_module(f"{__name__}.ray").Ray(address)
    return engine
