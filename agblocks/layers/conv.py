"""Convolution with standardised kernels, which are kept between calls in evaluation."""

from __future__ import annotations

import math
import weakref
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FLOOR = 1e-4  # of fan_in * variance
KEEP_BELOW = 1024  # positions of one example from which a kernel is not kept
FEW = 256  # positions in all up to which one matrix product is quicker than a convolution, which reorders its kernel
VERY_FEW = 16  # and below which the product is quicker the other way round


class StandardizedConv1d(nn.Module):
    """Convolution, stride 1, same length, whose kernel is standardised for each output channel.

    `kernel = (w - mean) * scale / sqrt(max(fan_in * variance, 1e-4))`, mean and population variance over input channels
    and width, `fan_in = width * in_channels`; then the bias. Below float32 the kernel is worked out in float32.

    Shapes: x (batch, in_channels, length) -> (batch, out_channels, length). An even width pads one more on the right.
    Source: AlphaGenome (Avsec et al. 2026, Methods). Use when: a deep stack of convolutions is to train stably.

    **The kept kernel.** In evaluation the kernel is worked out once, at the first call, and kept for later calls; it is
    in no state dict, copy or pickle. It is dropped by `train()`, `load_state_dict`, `.to` and the like, and rebuilt if
    `weight` or `scale` is another tensor, has other memory, or another version (in-place edits, optimiser steps).
    Only an edit through `.data` (or of a parameter that was made in inference mode, where nothing is kept anyway) goes
    unnoticed: call `refresh()` after it, or `agblocks.layers.refresh(model)`.
    Under autocast it is kept in autocast's type.
    No kernel is kept, but worked out at each call, where
    * the input is 1,024 positions long or more: one such convolution costs several times its kernel, and keeping every
      kernel would double the weights' memory (a kernel kept by shorter calls is used, though);
    * gradients of `weight` or `scale` are asked for;
    * `torch.compile` or `torch.export` traces: the graph then always follows the weights.
    """

    def __init__(self, in_channels: int, out_channels: int, width: int, *, dilation: int = 1):
        super().__init__()
        self.in_channels, self.out_channels, self.width, self.dilation = in_channels, out_channels, width, dilation
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, width))
        self.scale = nn.Parameter(torch.empty(out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels))
        self._kept: _Kept | None = None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weights of variance 1/fan_in; scale 1, bias 0. (The official code, which never trains, has zeros.)"""
        nn.init.normal_(self.weight, std=1 / math.sqrt(self.in_channels * self.width))
        nn.init.ones_(self.scale)
        nn.init.zeros_(self.bias)
        self.refresh()

    def forward(self, x: Tensor) -> Tensor:
        kernel = self._kernel(x.shape[-1])
        if self._few(x):
            return _convolve_few(x, kernel, self.bias)
        if self.width % 2:
            return F.conv1d(x, kernel, self.bias, padding=self.dilation * (self.width // 2), dilation=self.dilation)
        return F.conv1d(x, kernel, self.bias, padding="same", dilation=self.dilation)

    def effective_weight(self) -> Tensor:
        """The standardised kernel (out_channels, in_channels, width), differentiable in `weight` and `scale`."""
        return standardize(self.weight, self.scale)

    def conv_geometry(self) -> tuple[int, int, int, int, int]:
        """Padding on the left and right, stride, dilation, groups: what an adapter needs to convolve alongside."""
        total = self.dilation * (self.width - 1)
        return total // 2, total - total // 2, 1, self.dilation, 1

    def refresh(self) -> None:
        """Forget the kept kernel: to be called after an edit of the weights through `.data`."""
        self._kept = None

    def _kernel(self, positions: int) -> Tensor:
        if self.training or torch.compiler.is_compiling() or _wants_grad(self.weight, self.scale):
            return self.effective_weight()
        dtype = _autocast_type(self.weight)
        if self._kept is not None and self._kept.holds(dtype, self.weight, self.scale):
            return self._kept.kernel
        self._kept = None
        if positions >= KEEP_BELOW or not (_keepable(self.weight) and _keepable(self.scale)):
            return self.effective_weight()
        with torch.inference_mode(False), torch.no_grad():  # an inference tensor could not meet autograd later
            self._kept = _Kept.of(dtype, self.weight, self.scale)
        return self._kept.kernel

    def _few(self, x: Tensor) -> bool:
        small = x.device.type == "cpu" and x.shape[0] * x.shape[-1] <= FEW
        return small and self.dilation == 1 and self.width % 2 == 1 and not torch.compiler.is_compiling()

    def train(self, mode: bool = True) -> StandardizedConv1d:
        if mode:
            self.refresh()
        return super().train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> StandardizedConv1d:
        self.refresh()
        return super()._apply(fn, recurse)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.refresh()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, width={self.width}"


def same_conv(in_channels: int, out_channels: int, width: int) -> nn.Module:
    """AlphaGenome's convolution of a width: standardised, or a plain linear map with bias where the width is 1."""
    if width == 1:
        return nn.Conv1d(in_channels, out_channels, 1)
    return StandardizedConv1d(in_channels, out_channels, width)


