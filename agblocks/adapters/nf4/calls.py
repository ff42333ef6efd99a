"""How NF4 tensors are moved and copied, and what networks do with them."""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import ops as nf4_ops
from .codes import NF4Error
from .tensor import FUNCTIONS, OPERATIONS, NF4Tensor, frozen, parts, then

# Operations, below autograd


def _detach(self: NF4Tensor) -> Any:
    return self.each(lambda t: t.detach())


def _clone(self: NF4Tensor, **_: Any) -> Any:
    return self.each(lambda t: t.clone())


def _to(self: NF4Tensor, *, dtype: Any = None, device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    if dtype is not None and not dtype.is_floating_point:
        return NotImplemented
    return self.each(
        lambda t: t.to(device=device, non_blocking=non_blocking, copy=True),
        self.rounding if dtype is None else then(self.rounding, dtype),
    )


def _empty_like(self: NF4Tensor, **options: Any) -> Any:
    """`.to_empty` of a module: the form without the values."""
    dtype, device = options.get("dtype"), options.get("device")
    if dtype is not None and dtype != self.dtype:
        return NotImplemented
    return self.each(lambda t: torch.empty_like(t, device=device))


def _copy(self: Tensor, source: Tensor, non_blocking: bool = False) -> Any:
    if not isinstance(self, NF4Tensor):
        return NotImplemented
    if not (isinstance(source, NF4Tensor) and _form(self) == _form(source)):
        what = repr(source) if isinstance(source, NF4Tensor) else f"a dense tensor {tuple(source.shape)}"
        dense = source.dequantize() if isinstance(source, NF4Tensor) else source
        if torch.equal(self.dequantize(), dense.to(self.device, self.dtype)):
            return self  # what it stands for already: DDP sends the first process's weights to all at its start
        raise frozen(f"copying other values, {what}, into {self!r}")
    for own, other in zip(self.packed, source.packed, strict=True):
        if own is not None and other is not None:
            own.copy_(other, non_blocking=non_blocking)
    return self


def _form(self: NF4Tensor) -> tuple[Any, ...]:
    return tuple(self.shape), self.block, self.rounding, self.scale is None


_aten = torch.ops.aten
OPERATIONS |= {
    _aten.detach.default: _detach,
    _aten.alias.default: _detach,
    _aten.clone.default: _clone,
    _aten._to_copy.default: _to,
    _aten.empty_like.default: _empty_like,
    _aten.copy_.default: _copy,
}


# Functions, above autograd


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
        raise frozen("an embedding with max_norm rescales its weight")
    return nf4_ops.rows(input, *parts(weight))


def _requires_grad(self: Tensor, requires_grad: bool = True) -> Any:
    if requires_grad:
        raise frozen("requires_grad")
    return NotImplemented


def _assign(self: Tensor, *_: Any) -> Any:
    if isinstance(self, NF4Tensor):  # torch would write into a restored copy, or beside the codes
        raise frozen("assigning to elements or to .data")
    return NotImplemented


def _share_memory(self: NF4Tensor) -> Any:
    return self.each(Tensor.share_memory_)


def _is_shared(self: NF4Tensor) -> bool:
    return all(part is None or part.is_shared() for part in self.packed)


def _chunk(self: NF4Tensor, *_: Any, **__: Any) -> Any:
    """Refused to FSDP, which would keep dense pieces of a restored copy; others get restored chunks."""
    caller: Any = None if torch.compiler.is_compiling() else sys._getframe(2)
    if caller is not None and caller.f_globals.get("__name__", "").startswith("torch.distributed.fsdp"):
        raise NF4Error(
            f"{self!r} cannot be sharded: each process would hold a dense piece of it. Leave packed weights whole: "
            "fully_shard(..., ignored_params={p for p in model.parameters() if isinstance(p, NF4Tensor)})"
        )
    return NotImplemented


def _storage(self: NF4Tensor, *_: Any, **__: Any) -> Any:
    raise NF4Error(
        f"{self!r} has no memory of its own shape to be handed out or written down; take `.dequantize()` of it, or put "
        "dense weights back first (`dequantize_()` of what `quantize` returned). torch.save keeps it packed"
    )


def _listed(self: NF4Tensor) -> Any:
    return self.dequantize().tolist()


def _array(self: NF4Tensor, **options: Any) -> Any:
    return self.dequantize().numpy(**options)


FUNCTIONS |= {
    Tensor.tolist: _listed,
    Tensor.share_memory_: _share_memory,
    Tensor.is_shared: _is_shared,
    Tensor.__dlpack__: _storage,
    Tensor.__dlpack_device__: _storage,
    Tensor.storage: _storage,
    Tensor.chunk: _chunk,
    torch.chunk: _chunk,
    Tensor.numpy: _array,
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
