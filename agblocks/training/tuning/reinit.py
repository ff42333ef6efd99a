"""Parts of a loaded model drawn anew, as a fresh model of the same seed has them."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from ...graph.model import GraphModel
from .choose import chosen


def redrawn_names(model: GraphModel, terms: Iterable[str]) -> tuple[str, ...]:
    """The names in the state of what terms name: parameters, and with them what is kept beside them.

    Running statistics and other persistent buffers go with the parameters of their module, where it has none with
    those of the nearest part around it that has some, once all of these are named. Errors: `RunError`, what would fit.
    """
    terms = tuple(terms)
    if not terms:
        return ()
    named = {id(p) for p in chosen(model, terms, "reinit", heads=False)}
    found = {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in named}
    for name, module in model.named_modules():
        kept = [key for key, value in module._buffers.items() if value is not None]
        kept = [key for key in kept if key not in module._non_persistent_buffers_set]
        if kept and all(id(p) in named for p in _around(model, name)):
            found.update(f"{name}.{key}" if name else key for key in kept)
    return tuple(name for name in model.state_dict() if name in found)


def _around(model: nn.Module, name: str) -> list[nn.Parameter]:
    """The parameters that a module's buffers go by."""
    found = list(model.get_submodule(name).parameters())
    while not found and name:
        name = name.rpartition(".")[0]
        found = list(model.get_submodule(name).parameters())
    return found
