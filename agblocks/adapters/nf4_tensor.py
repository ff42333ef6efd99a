"""A weight in NF4 that stands where the dense one stood: `module.weight`, of the same shape and type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_any, tree_map_only

from . import nf4_ops
from .nf4 import BLOCK, NF4Error, Packed, pack

_INNER = ("codes", "absmax", "scale", "offset")


class FrozenWeightError(NF4Error):
    """A packed weight was to be written into, or to be trained."""


class NF4Tensor(Tensor):
    """A frozen tensor that holds NF4 codes, and is restored wherever it is used.

    `F.linear`, `F.conv1d/2d/3d` and `F.embedding` keep the codes for the way back, and nothing of the weight's own
    size. Everything else that reads it gets the restored values: views (`w[0]`, `w.T`) are then copies. It cannot be
    written into nor trained; `copy_` takes another NF4 tensor of the same form, so that a state dict goes back in.
    `.to(dtype)` keeps the codes, and restores exactly what `.to(dtype)` of the restored weight would give.
    Compiles, exports by value, copies, pickles and is moved like other tensors; `weights_only=True` loads it.

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

    def _stable_hash_for_caching(self) -> str:
        return repr((tuple(self.shape), str(self.device), self.block, self.rounding, self.scale is None))

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        how = "double" if self.scale is not None else "single"
        where = "" if self.device.type == "cpu" else f", device={str(self.device)!r}"
        return f"NF4Tensor({tuple(self.shape)}, {_name(self.dtype)}, {how} blocks of {self.block}{where})"

    def __deepcopy__(self, memo: dict[int, Any]) -> NF4Tensor:
        if id(self) not in memo:
            memo[id(self)] = _as(self, _clone(self))
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
        if func in _FUNCTIONS:
            done = _FUNCTIONS[func](*args, **kwargs)
            if done is not NotImplemented:
                return done
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        kwargs = kwargs or {}
        if func in _OPERATIONS:
            done = _OPERATIONS[func](*args, **kwargs)
            if done is not NotImplemented:
                return done
        for i, argument in enumerate(func._schema.arguments):
            written = argument.alias_info is not None and argument.alias_info.is_write
            value = args[i] if i < len(args) else kwargs.get(argument.name)
            if written and tree_any(lambda t: isinstance(t, NF4Tensor), value):
                raise _frozen(str(func))
        args, kwargs = tree_map_only(NF4Tensor, NF4Tensor.dequantize, (args, kwargs))
        return func(*args, **kwargs)


def parts(weight: NF4Tensor, *more: torch.dtype) -> tuple[Any, ...]:
    """A weight as operations take it, rounded to further types."""
    rounding = weight.rounding
    for dtype in more:
        rounding = _then(rounding, dtype)
    return weight.codes, weight.absmax, weight.scale, weight.offset, list(weight.shape), weight.block, rounding


def rebuild(*state: Any) -> NF4Tensor:
    """An NF4 tensor out of what a pickle holds."""
    *packed, shape, block, rounding, parameter = state
    made = NF4Tensor(Packed(*packed), shape, block, rounding)
    return nn.Parameter(made, requires_grad=False) if parameter else made  # type: ignore[return-value]


torch.serialization.add_safe_globals([rebuild, NF4Tensor])


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _then(rounding: str, dtype: torch.dtype) -> str:
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


def _frozen(what: str) -> FrozenWeightError:
    return FrozenWeightError(
        f"{what}: a weight in NF4 is frozen; it can be read, but not written into or trained. Put dense weights back "
        "first (`dequantize_()` of what `quantize` returned), or train an adapter beside it"
    )


def _each(self: NF4Tensor, change: Callable[[Tensor], Tensor], rounding: str | None = None) -> NF4Tensor:
    packed = Packed(*(None if t is None else change(t) for t in self.packed))  # type: ignore[arg-type]
    return NF4Tensor(packed, self.shape, self.block, rounding or self.rounding)


# Operations below autograd


def _detach(self: NF4Tensor) -> Any:
    return _each(self, lambda t: t.detach())


def _clone(self: NF4Tensor, **_: Any) -> Any:
    return _each(self, lambda t: t.clone())


