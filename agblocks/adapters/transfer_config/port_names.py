"""Modules by the names that alphagenome-pytorch gives them, beside ours."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from ..place import is_norm

LINEAR, CONV, NORM, OTHER = "linear", "conv", "norm", "other"


@dataclass(frozen=True)
class Known:
    """A module with tensors: its name in alphagenome-pytorch, its name in the model, what it is, its role there."""

    theirs: str
    ours: str
    kind: str
    role: str = ""


def known(model: nn.Module) -> list[Known]:
    """The modules of a recipe's model that alphagenome-pytorch has too; of any other model all, under its own names."""
    resolved: Any = getattr(model, "resolved", None)
    if resolved is None:
        return [Known(name, name, _kind(module)) for name, module in model.named_modules() if name]
    from ...weights.alphagenome import ALPHAGENOME

    bound = ALPHAGENOME.bind([])
    found: dict[str, Known] = {}
    for node in resolved.nodes.values():
        for tensor in model.get_submodule(node.name).state_dict(prefix=f"{node.name}."):
            want = bound.wanted(tensor, node.name, node.entry.name)
            ours = tensor.rpartition(".")[0]
            key = getattr(want, "key", None)
            if key is not None and ours not in found:
                module = model.get_submodule(ours)
                found[ours] = Known(key.rpartition(".")[0], ours, _kind(module), module.__dict__.get("role", ""))
    return list(found.values())


def in_their_names(modules: Iterable[Known], keys: Iterable[str]) -> list[Known]:
    """Of these modules those that a checkpoint of alphagenome-pytorch has, by its own names alone."""
    there = {key.rpartition(".")[0] for key in keys}
    return [replace(module, ours=module.theirs, role="") for module in modules if module.theirs in there]


def heads(model: nn.Module) -> Mapping[str, list[str]]:
    """Their name of each kind of head, and ours: `atac` is `atac_1bp` and `atac_128bp`."""
    resolved: Any = getattr(model, "resolved", None)
    found: dict[str, list[str]] = {}
    for module in known(model) if resolved is not None else ():
        head = module.ours.partition(".")[0]
        first, _, rest = module.theirs.partition(".")
        name = rest.partition(".")[0] if first == "heads" else first.removesuffix("_head")
        if head in resolved.heads and head not in found.get(name, ()):
            found.setdefault(name, []).append(head)
    return found


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return LINEAR
    if isinstance(module, nn.Conv1d) or hasattr(module, "conv_geometry"):
        return CONV
    return NORM if is_norm(module) or "norm" in type(module).__name__.lower() else OTHER
