"""Folding adapters into the base's own weights, and back."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from . import affine
from .errors import NotMergeable, QuantizedBaseError, StaleMerge
from .place import place_of

if TYPE_CHECKING:
    from .bank import AdapterBank
    from .site import Site


@dataclass
class Change:
    """What merging did to one module."""

    site: str
    largest: float  # of |new - old| in any of its tensors
    lost: float  # share of weights that should have changed, but did not in their own precision


@dataclass
class Merge:
    """A merge that can be undone: the tensors it wrote, as they were, on the CPU."""

    changes: list[Change] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)  # sites that stay attached, and why
    backup: list[tuple[str, Tensor, Tensor, int]] = field(default_factory=list)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy or a pickle: its tensors are others, and count their changes anew."""
        self.__dict__.update(state)
        self.backup = [(name, tensor, old, tensor._version) for name, tensor, old, _ in self.backup]

    def undo(self, force: bool) -> None:
        """Copy the backup back."""
        stale = [name for name, tensor, _, version in self.backup if tensor._version != version]
        if stale and not force:
            raise StaleMerge(
                f"{len(stale)} tensors were changed since they were merged, first {stale[0]!r}; unmerging would lose "
                "that (unmerge_(force=True) does)"
            )
        with torch.no_grad():
            for _, tensor, old, _ in self.backup:
                tensor.copy_(old)


def merge(bank: AdapterBank, *, partial: bool) -> Merge:
    """Fold the active adapters into the weights of their modules: in float64, rounded once.

    Raises `NotMergeable`, naming every site and why, and then nothing has changed; with `partial` those stay attached.
    """
    plans: list[tuple[Site, nn.Module, list[Any], list[Any], list[Any]]] = []
    refused: dict[str, str] = {}
    owners = _owners(bank.base)
    for path, site in bank._with_paths():
        module = bank.base.get_submodule(path)
        folds, pre, post, why = _plan(site, module)
        if folds and (tied := _tied(owners, module)):
            folds, why = [], tied
        if why:
            refused[path] = why
        if folds:
            plans.append((site, module, folds, pre, post))
    if refused and not partial:
        listed = "\n".join(f"  {path}: {why}" for path, why in [*refused.items()][:12])
        raise NotMergeable(
            f"{len(refused)} sites cannot be merged; merge_(partial=True) leaves those attached\n{listed}"
        )
    _warn_of_others(bank, [(site, module) for site, module, *_ in plans])
    done = Merge(left=refused)
    try:
        for site, module, folds, _, _ in plans:
            _fold(done, site, module, folds)
    except BaseException:
        done.undo(force=True)
        raise
    for site, _, _, pre, post in plans:
        site._pre, site._post = tuple(pre), tuple(post)
    return done


def _plan(site: Site, module: nn.Module) -> tuple[list[Any], list[Any], list[Any], str]:
    """What of a site is folded, in order; what stays before and after; and why."""
    folds, pre, post, why = [], list(site._pre), list(site._post), ""
    while post and not (why := post[0].unfoldable(module) or ""):
        folds.append(post.pop(0))
    while pre and not post and not (why := pre[-1].unfoldable(module) or ""):  # what stays behind may read its input
        folds.append(pre.pop())
    if not why:
        return folds, pre, post, ""
    why = f"{_named(post[0] if post else pre[-1])}: {why}"
    if folds and (reader := next((step for step in post if step.reads_weight), None)):
        why += f" (and {_named(reader)}, which stays, reads the weight, so nothing is folded into it)"
        folds, pre, post = [], list(site._pre), list(site._post)
    return folds, pre, post, why


def _named(step: Any) -> str:
    kind = getattr(getattr(step, "adapter", step), "kind", None)
    return kind.name if kind is not None else type(step).__name__.lower()


def _fold(done: Merge, site: Site, module: nn.Module, folds: list[Any]) -> None:
    before = affine.read(module)
    after = before
    for step in folds:
        after = step.fold(after, module)
    tensors = affine.tensors(module)
    olds = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
    affine.write(place_of(site.path, module), after)
    for name, tensor in tensors.items():
        done.backup.append((f"{site.path}.{name}", tensor, olds[name], tensor._version))
    written = affine.read(module)
    moved = (after.weight - before.weight).abs() > 0
    same = moved & (written.weight == before.weight)
    lost = float(same.sum() / moved.sum()) if bool(moved.any()) else 0.0
    done.changes.append(Change(site.path, float((written.weight - before.weight).abs().max()), lost))


Owners = dict[Any, list[tuple[int, int, str]]]  # by memory: from which byte to which, and whose it is


def _owners(base: nn.Module) -> Owners:
    owners: Owners = {}
    for path, module in base.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            memory, start, stop = _memory(parameter)
            owners.setdefault(memory, []).append((start, stop, f"{path}.{name}"))
    return owners


def _memory(tensor: Tensor) -> tuple[Any, int, int]:
    """Where a tensor's values lie: which memory, and which bytes of it."""
    if type(tensor.data) is not Tensor or tensor.layout != torch.strided or tensor.is_meta or not tensor.numel():
        return id(tensor), 0, 1
    start = int(tensor.storage_offset())
    stop = start + 1 + sum((int(n) - 1) * int(by) for n, by in zip(tensor.shape, tensor.stride(), strict=True))
    size = tensor.element_size()
    return (tensor.device, tensor.untyped_storage().data_ptr()), start * size, stop * size


def _tied(owners: Owners, module: nn.Module) -> str:
    """Why a module's tensors cannot be written without another module's being changed, or nothing."""
    for tensor in affine.tensors(module).values():
        memory, start, stop = _memory(tensor)
        names = [name for first, last, name in owners.get(memory, ()) if first < stop and start < last]
        if type(tensor.data) is not Tensor:
            raise QuantizedBaseError(f"{names[0]} is quantised; merge after dequantising it")
        if len(names) > 1:
            return f"{' and '.join(names)} are one tensor: merging into one would change the other"
    return ""


def _warn_of_others(bank: AdapterBank, sites: list[tuple[Site, nn.Module]]) -> None:
    """Say where hooks of somebody else act: beside what is now in the weights, that is another order."""
    found = []
    for site, module in sites:
        hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
        if "forward" in vars(module) or any(getattr(h, "__self__", None) not in (site, bank) for h in hooks):
            found.append(repr(site.path))
    if found:
        warnings.warn(
            f"{len(found)} modules that are merged into have hooks that are not of these adapters, "
            f"{', '.join(found[:6])}: they stay, and now act after the adapters, or read other values than before; "
            "compare outputs",
            stacklevel=4,
        )
