"""What NF4 weights do in a network: maps that restore them for the moment, forwards and once more backwards.

Each is one opaque operation (`torch.ops.agblocks.nf4_*`), so that compiled graphs hold packed weights alone, too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from .codes import NF4Error, Packed, unpack, unpack_rows

_LIBRARY = torch.library.Library("agblocks", "FRAGMENT")
# What stands for a weight in operations: four tensors, shape, block, and the types it is rounded to, in turn.
_WEIGHT = "Tensor codes, Tensor absmax, Tensor? scale, Tensor? offset, int[] shape, int block, str rounding"
_GEOMETRY = "int[] stride, int[] padding, int[] dilation, int groups"
_PARTS = 7
_CONVOLVE = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}


def _real(*weight: Any) -> Tensor:
    shape, block, rounding = weight[4:]
    first, *others = (getattr(torch, name) for name in rounding.split())
    dense = unpack(Packed(*weight[:4]), math.prod(shape), block=block, dtype=first)
    for dtype in others:
        dense = dense.to(dtype)
    return dense.view(shape)


def _shaped(codes: Tensor, *rest: Any) -> Tensor:
    shape, _, rounding = rest[-3:]
    return codes.new_empty(shape, dtype=getattr(torch, rounding.split()[-1]))


def _real_rows(indices: Tensor, *weight: Any) -> Tensor:
    found = unpack_rows(Packed(*weight[:4]), indices, weight[4][1], block=weight[5])
    for name in weight[6].split():
        found = found.to(getattr(torch, name))
    return found


def _shaped_rows(indices: Tensor, *weight: Any) -> Tensor:
    return _shaped(*weight).new_empty((*indices.shape, weight[4][1]))


def _conv(x: Tensor, weight: Tensor, bias: Tensor | None, *geometry: Any) -> Tensor:
    return _CONVOLVE[weight.dim()](x, weight, bias, *geometry)


def _conv_back(grad: Tensor, weight: Tensor, shape: Sequence[int], *geometry: Any) -> Tensor:
    stride, padding, dilation, groups = geometry
    x = grad.new_empty(1).expand(shape)  # of which only the shape matters
    zero, wanted = [0] * len(stride), [True, False, False]
    found: Tensor = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, zero, groups, wanted
    )[0]
    return found


def _define(name: str, arguments: str, real: Any, fake: Any) -> Any:
    _LIBRARY.define(f"{name}({arguments}) -> Tensor")
    _LIBRARY.impl(name, real, "CompositeExplicitAutograd")
    torch.library.register_fake(f"agblocks::{name}", fake, lib=_LIBRARY)
    return getattr(torch.ops.agblocks, name).default


def _define_map(name: str, more: str, use: Any) -> Any:
    """An operation on a tensor, a weight and more."""

    def real(x: Tensor, *rest: Any) -> Tensor:
        made: Tensor = use(x, _real(*rest[:_PARTS]), *rest[_PARTS:])
        return made

    def fake(x: Tensor, *rest: Any) -> Tensor:
        made: Tensor = use(x, _shaped(*rest[:_PARTS]), *rest[_PARTS:])
        return made

    return _define(name, f"Tensor x, {_WEIGHT}, {more}".rstrip(", "), real, fake)


read = _define("nf4_read", _WEIGHT, _real, _shaped)
rows = _define("nf4_rows", f"Tensor indices, {_WEIGHT}", _real_rows, _shaped_rows)
_linear_op = _define_map("nf4_linear", "Tensor? bias", F.linear)
_linear_back_op = _define_map("nf4_linear_back", "", torch.matmul)
_conv_op = _define_map("nf4_conv", f"Tensor? bias, {_GEOMETRY}", _conv)
_conv_back_op = _define_map("nf4_conv_back", f"SymInt[] inputs, {_GEOMETRY}", _conv_back)


class _Map(torch.autograd.Function):
    """A map that is linear in x; kept for the way back are the packed weights, and x is not."""

    folds = False  # whether a batch has one axis, so that the one that vmap maps over is to go into it
    channels = -1  # their axis, behind that one

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, other, *rest = inputs
        ctx.save_for_backward(*rest[:4])
        ctx.save_for_forward(*rest[:4])
        ctx.rest, ctx.shape = tuple(rest[4:]), tuple(x.shape)
        ctx.other = None if isinstance(other, Tensor) else other

    @classmethod
    def jvp(cls, ctx: Any, x: Tensor, bias: Tensor | None, *_: Any) -> Any:
        return cls.apply(x, ctx.other if bias is None else bias, *ctx.saved_tensors, *ctx.rest)

    @classmethod
    def vmap(cls, info: Any, in_dims: Any, x: Tensor, other: Any, *rest: Any) -> Any:
        if any(isinstance(axis, int) for axis in tree_leaves(in_dims[2:])):
            raise NF4Error("torch.func.vmap takes one packed weight, not a stack of them")
        bias = None
        if in_dims[1] is not None and isinstance(other, Tensor):
            bias, other = other.movedim(in_dims[1], 0), None
        x = x.expand(info.batch_size, *x.shape) if in_dims[0] is None else x.movedim(in_dims[0], 0)
        if cls.folds:
            if other is not None and not isinstance(other, Tensor):  # the shape that a batch had
                other = (len(x) * other[0], *other[1:])
            made = cls.apply(x.flatten(0, 1), other, *rest).unflatten(0, x.shape[:2])
        else:
            made = cls.apply(x, other, *rest)
        if bias is not None:
            wide = [1] * made.dim()
            wide[0], wide[cls.channels] = bias.shape
            made = made + bias.view(wide)
        return made, 0


class Linear(_Map):
    """`F.linear(x, weight, bias)`."""

    @staticmethod
    def forward(x: Tensor, bias: Tensor | None, *weight: Any) -> Tensor:
        made: Tensor = _linear_op(x, *weight, bias)
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight = (*ctx.saved_tensors, *ctx.rest)
        compiled = torch.compiler.is_compiling()  # where nobody differentiates gradients
        back = _linear_back_op(grad, *weight) if compiled else LinearBack.apply(grad, None, *weight)
        bias = grad.flatten(0, -2).sum(0) if grad.dim() > 1 else grad
        return back, bias if ctx.needs_input_grad[1] else None, *(None,) * _PARTS


class LinearBack(_Map):
    """Its gradient in x, which differentiates again."""

    @staticmethod
    def forward(grad: Tensor, bias: None, *weight: Any) -> Tensor:
        made: Tensor = _linear_back_op(grad, *weight)
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weight = (*ctx.saved_tensors, *ctx.rest)
        return Linear.apply(grad, None, *weight), None, *(None,) * _PARTS


class Conv(_Map):
    """`F.convNd(x, weight, bias, stride, padding, dilation, groups)` of a batch."""

    folds, channels = True, 2

    @staticmethod
    def forward(x: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        made: Tensor = _conv_op(x, *rest[:_PARTS], bias, *rest[_PARTS:])
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        rest = (*ctx.saved_tensors, *ctx.rest)
        if torch.compiler.is_compiling():
            back = _conv_back_op(grad, *rest[:_PARTS], ctx.shape, *rest[_PARTS:])
        else:
            back = ConvBack.apply(grad, ctx.shape, *rest)
        bias = grad.transpose(0, 1).flatten(1).sum(1) if ctx.needs_input_grad[1] else None
        return back, bias, *(None,) * len(rest)


class ConvBack(_Map):
    """Its gradient in x, which differentiates again."""

    folds, channels = True, 2

    @staticmethod
    def forward(grad: Tensor, shape: Sequence[int], *rest: Any) -> Tensor:
        made: Tensor = _conv_back_op(grad, *rest[:_PARTS], shape, *rest[_PARTS:])
        return made

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        rest = (*ctx.saved_tensors, *ctx.rest)
        return Conv.apply(grad, None, *rest), None, *(None,) * len(rest)
