"""Giving a model its tensors: all that were checked, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import torch
from torch import Tensor, nn

from ..graph import reset_parameters
from .errors import WeightsError, told
from .match import Copy
from .source import Source


@torch.inference_mode(False)  # what is made in inference mode can never be trained
def fill(model: nn.Module, source: Source, copies: list[Copy], device: str | torch.device = "cpu") -> None:
    """Read the tensors and put them into the model; raise before the first one changes if any is damaged.

    Where the model's tensor has no memory yet (it is on the meta device), what is read becomes the parameter, on
    `device`; there is one copy of each. What is left on the meta device is then given memory and drawn anew, constants
    included. Where it has memory, all tensors are read once to be checked and once more to be copied into place, so
    that there never is a second set of weights.
    """
    state = model.state_dict(keep_vars=True)
    fresh = {copy.ours: copy for copy in copies if state[copy.ours].is_meta}
    kept = [copy for copy in copies if copy.ours not in fresh]
    for copy in kept:
        _changeable(copy.ours, state[copy.ours])
        _checked(source, copy, state[copy.ours].dtype)
    _tied(source, copies, state)
    made: dict[int, Tensor] = {}
    for name, copy in fresh.items():
        old = state[name]
        if id(old) not in made:
            made[id(old)] = _fresh(source, copy, old, device)
    _copied(source, kept, state)
    if any(tensor.is_meta for tensor in (*model.parameters(), *model.buffers())):
        materialise(model, device, made)


@torch.inference_mode(False)
def materialise(model: nn.Module, device: str | torch.device = "cpu", made: dict[int, Tensor] | None = None) -> None:
    """Give every tensor on the meta device memory; values by the modules' own `reset_parameters`.

    `made` are tensors to use instead, by the id of the one on the meta device; they are put in last, so that nothing
    draws over them. A tensor that several modules share stays shared.
    """
    made = made or {}
    drawn: dict[int, Tensor] = {}
    before = {name: tensor for name, tensor in _tensors(model) if not tensor.is_meta}
    held = {name: tensor.detach().clone() for name, tensor in before.items()} if before else {}

    def empty(old: Tensor) -> Tensor:
        if id(old) not in drawn:
            drawn[id(old)] = torch.empty_like(old, device=device)
        return drawn[id(old)]

    _swap(model, lambda old: None if id(old) in made else empty(old))
    reset_parameters(model)
    _swap(model, lambda old: made.get(id(old)))
    with torch.no_grad():  # what had memory before keeps its values
        for name, tensor in held.items():
            before[name].copy_(tensor)


def _swap(model: nn.Module, new: Callable[[Tensor], Tensor | None]) -> None:
    parameters: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is not None and old.is_meta and (value := new(old)) is not None:
                if id(old) not in parameters:
                    parameters[id(old)] = nn.Parameter(value, requires_grad=old.requires_grad)
                    for attribute, said in vars(old).items():
                        with suppress(AttributeError):
                            setattr(parameters[id(old)], attribute, said)
                setattr(module, name, parameters[id(old)])  # through the module: an LSTM keeps a list of its own
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_meta and (value := new(buffer)) is not None:
                setattr(module, name, value)


def _tensors(model: nn.Module) -> Iterable[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _copied(source: Source, copies: list[Copy], state: Mapping[str, Tensor]) -> None:
    """The second reading. A file that breaks after the first one is the only way to half a model."""
    for done, copy in enumerate(copies):
        try:
            with torch.no_grad():
                state[copy.ours].copy_(copy.transform(source.read(copy.key)))
        except Exception as error:
            said = f"{done} of {len(copies)} tensors are new, the others old: load again"
            raise WeightsError(f"{source.label}: broke while it was read a second time ({error}); {said}") from error


def _changeable(name: str, tensor: Tensor) -> None:
    if tensor.is_inference():
        raise WeightsError(f"{name!r} was made in inference mode and cannot be changed; nothing was loaded")
    reach = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < reach:
            raise WeightsError(
                f"{name!r} has values that share memory (strides {tensor.stride()} of {list(tensor.shape)}) and cannot "
                "take one each; nothing was loaded"
            )
        reach += stride * (size - 1)


def _tied(source: Source, copies: list[Copy], state: Mapping[str, Tensor]) -> None:
    """Refuse two sources for one tensor of several names, unless they say the same."""
    first: dict[int, Copy] = {}
    for copy in copies:
        other = first.setdefault(id(state[copy.ours]), copy)
        if (other.key, other.transform) != (copy.key, copy.transform):
            one, two = (c.transform(_read(source, c.key)) for c in (other, copy))
            if not torch.equal(one, two):
                raise WeightsError(
                    f"{source.label}: {other.ours!r} and {copy.ours!r} are one tensor here, but {other.key!r} and "
                    f"{copy.key!r} are not equal; nothing was loaded"
                )


def _read(source: Source, key: str) -> Tensor:
    with told(f"{source.label}: {key!r} cannot be read"):
        return source.read(key)


def _checked(source: Source, copy: Copy, dtype: torch.dtype) -> Tensor:
    """What was read, in the model's type."""
    read = _read(source, copy.key)
    tensor = read.to(dtype)
    if tensor.is_floating_point() and not finite(tensor):
        bad = int((~torch.isfinite(tensor)).sum())
        lost = read.dtype != dtype and finite(read)
        short = f" in {dtype}, in which the model has it ({read.dtype} there)" if lost else ""
        raise WeightsError(
            f"{source.label}: {copy.key!r} holds {bad:,} values that are not finite{short}; nothing was loaded"
        )
    return tensor


def _fresh(source: Source, copy: Copy, old: Tensor, device: str | torch.device) -> Tensor:
    read = _checked(source, copy, old.dtype)
    turned = copy.transform(read).to(device=device).contiguous()
    shared = turned.untyped_storage().data_ptr() == read.untyped_storage().data_ptr()
    if shared and not (source.owned and turned.nbytes == turned.untyped_storage().nbytes()):  # or rows of a larger one
        return turned.clone()
    return turned


def finite(tensor: Tensor) -> bool:
    """Whether all values are finite, mostly without a map of them."""
    return bool(torch.isfinite(tensor.sum())) or bool(torch.isfinite(tensor).all())