def refresh(model: nn.Module) -> None:
    """Forget every kept kernel of a model: to be called after edits of weights through `.data`."""
    for module in model.modules():
        if isinstance(module, StandardizedConv1d):
            module.refresh()


def standardize(weight: Tensor, scale: Tensor) -> Tensor:
    """The standardised kernel of a weight (out, in, width) and a scale (out,): see `StandardizedConv1d`."""
    if torch.compiler.is_compiling():  # the compiler fuses this itself
        return _plain(weight, scale)
    return _Standardize.apply(weight, scale)[0]


def _plain(weight: Tensor, scale: Tensor) -> Tensor:
    """The formula in operations that differentiate any number of times."""
    w = weight.flatten(1).to(_wide(weight.dtype))
    centred = w - w.mean(1, keepdim=True)
    total = centred.square().sum(1, keepdim=True)  # fan_in * variance
    gain = scale.to(w.dtype)[:, None] * total.clamp(min=FLOOR).rsqrt()
    return (centred * gain).to(weight.dtype).view_as(weight)


class _Standardize(torch.autograd.Function):
    """The same with one temporary instead of five passes, and its gradient worked out by hand."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor, scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        w = weight.flatten(1).to(_wide(weight.dtype))
        mean = w.mean(1, keepdim=True)
        kernel = w - mean
        total = torch.linalg.vector_norm(kernel, dim=1).square()
        kernel.mul_((scale * total.clamp(min=FLOOR).rsqrt())[:, None])
        return kernel.to(weight.dtype).view_as(weight), mean, total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        _, mean, total = output
        ctx.mark_non_differentiable(mean, total)
        ctx.save_for_backward(*inputs, mean, total)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
        weight, scale, mean, total = ctx.saved_tensors
        wide = _wide(weight.dtype)
        w, g, s = weight.flatten(1).to(wide), grad.flatten(1).to(wide), scale.to(wide)
        if torch.is_grad_enabled():  # someone wants to differentiate this gradient
            mean = w.mean(1, keepdim=True)
            total = (w - mean).square().sum(1)
        inverse = total.clamp(min=FLOOR).rsqrt()
        product = torch.bmm(g[:, None], w[:, :, None])[:, 0, 0]  # row by row, without a temporary of the kernel's size
        along = product - mean[:, 0] * g.sum(1)  # grad . centred
        gain = (s * inverse)[:, None]
        # Where the floor holds, the kernel is linear in the weight, and it turns no gradient.
        turn = torch.where(total >= FLOOR, along * inverse.square(), 0)[:, None]
        shift = turn * mean - g.mean(1, keepdim=True)
        grad_weight = (g * gain).addcmul_(w, -turn * gain).add_(shift * gain)
        return grad_weight.to(weight.dtype).view_as(weight), (along * inverse).to(scale.dtype)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


def _wants_grad(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _keepable(tensor: Tensor) -> bool:
    """Whether edits of a tensor can be noticed: a plain parameter with a version counter and memory of its own."""
    return type(tensor) is nn.Parameter and not tensor.is_inference() and tensor.device.type != "meta"


def _autocast_type(tensor: Tensor) -> torch.dtype:
    """The type in which a convolution takes this tensor: autocast would convert it at every call."""
    kind = tensor.device.type
    if tensor.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return tensor.dtype


def _convolve_few(x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
    """The convolution as one matrix product: where positions are few, reading the kernel once is all the work."""
    x, bias = x.to(kernel.dtype), bias.to(kernel.dtype)
    batch, channels, length = x.shape
    width = kernel.shape[-1]
    windows = F.pad(x, (width // 2, width // 2)).unfold(-1, length, 1)  # batch, channels, width, length
    if batch * length < VERY_FEW:
        rows = windows.permute(0, 3, 1, 2).reshape(batch * length, channels * width)
        return F.linear(rows, kernel.flatten(1), bias).view(batch, length, len(kernel)).transpose(1, 2)
    columns = windows.permute(1, 2, 0, 3).reshape(channels * width, batch * length)
    return torch.addmm(bias[:, None], kernel.flatten(1), columns).view(len(kernel), batch, length).transpose(0, 1)


@dataclass(frozen=True)
class _Kept:
    """A kernel and what it was worked out from."""

    kernel: Tensor
    parts: tuple[tuple[weakref.ref[Tensor], tuple[int, int]], ...]

    @classmethod
    def of(cls, dtype: torch.dtype, weight: Tensor, scale: Tensor) -> _Kept:
        parts = tuple((weakref.ref(t), _stamp(t)) for t in (weight, scale))
        return cls(standardize(weight, scale).to(dtype), parts)

    def holds(self, dtype: torch.dtype, *tensors: Tensor) -> bool:
        pairs = zip(tensors, self.parts, strict=True)
        same = all(tensor is ref() and stamp == _stamp(tensor) for tensor, (ref, stamp) in pairs)
        return same and self.kernel.dtype == dtype


def _stamp(tensor: Tensor) -> tuple[int, int]:
    return tensor._version, tensor.data_ptr()
