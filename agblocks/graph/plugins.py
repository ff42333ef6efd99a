"""Modules that register by being imported: the package's own rooms, and what other packages announce."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import warnings
from importlib.metadata import entry_points


def import_room(name: str) -> None:
    """Import every module of one of the package's folders, like `adapters.methods`."""
    package = importlib.import_module(f"{__name__.split('.')[0]}.{name}")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def import_plugins(group: str, what: str) -> None:
    """Import what is announced in an entry-point group. A broken plug-in warns, and is left out."""
    for plugin in entry_points(group=group):
        try:
            loaded = plugin.load()
            if inspect.isfunction(loaded):
                loaded()
        except Exception as error:  # whatever a stranger's import raises
            warnings.warn(
                f"plug-in {plugin.name!r} ({plugin.value}) registers no {what}: {type(error).__name__}: {error}",
                stacklevel=3,
            )
