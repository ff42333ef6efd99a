"""A weight in NF4 that stands where the dense one stood: `module.weight`, of the same shape and type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_any, tree_map_only

from . import ops as nf4_ops
from .codes import BLOCK, NF4Error, Packed, pack

_INNER = ("codes", "absmax", "scale", "offset")

# What is done otherwise than on restored values: torch's functions, above autograd, and its operations below.
FUNCTIONS: dict[Any, Callable[..., Any]] = {}
OPERATIONS: dict[Any, Callable[..., Any]] = {}


class FrozenWeightError(NF4Error):
    """A packed weight was to be written into, or to be trained."""


class NF4Tensor(Tensor):
    """A frozen tensor that holds NF4 codes, and is restored wherever it is used.

    `F.linear`, `F.conv1d/2d/3d` and `F.embedding` keep the codes for the way back, and nothing of the weight's own
    size. Everything else that reads it gets the restored values: views (`w[0]`, `w.T`) are then copies. It cannot be
    written into nor trained; `copy_` takes another NF4 tensor of the same form, so that a state dict goes back in,
    and the very values that it stands for, which DDP sends around.
    `.to(dtype)` keeps the codes, and restores exactly what `.to(dtype)` of the restored weight would give.
    Compiles, exports by value, copies, pickles, is shared and moved like other tensors; `weights_only=True` loads it.
    It has no memory in its own shape: DLPack and safetensors get `NF4Error`, and FSDP, which would cut up a restored
    copy, is told to leave it whole (`ignored_params`).

    Shapes: as the weight's, which lay in C order. Use when: a frozen base is to take an eighth of its memory.
    """

    codes: Tensor
    absmax: Tensor
    scale: Tensor | None
    offset: Tensor | None
    block: int
    rounding: str

    @staticmethod
    def __new__(cls, packed: Packed, shape: Any, block: int, rounding: str) -> NF4Tensor:
        dtype, device = getattr(torch, rounding.split()[-1]), packed.codes.device
        self: NF4Tensor = Tensor._make_wrapper_subclass(cls, tuple(shape), dtype=dtype, device=device)
        # There is no memory behind it: who asks for the pointer gets an error, and no null to write to.
        torch._C._set_throw_on_mutable_data_ptr(self)
        self.codes, self.absmax, self.scale, self.offset = packed
        self.block, self.rounding = block, rounding
        return self

    def __init__(self, packed: Packed, shape: Any, block: int, rounding: str):
        pass

    @classmethod
    def of(cls, weight: Tensor, *, block: int = BLOCK, double: bool = True) -> NF4Tensor:
        """Quantise a dense tensor. Raises `NF4Error`."""
        return cls(pack(weight, block=block, double=double), weight.shape, block, _name(weight.dtype))

    @property
    def packed(self) -> Packed:
        """What is held."""
        return Packed(self.codes, self.absmax, self.scale, self.offset)

    @property
    def nbytes_held(self) -> int:
        """Bytes of what is held."""
        return sum(t.numel() * t.element_size() for t in self.packed if t is not None)

    def dequantize(self) -> Tensor:
        """The weight that it stands for, a plain tensor."""
        made: Tensor = nf4_ops.read(*parts(self))
        return made

    def each(self, change: Callable[[Tensor], Tensor], rounding: str | None = None) -> NF4Tensor:
        """Every tensor that is held changed, and perhaps the types it is rounded to."""
        codes, absmax, *doubled = self.packed
        packed = Packed(change(codes), change(absmax), *(None if t is None else change(t) for t in doubled))
        return NF4Tensor(packed, self.shape, self.block, rounding or self.rounding)

    def _stable_hash_for_caching(self) -> str:
        return repr((tuple(self.shape), str(self.device), self.block, self.rounding, self.scale is None))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        how = "double" if self.scale is not None else "single"
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        return f"NF4Tensor({tuple(self.shape)}, {_name(self.dtype)}, {how} blocks of {self.block}{where})"

    def __deepcopy__(self, memo: dict[int, Any]) -> NF4Tensor:
        if id(self) not in memo:
            memo[id(self)] = _as(self, self.each(Tensor.clone))
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        state = (*self.packed, tuple(self.shape), self.block, self.rounding, isinstance(self, nn.Parameter))
        return rebuild, state

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        names = [name for name in _INNER if getattr(self, name) is not None]
        return names, (self.block, self.rounding)

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], meta: Any, size: Any, stride: Any) -> NF4Tensor:
        return NF4Tensor(Packed(*(inner.get(name) for name in _INNER)), size, *meta)  # type: ignore[arg-type]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in FUNCTIONS:
            done = FUNCTIONS[func](*args, **kwargs)
            if done is not NotImplemented:
                return done
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        if func in OPERATIONS:
            done = OPERATIONS[func](*args, **kwargs)
            if done is not NotImplemented:
                return done
        for i, argument in enumerate(func._schema.arguments):
            written = argument.alias_info is not None and argument.alias_info.is_write
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            if written and tree_any(lambda t: isinstance(t, NF4Tensor), value):
                raise frozen(str(func))
        args, kwargs = tree_map_only(NF4Tensor, NF4Tensor.dequantize, (args, kwargs))
        return func(*args, **kwargs)


def parts(weight: NF4Tensor, *more: torch.dtype) -> tuple[Any, ...]:
    """A weight as operations take it, rounded to further types."""
    rounding = weight.rounding
    for dtype in more:
        rounding = then(rounding, dtype)
    return weight.codes, weight.absmax, weight.scale, weight.offset, list(weight.shape), weight.block, rounding


def rebuild(*state: Any) -> NF4Tensor:
    """An NF4 tensor out of what a pickle holds."""
    *packed, shape, block, rounding, parameter = state
    made = NF4Tensor(Packed(*packed), shape, block, rounding)
    return nn.Parameter(made, requires_grad=False) if parameter else made  # type: ignore[return-value]


torch.serialization.add_safe_globals([rebuild, NF4Tensor])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def then(rounding: str, dtype: torch.dtype) -> str:
    """The types that a float32 value is rounded to in turn, without those that change nothing."""
    last = getattr(torch, rounding.split()[-1])
    if last == dtype:
        return rounding
    before = ["float32", *rounding.split()]
    if torch.promote_types(getattr(torch, before[-2]), last) == last:
        before.pop()
    return " ".join([*before[1:], _name(dtype)])


def _as(old: NF4Tensor, new: NF4Tensor) -> NF4Tensor:
    return nn.Parameter(new, requires_grad=False) if isinstance(old, nn.Parameter) else new  # type: ignore[return-value]


def frozen(what: str) -> FrozenWeightError:
    """The error for an attempt to change a packed weight."""
    return FrozenWeightError(
        f"{what}: a weight in NF4 is frozen; it can be read, but not written into or trained. Put dense weights back "
        "first (`dequantize_()` of what `quantize` returned), or train an adapter beside it"
    )


from . import calls as _calls  # noqa: E402, F401  (it needs the class, and fills the tables)
