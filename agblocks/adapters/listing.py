"""What is told of a bank's adapters: to people, and to optimisers by the names of parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from .adapter import Adapter

if TYPE_CHECKING:
    from .bank import AdapterBank


def rows(bank: AdapterBank) -> list[dict[str, Any]]:
    """A row for every adapter: its name, kind, site, the module there, its role, its parameters."""
    made = []
    for path, site in bank._with_paths():
        module = bank.base.get_submodule(path)
        for key, adapter in site.named_children():
            name, _, kind = key.partition(":")
            made.append({"name": name, "kind": kind, "site": path, "module": type(module).__name__,
                         "role": module.__dict__.get("role", ""),
                         "parameters": sum(p.numel() for p in adapter.parameters())})  # fmt: skip
    return made


def no_weight_decay(bank: nn.Module, prefix: str) -> set[str]:
    """Parameters of adapters for which decay to 0 makes no sense."""
    adapters = [(name, m) for name, m in bank.named_modules() if isinstance(m, Adapter) and not m.decays]
    return {f"{prefix}{name}.{own}" for name, adapter in adapters for own, _ in adapter.named_parameters()}


def learning_rates(bank: nn.Module, prefix: str) -> dict[str, float]:
    """Factors of the learning rate other than 1, by parameter."""
    adapters = [(name, m) for name, m in bank.named_modules() if isinstance(m, Adapter)]
    return {f"{prefix}{name}.{own}": rate for name, a in adapters for own, rate in a.learning_rates().items()}
