"""What an adapter was made on: digests of the weights it touched, of the model's structure, of the recipe's edges."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import AdapterFileError


def digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors: names, types, shapes and values, in the order of their names.

    Costs: reading each value once. Raises `AdapterFileError` on the meta device, where there are none.
    """
    found = hashlib.sha256()
    for name in sorted(tensors):
        for label, tensor in _dense(name, whole(tensors[name].detach())):
            if tensor.is_meta:
                raise AdapterFileError(f"{name!r} is on the meta device, where it has no values to be compared")
            found.update(json.dumps([label, dtype_name(tensor), list(tensor.shape)]).encode())
            if tensor.numel():
                octets: Any = tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
                found.update(octets)
    return found.hexdigest()


def _dense(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor, or what a quantised one keeps inside."""
    if not is_quantised(tensor):
        yield name, tensor
        return
    inner, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    for part in sorted(inner):
        yield from _dense(f"{name}/{type(tensor.data).__name__}/{part}", getattr(tensor, part))


def is_quantised(tensor: Tensor) -> bool:
    """Whether a tensor keeps its values in another form, as QLoRA's does; such classes tell what is inside."""
    other = type(tensor.data) is not Tensor and hasattr(tensor, "__tensor_flatten__")
    return other and not hasattr(tensor, "full_tensor")  # which is shared out


def whole(tensor: Tensor) -> Tensor:
    """A tensor that FSDP has shared out, as one; every process has to ask for it. Others as they are."""
    full = getattr(tensor, "full_tensor", None)
    return tensor if full is None else full()


def dtype_name(tensor: Tensor) -> str:
    """`float32`, without torch's own prefix."""
    return str(tensor.dtype).removeprefix("torch.")


def told(tensor: Tensor) -> list[Any]:
    """A tensor's type and shape, as they are written down."""
    return [dtype_name(tensor), list(tensor.shape)]


def touched(base: nn.Module, path: str, aside: Collection[str] = ()) -> dict[str, Tensor]:
    """The tensors that an adapter on a module stands on, by their names in the base, those in `aside` left out.

    The module's own, and those of modules inside; where it has none, like a hook point, those of what it stands in.
    """
    while True:
        prefix = f"{path}." if path else ""
        state = base.get_submodule(path).state_dict()
        found = {prefix + name: value for name, value in state.items() if isinstance(value, Tensor)}
        if found or not path:
            return {name: value for name, value in found.items() if name not in aside}
        path = path.rpartition(".")[0]


def structure(base: nn.Module) -> str:
    """sha256 of the names and shapes of all tensors of a model."""
    shapes = [[name, list(v.shape)] for name, v in sorted(base.state_dict().items()) if isinstance(v, Tensor)]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()


def edges(base: nn.Module, names: Iterable[str]) -> dict[str, str] | None:
    """Of a recipe's model: the digests of what the nodes make in which modules or tensors lie; else None.

    A digest is of an edge's whole history and no name, so a stage has the same one in every model cut from another.
    """
    resolved: Any = getattr(base, "resolved", None)
    if resolved is None:
        return None
    found = {}
    for name in names:
        parts = name.split(".")
        node = next((n for i in range(len(parts), 0, -1) if (n := ".".join(parts[:i])) in resolved.nodes), None)
        for edge in () if node is None else resolved.nodes[node].outputs:
            found[edge] = resolved.edges[edge].digest
    return dict(sorted(found.items()))


def kept(module: nn.Module) -> dict[str, Tensor]:
    """A module's own buffers that are part of its state."""
    passing = module._non_persistent_buffers_set
    return {name: b for name, b in module.named_buffers(recurse=False) if name not in passing}
