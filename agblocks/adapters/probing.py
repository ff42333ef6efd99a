"""A batch sent through a model to see what is called, with which shapes, and whether adapters change anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .errors import AdapterError, NotIdentity, SiteNeverFired

if TYPE_CHECKING:
    from .bank import AdapterBank


class _Watcher:
    """A hook that notes what a module gives."""

    def __init__(self, seen: dict[str, Any], path: str):
        self.seen, self.path = seen, path

    def __call__(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        self.seen[self.path] = out


@contextmanager
def _resting(model: nn.Module) -> Iterator[None]:
    """Evaluation without gradients; every module's mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def call(model: nn.Module, probe: Any) -> Any:
    """Call a model with a probe: named arguments, several by position, or one."""
    if isinstance(probe, Mapping):
        return model(**probe)
    return model(*probe) if isinstance(probe, tuple) else model(probe)


def run(model: nn.Module, probe: Any) -> list[Tensor]:
    """Every tensor that a model gives for a probe, in evaluation."""
    with _resting(model):
        return list(_tensors(call(model, probe)))


def watch(model: nn.Module, modules: Mapping[str, nn.Module], probe: Any) -> dict[str, Any]:
    """What modules give during a probe, by name; those that are not called are missing."""
    seen: dict[str, Any] = {}
    handles = []
    try:
        for path, module in modules.items():
            handles.append(module.register_forward_hook(_Watcher(seen, path), with_kwargs=True))
        run(model, probe)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def prove(bank: AdapterBank, name: str, probe: Any, before: list[Tensor]) -> None:
    """Raise unless every site of a name is called, outputs are finite, and identities are ones to the bit."""
    base = bank.base
    modules = {path: base.get_submodule(path) for each in bank.names[name].sites for path in each}
    fired = watch(base, modules, probe)
    if silent := [path for path in modules if path not in fired]:
        owners = ", ".join(f"{path!r} ({type(modules[path]).__name__})" for path in silent[:6])
        raise SiteNeverFired(
            f"{len(silent)} of {len(modules)} sites of {name!r} are never called by the probe: {owners}; their "
            "owner may read their weight itself, as nn.MultiheadAttention does, or the probe's outputs don't need them"
        )
    after = run(base, probe)
    if _finite(before) and not _finite(after):
        raise AdapterError(f"with {name!r} attached the probe's outputs are not finite")
    claims = all(adapter.identity for adapter in bank.adapters(name))
    if claims and not _same(before, after):
        kinds = ", ".join(sorted({adapter.kind.name for adapter in bank.adapters(name)}))
        raise NotIdentity(f"{name!r} ({kinds}) should change nothing at the start, but changed the probe's outputs")


def _finite(tensors: list[Tensor]) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in tensors if t.is_floating_point())


def _same(before: list[Tensor], after: list[Tensor]) -> bool:
    return len(before) == len(after) and all(
        a.dtype == b.dtype and torch.equal(a.nan_to_num() if a.is_floating_point() else a,
                                           b.nan_to_num() if b.is_floating_point() else b)
        for a, b in zip(before, after, strict=True)
    )  # fmt: skip


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _tensors(part)
