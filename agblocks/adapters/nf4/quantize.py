"""A model's large weights in NF4, in place, and back: what QLoRA trains its adapters beside."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ...graph import Head
from ...layers import refresh
from ..adapted import Adapted
from ..bank import AdapterBank
from ..errors import MergedStateError, QuantizedBaseError, UnsupportedModule
from ..site import Site
from ..targets import select
from .codes import BLOCK, NF4Error
from .tensor import NF4Tensor

INPUTS = 4  # channels up to which a map is left alone: convolutions that read DNA
WEIGHTS = 4096  # below which there is nothing to gain


@dataclass(frozen=True)
class Entry:
    """One weight: the modules that have it, its shape, bytes before and after, and norm of the change over its norm."""

    modules: tuple[str, ...]
    shape: tuple[int, ...]
    before: int
    after: int
    error: float
    trained: bool = field(repr=False)


@dataclass
class Quantized:
    """What `quantize` did: `entries` by weight, `left` (maps by name, and why they stayed dense), and the way back."""

    model: nn.Module = field(repr=False)
    entries: list[Entry]
    left: dict[str, str]
    originals: list[Tensor] = field(default_factory=list, repr=False)

    @property
    def modules(self) -> list[str]:
        """Names of the modules whose weights are packed."""
        return [name for entry in self.entries for name in entry.modules]

    @property
    def bytes_before(self) -> int:
        """Of the weights that are packed, as they were."""
        return sum(entry.before for entry in self.entries)

    @property
    def bytes_after(self) -> int:
        """Of the same weights, packed."""
        return sum(entry.after for entry in self.entries)

    def report(self) -> str:
        """A table: weight by weight, and in all."""
        rows = [(" = ".join(e.modules), "x".join(map(str, e.shape)), e.before, e.after, e.error) for e in self.entries]
        width = max((len(row[0]) for row in rows), default=0)
        lines = [f"{n:{width}}  {s:>16}  {b:>12,} -> {a:>11,} bytes  error {x:.4f}" for n, s, b, a, x in rows]
        total = f"{len(rows)} weights in NF4: {self.bytes_before:,} -> {self.bytes_after:,} bytes"
        return "\n".join([*lines, *(f"{name}: dense, {why}" for name, why in self.left.items()), total])

    def dequantize_(self) -> nn.Module:
        """Put dense weights back, on the device and in the type of now, and return the model.

        They are the packed ones restored; with `keep_original` those that were there before, bit for bit. They train
        if they did before; beside adapters, once those are detached.
        Raises `QuantizedBaseError`, and changes nothing, where a weight is no longer the packed one.
        """
        dense: list[Tensor] = []
        for i, entry in enumerate(self.entries):
            owners = [self.model.get_submodule(name) for name in entry.modules]
            gone = [n for n, o in zip(entry.modules, owners, strict=True) if not isinstance(o.weight, NF4Tensor)]
            if gone:
                raise QuantizedBaseError(f"the weight of {gone[0]!r} is packed no more: it was replaced since")
            weight: Tensor = owners[0].weight  # type: ignore[assignment]
            if self.originals:
                dense.append(self.originals[i].to(weight.device, weight.dtype, copy=True))
            else:
                dense.append(weight.dequantize())
        bank, known = _bank(self.model)
        part = bank is None and any(isinstance(owner, Site) for _, owner in _owners(self.model))
        for entry, tensor in zip(self.entries, dense, strict=True):
            keys = [known[name] for name in entry.modules if name in known]
            _put(self.model, entry.modules, nn.Parameter(tensor, requires_grad=entry.trained and not (keys or part)))
            if bank is not None:
                bank.flags.update(dict.fromkeys(keys, entry.trained))  # for when it is detached
        self.entries, self.originals = [], []
        return self.model


def quantize(
    model: nn.Module,
    targets: Iterable[str] | None = None,
    *,
    double: bool = True,
    block: int = BLOCK,
    keep_original: bool = False,
) -> Quantized:
    """Hold weights of a model in NF4, in place: modules, names, classes, biases and outputs' shapes stay.

    targets: names of modules, or globs over them (`"tower.**"`); Linear, Conv and Embedding, standardised convolutions.
        By default every Linear and Conv with more than 4 input channels and 4,096 weights or more, outside of heads.
    double: quantise the block scales, too (4.127 bits a weight rather than 4.5). block: weights that share a scale.
    keep_original: keep the dense weights on the CPU, for `dequantize_()` to put back bit for bit.

    The weights are frozen from then on; those that train with an adapter stay dense. Do it before `adapt`, so that
    nothing else holds the dense ones. torch.save keeps weights packed; safetensors' own functions have no form for
    them, and FSDP has to ignore them.
    Raises: `NoTargetMatch`, `UnsupportedModule`, `NF4Error`, `MergedStateError`; and then the model is as it was.
    """
    model = model.base if isinstance(model, Adapted) else model
    bank, known = _bank(model)
    if bank is not None and bank.merged:
        raise MergedStateError("adapters are merged, so quantize has to wait: unmerge_() first")
    chosen, left = _by_default(model) if targets is None else (_named(model, targets), {})
    for name, owner in _trained(bank, chosen).items():
        left[name] = f"it trains with adapter {owner!r}"
        del chosen[name]
    entries, packed, originals = [], [], []
    for names, weight in _grouped(model, chosen, left, strict=targets is not None):
        try:
            new = NF4Tensor.of(weight, block=block, double=double)
        except NF4Error as error:
            raise NF4Error(f"{names[0]}.weight: {error}") from None
        before, trained = weight.numel() * weight.element_size(), weight.requires_grad
        if bank is not None:  # as it was before adapters froze it
            trained = next((bank.flags[known[name]] for name in names if name in known), trained)
        entries.append(Entry(names, tuple(weight.shape), before, new.nbytes_held, _error(weight, new), trained))
        packed.append(nn.Parameter(new, requires_grad=False))
        if keep_original:
            originals.append(weight.detach().to("cpu", copy=True))
    for entry, parameter in zip(entries, packed, strict=True):
        _put(model, entry.modules, parameter)
    return Quantized(model, entries, left, originals)


def _owners(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Whose the hooks before modules are, with the modules' names."""
    for name, module in model.named_modules():
        for hook in module._forward_pre_hooks.values():
            yield name, getattr(hook, "__self__", None)


