"""A batch sent through a model to see what is called, with which shapes, and whether adapters change anything."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .adapter import given, main
from .errors import AdapterError, NotIdentity, SiteNeverFired, UnsupportedModule
from .place import OVERWRITES

if TYPE_CHECKING:
    from .bank import AdapterBank


@dataclass
class Call:
    """Shapes of what a module was called with first and of what it gave, None where that is no tensor."""

    read: torch.Size | None
    sources: tuple[str, ...]  # modules that gave what it read, that very tensor
    gave: torch.Size | None = None
    overwritten: bool = False  # what it read, by itself


class _Watcher:
    """Two hooks that note a module's last call; `seen` is in the order in which calls ended. No tensor is kept."""

    def __init__(self, seen: dict[str, Call], made: dict[int, tuple[Any, list[str]]], path: str):
        self.seen, self.made, self.path = seen, made, path
        self.calls: list[tuple[Call, int | None]] = []

    def before(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        read = _main(given(module, args, kwargs)) if args or kwargs else None
        self.calls.append((Call(_shape(read), tuple(self._makers(read))), _version(read)))

    def after(self, module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        (call, version), gave = self.calls.pop(), _main(out)
        read = _main(given(module, args, kwargs)) if args or kwargs else None
        call.gave, call.overwritten = _shape(gave), _version(read) != version
        if gave is not None and not torch.compiler.is_compiling():  # traced tensors have no identity
            self.made[id(gave)] = (weakref.ref(gave), [*self._makers(gave), self.path])
        self.seen.pop(self.path, None)
        self.seen[self.path] = call

    def _makers(self, tensor: Tensor | None) -> list[str]:
        if torch.compiler.is_compiling():
            return []
        held, paths = self.made.get(id(tensor), (lambda: None, []))
        return paths if tensor is not None and held() is tensor else []


def _main(value: Any) -> Tensor | None:
    try:
        return main(value)
    except (TypeError, IndexError, KeyError, StopIteration, RecursionError):
        return None


def _shape(tensor: Tensor | None) -> torch.Size | None:
    return None if tensor is None else tensor.shape


def _version(value: Tensor | None) -> int | None:
    """How often a tensor was written to."""
    return None if value is None or torch.compiler.is_compiling() or value.is_inference() else value._version


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


def watch(model: nn.Module, modules: Mapping[str, nn.Module], probe: Any) -> dict[str, Call]:
    """Modules' last calls during a probe, by name, as they ended; those that are not called are missing."""
    seen: dict[str, Call] = {}
    made: dict[int, tuple[Any, list[str]]] = {}
    handles = []
    try:
        for path, module in modules.items():
            watcher = _Watcher(seen, made, path)
            handles.append(module.register_forward_pre_hook(watcher.before, with_kwargs=True))
            handles.append(module.register_forward_hook(watcher.after, with_kwargs=True))
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
    for adapter in bank.adapters(name):
        if getattr(adapter, "taps_input", False) and fired[adapter.path].overwritten:
            raise UnsupportedModule(f"{adapter.kind.name!r} cannot sit on {adapter.path!r}: {OVERWRITES}")
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