def _to(self: NF4Tensor, *, dtype: Any = None, device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    if dtype is not None and not dtype.is_floating_point:
        return NotImplemented
    return _each(
        self,
        lambda t: t.to(device=device, non_blocking=non_blocking, copy=True),
        self.rounding if dtype is None else _then(self.rounding, dtype),
    )


def _empty_like(self: NF4Tensor, **options: Any) -> Any:
    """`.to_empty` of a module: the form without the values."""
    dtype, device = options.get("dtype"), options.get("device")
    if dtype is not None and dtype != self.dtype:
        return NotImplemented
    return _each(self, lambda t: torch.empty_like(t, device=device))


def _copy(self: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    if not isinstance(self, NF4Tensor):
        return NotImplemented
    if not (isinstance(source, NF4Tensor) and _form(self) == _form(source)):
        what = repr(source) if isinstance(source, NF4Tensor) else f"a dense tensor {tuple(source.shape)}"
        raise _frozen(f"copying {what} into {self!r}")
    for own, other in zip(self.packed, source.packed, strict=True):
        if own is not None and other is not None:
            own.copy_(other, non_blocking=non_blocking)
    return self


def _form(self: NF4Tensor) -> tuple[Any, ...]:
    return tuple(self.shape), self.block, self.rounding, self.scale is None


_aten = torch.ops.aten
_OPERATIONS: dict[Any, Callable[..., Any]] = {
    _aten.detach.default: _detach,
    _aten.alias.default: _detach,
    _aten.clone.default: _clone,
    _aten._to_copy.default: _to,
    _aten.empty_like.default: _empty_like,
    _aten.copy_.default: _copy,
}


# Functions above autograd


def _taken(x: Any, weight: Any, bias: Any) -> bool:
    """Whether a map is of the form that packed weights serve: only the weight is packed."""
    return isinstance(weight, NF4Tensor) and not isinstance(x, NF4Tensor) and not isinstance(bias, NF4Tensor)


def _cast(x: Tensor, weight: NF4Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None, tuple[Any, ...]]:
    """What autocast would do."""
    kind = x.device.type
    if not (torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)):
        return x, bias, parts(weight)
    to = torch.get_autocast_dtype(kind)
    if x.dtype != torch.float64:
        x = x.to(to)
    if bias is not None and bias.dtype != torch.float64:
        bias = bias.to(to)
    return x, bias, parts(weight) if weight.dtype == torch.float64 else parts(weight, to)


def _linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not _taken(input, weight, bias):
        return NotImplemented
    x, bias, packed = _cast(input, weight, bias)  # type: ignore[arg-type]
    return nf4_ops.Linear.apply(x, bias, *packed)


def _conv(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    if not _taken(input, weight, bias):
        return NotImplemented
    axes = weight.dim() - 2
    stride, dilation = _times(stride, axes), _times(dilation, axes)
    if padding == "same":
        if any(s != 1 for s in stride):
            return NotImplemented  # torch says what is wrong
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(t % 2 for t in total):
            input = F.pad(input, [n for t in reversed(total) for n in (0, t % 2)])
        padding = [t // 2 for t in total]
    padding = [0] * axes if padding == "valid" else _times(padding, axes)
    x, bias, packed = _cast(input, weight, bias)  # type: ignore[arg-type]
    if x.dim() == axes + 1:
        return nf4_ops.Conv.apply(x[None], bias, *packed, stride, padding, dilation, groups)[0]
    return nf4_ops.Conv.apply(x, bias, *packed, stride, padding, dilation, groups)


def _times(value: Any, axes: int) -> list[int]:
    listed = [value] if isinstance(value, int) else list(value)
    return listed * axes if len(listed) == 1 else listed


def _embedding(input: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Any:
    names = ("padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if not isinstance(weight, NF4Tensor):
        return NotImplemented
    if given.get("max_norm") is not None:
        raise _frozen("an embedding with max_norm rescales its weight")
    return nf4_ops.rows(input, *parts(weight))


def _requires_grad(self: Tensor, requires_grad: bool = True) -> Any:
    if requires_grad:
        raise _frozen("requires_grad")
    return NotImplemented


def _assign(self: Tensor, *_: Any) -> Any:
    if isinstance(self, NF4Tensor):  # torch would write into a restored copy, or beside the codes
        raise _frozen("assigning to elements or to .data")
    return NotImplemented


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    F.linear: _linear,
    F.conv1d: _conv,
    F.conv2d: _conv,
    F.conv3d: _conv,
    F.embedding: _embedding,
    Tensor.requires_grad_: _requires_grad,
    Tensor.requires_grad.__set__: _requires_grad,  # type: ignore[attr-defined]
    Tensor.__setitem__: _assign,
    Tensor.data.__set__: _assign,  # type: ignore[attr-defined]
}