def _bank(model: nn.Module) -> tuple[AdapterBank | None, dict[str, str]]:
    """The adapters of a model, or of a part of it; and by modules' names the keys of the flags of their weights."""
    for path, bank in _owners(model):
        if isinstance(bank, AdapterBank):
            within = [(f"{path}.{key}" if path else key, key) for key in bank.flags]
            return bank, {name.rpartition(".")[0]: key for name, key in within if name.split(".")[-1] == "weight"}
    return None, {}


def _trained(bank: AdapterBank | None, chosen: dict[str, nn.Module]) -> dict[str, str]:
    """The modules whose weights train with adapters, and with which."""
    found: dict[str, str] = {}
    if bank is None:
        return found
    for owner, named in bank.names.items():
        weights = {id(bank.base.get_parameter(key)) for key in named.train}
        found.update({name: owner for name, module in chosen.items() if id(module.weight) in weights})
    return found


def _why_not(module: nn.Module) -> str | None:
    """Why a module's weight cannot be packed, or None."""
    conv = isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd)
    if not (conv or isinstance(module, (nn.Linear, nn.Embedding)) or hasattr(module, "conv_geometry")):
        return f"a {type(module).__name__} is no Linear, Conv or Embedding"
    weight = module._parameters.get("weight")
    if weight is None:
        return "it has no weight of its own (a parametrised one is worked out anew at each call)"
    if isinstance(weight, NF4Tensor):
        return "it is packed already"
    if type(weight) is not nn.Parameter or not weight.is_floating_point():
        return f"its weight is a {type(weight).__name__} of {weight.dtype}"
    if isinstance(module, nn.Embedding) and module.max_norm is not None:
        return "an embedding with max_norm rescales its weight"
    return None


def _by_default(model: nn.Module) -> tuple[dict[str, nn.Module], dict[str, str]]:
    heads = {id(part) for module in model.modules() if isinstance(module, Head) for part in module.modules()}
    chosen, left = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) or not (hasattr(module, "in_features") or hasattr(module, "in_channels")):
            continue
        why = _why_not(module)
        if why is None:
            inputs = int(getattr(module, "in_features", 0) or getattr(module, "in_channels", 0))
            count = module.weight.numel()
            if id(module) in heads:
                why = "it is in a head"
            elif inputs <= INPUTS:
                why = f"it reads {inputs} channels"
            elif count < WEIGHTS:
                why = f"it has {count} weights"
        if why is None:
            chosen[name] = module
        else:
            left[name] = why
    return chosen, left


def _named(model: nn.Module, targets: Iterable[str]) -> dict[str, nn.Module]:
    if isinstance(targets, str):
        targets = [targets]
    chosen: dict[str, nn.Module] = {}
    for pattern in targets:
        found = select(model, {"glob": [pattern]}, "quantize")
        reasons = {name: why for name, module in found.items() if (why := _why_not(module))}
        if len(reasons) == len(found) or (reasons and "*" not in pattern):
            name, why = next(iter(reasons.items()))
            raise UnsupportedModule(f"quantize: {pattern!r} fits nothing that can be packed; {name!r}: {why}")
        chosen |= {name: module for name, module in found.items() if name not in reasons}
    return chosen


def _grouped(
    model: nn.Module, chosen: dict[str, nn.Module], left: dict[str, str], *, strict: bool
) -> list[tuple[tuple[str, ...], Tensor]]:
    """Each weight once, with the modules that share it, all of which have to be chosen."""
    owners: dict[int, list[str]] = {}
    for path, module in model.named_modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                owners.setdefault(id(parameter), []).append(f"{path}.{name}" if path else name)
    names: dict[int, list[str]] = {}
    for path, module in chosen.items():
        names.setdefault(id(module.weight), []).append(path)
    groups: list[tuple[tuple[str, ...], Tensor]] = []
    for key, paths in names.items():
        others = sorted(set(owners[key]) - {f"{path}.weight" if path else "weight" for path in paths})
        if not others:
            groups.append((tuple(paths), chosen[paths[0]].weight))  # type: ignore[arg-type]
            continue
        why = f"its weight is {others[0]!r}, too, which would stay dense"
        if strict:
            raise UnsupportedModule(f"quantize: {paths[0]!r}: {why}; name both, or neither")
        left.update(dict.fromkeys(paths, why))
    return groups


@torch.no_grad()
def _error(weight: Tensor, packed: NF4Tensor) -> float:
    if weight.device.type == "meta":
        return float("nan")
    norm = torch.linalg.vector_norm(weight.float())
    change = torch.linalg.vector_norm(packed.dequantize().float() - weight.float())
    return float(change / norm) if float(norm) else 0.0


def _put(model: nn.Module, names: Iterable[str], parameter: nn.Parameter) -> None:
    for name in names:
        module = model.get_submodule(name)
        module._parameters["weight"] = parameter
        refresh(module)
