"""Which parameters want gradients: of adapters what acts and may train, of the base what it was said to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from ..errors import near
from .composition import Composition, Fuse, names_in
from .errors import AdapterError
from .fusion import Fusion
from .targets import select

if TYPE_CHECKING:
    from .bank import AdapterBank

_FIELDS = ("role", "glob", "type")


def set_flags(bank: AdapterBank) -> None:
    """Set every flag: an adapter that is not active must not want gradients, or DDP waits for them."""
    active, fused = set(names_in(bank.active)), _fused(bank.active)
    parameters = dict(bank.base.named_parameters())
    for parameter in parameters.values():
        parameter.requires_grad_(False)
    for name, named in bank.names.items():
        on = name in active and named.trains
        for own in named.train if on else ():
            parameters[own].requires_grad_(True)
        shared = [part for key, part in bank.shared.items() if key.startswith(f"{name}:")]
        for module in (*bank.adapters(name), *shared):
            module.requires_grad_(on and name not in fused)
    for site in bank.sites.values():
        for part in site._modules.values():
            if isinstance(part, Fusion):
                part.requires_grad_({*part.names} <= fused)


def opened(base: nn.Module, train: Iterable[str]) -> list[str]:
    """Names of the base's parameters in modules that patterns name: globs, or `role=norm`, `type=LayerNorm`."""
    owned: dict[str, None] = {}
    names = {id(p): n for n, p in base.named_parameters()}
    for pattern in [train] if isinstance(train, str) else train:
        field, equals, rest = pattern.partition("=")
        if equals and field not in _FIELDS:
            raise AdapterError(f"train {pattern!r}: {field!r} does not say what trains; {near(field, _FIELDS)}")
        target = {field: rest.split("+")} if equals else {"glob": [pattern]}
        for module in select(base, target, "train").values():
            owned.update(dict.fromkeys(names[id(p)] for p in module.parameters()))
    return list(owned)


def _fused(part: Any) -> set[str]:
    """Adapters under a fusion, which stay as they are while it trains."""
    if isinstance(part, Fuse):
        return set(part.names())
    return set().union(*(_fused(child) for child in part.parts)) if isinstance(part, Composition) else set()
