"""agblocks: sequence-to-function models of regulatory DNA, assembled from registered blocks by short recipes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import InputError, Misfit, Problem, RecipeError, RegistrationError
from .graph import Block, Edge, Head, Nodes, Pyramid, composite, register, reset_parameters

if TYPE_CHECKING:
    from .adapters.adapted import Adapted, adapt
    from .graph.adapter_spec import AdapterSpec
    from .graph.build import build
    from .graph.diff import diff
    from .graph.model import GraphModel
    from .graph.resolve import resolve
    from .graph.resolved import Resolved
    from .weights.load import load_weights

__version__ = "0.1.0"

# What needs the resolver loads on first use, so that `import agblocks` costs little more than torch.
_LAZY = {
    "adapt": "adapters.adapted",
    "Adapted": "adapters.adapted",
    "AdapterSpec": "graph.adapter_spec",
    "build": "graph.build",
    "diff": "graph.diff",
    "GraphModel": "graph.model",
    "load_weights": "weights.load",
    "Resolved": "graph.resolved",
    "resolve": "graph.resolve",
}

__all__ = [
    "Adapted",
    "AdapterSpec",
    "Block",
    "Edge",
    "GraphModel",
    "Head",
    "InputError",
    "Misfit",
    "Nodes",
    "Problem",
    "Pyramid",
    "RecipeError",
    "RegistrationError",
    "Resolved",
    "adapt",
    "build",
    "composite",
    "diff",
    "load_weights",
    "register",
    "reset_parameters",
    "resolve",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'agblocks' has no attribute {name!r}")
    value = getattr(import_module(f"agblocks.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
