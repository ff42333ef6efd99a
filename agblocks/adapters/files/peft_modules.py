"""Modules of the base that trained beside adapters, which peft keeps whole: its `modules_to_save`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import near
from ..errors import AdapterFileError, BaseMismatch, UnsupportedModule
from .fingerprint import is_quantised
from .finite import suited

_LISTS = (nn.ModuleList, nn.ModuleDict, nn.ParameterList, nn.ParameterDict)


def whole_modules(name: str, base: nn.Module, train: Collection[str], sites: Iterable[str]) -> list[str]:
    """The outermost modules that parameters in `train` make up, each of which peft finds by its name alone.

    Raises `UnsupportedModule` where they make up none, or peft would find others too, or an adapter sits inside.
    """
    left, found = set(train), list[str]()

    def refuse(what: str) -> UnsupportedModule:
        return UnsupportedModule(f"{name!r} cannot be written in peft's layout: {what}")

    for path, module in base.named_modules():
        own = {f"{path}.{key}" for key, _ in module.named_parameters()}
        called = type(module).forward is not nn.Module.forward and not isinstance(module, _LISTS)
        if path and own and called and own <= left:
            found.append(path)
            left -= own
    if left:
        raise refuse(f"{sorted(left)[0]!r} trained, but not all of the module that holds it")
    for path in found:
        others = [other for other, _ in base.named_modules(remove_duplicate=False)
                  if other.endswith(path) and other != path]  # fmt: skip
        if others:
            raise refuse(f"{path!r} trained, and peft, which goes by the ends of names, would take {others[0]!r} too")
        inside = [site for site in sites if re.match(rf"(^|.*\.){re.escape(path)}($|\..*)", site)]
        if inside:
            raise refuse(f"{path!r} trained, and an adapter sits inside, on {inside[0]!r}")
    return found


def tensors_of(base: nn.Module, paths: Iterable[str]) -> dict[str, Tensor]:
    """Parameters and statistics of modules by their names in the base."""
    return {
        f"{path}.{key}": value.detach()
        for path in paths
        for key, value in base.get_submodule(path).state_dict().items()
        if isinstance(value, Tensor)
    }


def found_modules(
    folder: Path, base: nn.Module, ends: Collection[str], tensors: Mapping[str, Tensor]
) -> tuple[list[str], dict[str, Tensor]]:
    """The modules that a folder's whole modules are here, and their tensors by name; every one there, of its shape."""
    names = [path for path, _ in base.named_modules() if path and any(path.endswith(end) for end in ends)]
    outer = [path for path in names if not any(path.startswith(f"{other}.") for other in names)]
    paths = [path for path in outer if any(key.startswith(f"{path}.") for key in tensors)]
    wanted = tensors_of(base, paths)
    if odd := sorted(wanted.keys() ^ tensors.keys()):
        what = "is not in the file" if odd[0] in wanted else f"has no counterpart; {near(odd[0], wanted)}"
        raise AdapterFileError(f"{folder}: of the modules it keeps whole, {odd[0]!r} {what}")
    for key, value in wanted.items():
        if value.shape != tensors[key].shape:
            raise BaseMismatch(f"{folder}: {key!r} is {list(tensors[key].shape)}, this model's is {list(value.shape)}")
        if is_quantised(value):
            raise BaseMismatch(f"{folder}: {key!r} is kept whole, and packed here; put dense weights back first")
    return paths, {key: suited(folder, key, tensors[key], value) for key, value in wanted.items()}


@torch.no_grad()
def write_back(base: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put tensors into the base."""
    state = base.state_dict()
    for key, value in tensors.items():
        state[key].copy_(value)
