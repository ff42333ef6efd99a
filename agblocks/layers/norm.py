"""Normalisations. Statistics are taken in float32 or better, results have the data's type."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Gt, Le
from torch import Tensor, nn

from .across import mean_over_processes

Statistics = Literal["batch", "ema", "frozen"]
Norm = Literal["rms_batch", "batch", "layer", "rms", "none"]  # in evaluation, each position by itself
GroupedNorm = Literal["rms_batch", "batch", "group", "layer", "rms", "none"]
Eps = Annotated[float, Gt(0.0), Le(0.1)]


class RMSBatchNorm(nn.Module):
    """Divide each channel by a root mean square kept over batches: `x * weight / sqrt(mean_square + 1e-5) + bias`.

    No mean is taken off. In evaluation the statistic is the kept `mean_square`, so the layer is an affine map of each
    channel. In training it depends on `mode`:
    * `batch`: the mean square of the batch, with gradient; the kept one follows with decay 0.9;
    * `ema`: the kept one, after it has followed the batch, without gradient: calmer for tiny batches;
    * `frozen`: the kept one, which stays: for published weights. (A layer left in `eval()` does the same.)

    `mean_square` is float32 state, starts at 1, stays float32 under `.half()` and `.bfloat16()` (its decay would be
    lost in rounding) and follows `.double()`. A forward pass that gradient checkpointing repeats leaves it.
    `synchronize` takes the mean square over the whole of a batch that several processes share.

    Shapes: any with `channels` at `dim` -> the same. Source: AlphaGenome, which has the frozen form; the official code
    defines no training mode, the one here is ours.
    """

    mean_square: Tensor

    def __init__(
        self,
        channels: int,
        *,
        dim: int = 1,
        mode: Statistics = "batch",
        eps: float = 1e-5,
        decay: float = 0.9,
        synchronize: bool = False,
    ):
        super().__init__()
        self.channels, self.dim, self.mode = channels, dim, mode
        self.eps, self.synchronize = eps, synchronize
        self.momentum = 1 - decay  # as torch's batch norms call it
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.register_buffer("mean_square", torch.empty(channels, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, mean square 1."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)
        self.mean_square.fill_(1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.mode == "frozen":
            return self._affine(x, self.mean_square)
        batch = self._batch(x)
        with torch.no_grad():
            self.mean_square.lerp_(batch.detach().to(self.mean_square.dtype), self.momentum)
        if self.mode == "ema":
            return self._affine(x, self.mean_square.clone())
        gain = (torch.rsqrt(batch + self.eps).to(x.dtype) * self.weight).to(x.dtype)
        return torch.addcmul(self._along(self.bias.to(x.dtype), x), x, self._along(gain, x))

    def _affine(self, x: Tensor, statistic: Tensor) -> Tensor:
        """By a statistic that takes no gradient: torch's batch norm with a mean of 0, one fused pass."""
        wide = torch.promote_types(x.dtype, torch.float32)
        statistic, weight, bias = (t.to(wide) for t in (statistic, self.weight, self.bias))
        mean = torch.zeros_like(statistic)
        if self.dim % x.dim() == x.dim() - 1:
            rows = x.reshape(-1, self.channels)
            return F.batch_norm(rows, mean, statistic, weight, bias, eps=self.eps).view_as(x)
        tracks = x.movedim(self.dim, 1)
        return F.batch_norm(tracks, mean, statistic, weight, bias, eps=self.eps).movedim(1, self.dim)

    def _batch(self, x: Tensor) -> Tensor:
        dim = self.dim % x.dim()
        others = [d for d in range(x.dim()) if d != dim]
        mean = x.to(torch.promote_types(x.dtype, torch.float32)).square().mean(others)
        return mean_over_processes(mean, x.numel() // self.channels)[0] if self.synchronize else mean

    def _along(self, vector: Tensor, x: Tensor) -> Tensor:
        return vector.view(-1, *(1,) * (x.dim() - 1 - self.dim % x.dim()))

    def _apply(self, fn: Any, recurse: bool = True) -> RMSBatchNorm:
        before = self.mean_square
        super()._apply(fn, recurse)
        if self.mean_square.dtype in (torch.float16, torch.bfloat16):
            self.mean_square = before.to(device=self.mean_square.device, dtype=torch.float32)
        return self

    def extra_repr(self) -> str:
        return f"{self.channels}, mode={self.mode!r}, eps={self.eps}"


class LayerNorm(nn.Module):
    """Normalise the last axis, then scale and offset. With `rms` the mean is not taken off, but the offset is there.

    Shapes: (..., channels) -> the same. Source: AlphaGenome; its RMS form, unlike the usual one, has an offset.
    """

    def __init__(self, channels: int, *, rms: bool = False, eps: float = 1e-5):
        super().__init__()
        self.channels, self.rms, self.eps = channels, rms, eps
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scale 1, offset 0."""
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        if self.rms:
            return F.rms_norm(x, (self.channels,), self.weight, self.eps) + self.bias
        return F.layer_norm(x, (self.channels,), self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.channels}, rms={self.rms}, eps={self.eps}"


class ChannelLayerNorm(LayerNorm):
    """`LayerNorm` over the channels of a track: (batch, channels, length) -> the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


def channel_norm(kind: GroupedNorm, channels: int, *, eps: float = 1e-5, statistics: Statistics = "batch") -> nn.Module:
    """A norm over the channels of a track, by name.

    `rms_batch` is AlphaGenome's, `batch` the usual one, `layer` and `rms` normalise each position over its channels.
    `group` has eight channels a group (or as many as divide) and takes its statistics over the whole length too, which
    a block's `reach` must say. `statistics` is the mode of `rms_batch`.
    """
    if kind == "rms_batch":
        return RMSBatchNorm(channels, mode=statistics, eps=eps)
    if kind == "batch":
        return nn.BatchNorm1d(channels, eps=eps)
    if kind == "group":
        return nn.GroupNorm(channels // math.gcd(8, channels), channels, eps=eps)
    if kind == "none":
        return nn.Identity()
    return ChannelLayerNorm(channels, rms=kind == "rms", eps=eps)
