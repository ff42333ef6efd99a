"""AlphaGenome's convolutions: the DNA embedder, one stage down, one stage up."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import NonNegative, Odd, Positive
from agblocks.layers import MaxPool, QuickGELU, RMSBatchNorm, Statistics, role, same_conv


@register("conv.embed", "x: B C L -> out: B channels L", reach="conv(width) conv(kernel)")
class Embed(Block):
    """A wide plain convolution, then a residual norm-activation-convolution: DNA into channels.

    Shapes: x (batch, C, length) -> (batch, channels, length).
    Source: AlphaGenome's DNA embedder (768 channels, widths 15 and 5). There is no norm before the first convolution.
    """

    def __init__(
        self, C: int, *, channels: Positive = 768, width: Odd = 15, kernel: Odd = 5, statistics: Statistics = "batch"
    ):
        super().__init__()
        role(self, "stem")
        self.conv1 = role(nn.Conv1d(C, channels, width, padding=width // 2), "conv.main")
        self.norm2 = role(RMSBatchNorm(channels, mode=statistics), "norm")
        self.activation2 = QuickGELU()
        self.conv2 = role(same_conv(channels, channels, kernel), "conv.main")

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return x + self.conv2(self.activation2(self.norm2(x)))


@register("conv.down", "x: B C L -> out: B C+growth ceil(L/pool)", reach="pool(pool) conv(kernel) conv(kernel)")
class DownStage(Block):
    """Max-pool, then two residual norm-activation-convolutions: one halving of resolution.

    The pool comes first, so the output is the last track of its stride: what a decoder skips from. The first residual
    adds the input's channels and zeros for those that are new.

    Shapes: x (batch, C, length) -> (batch, C + growth, ceil(length / pool)).
    Use when: a deep encoder of AlphaGenome's kind is wanted. Costs: about 2 * kernel * (C + growth) ** 2 multiply-adds
    an output position. Source: AlphaGenome, Avsec et al. 2026, Methods.
    """

    def __init__(
        self,
        C: int,
        *,
        growth: NonNegative = 128,
        kernel: Odd = 5,
        pool: Positive = 2,
        statistics: Statistics = "batch",
    ):
        super().__init__()
        role(self, "block.out")
        self.growth = growth
        self.pool = MaxPool(pool)
        self.norm1 = role(RMSBatchNorm(C, mode=statistics), "norm")
        self.activation1 = QuickGELU()
        self.conv1 = role(same_conv(C, C + growth, kernel), "conv.main")
        self.norm2 = role(RMSBatchNorm(C + growth, mode=statistics), "norm")
        self.activation2 = QuickGELU()
        self.conv2 = role(same_conv(C + growth, C + growth, kernel), "conv.main")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(x)
        y = F.pad(x, (0, 0, 0, self.growth)).add_(self.conv1(self.activation1(self.norm1(x))))  # pad's copy is ours
        return y + self.conv2(self.activation2(self.norm2(y)))


@register(
    "conv.up",
    "x: B C L, skip: B S L*factor -> out: B channels|S L*factor",
    reach={"x": "conv(kernel) up(factor) conv(kernel)", "skip": "conv(kernel)"},
)
class UpStage(Block):
    """One doubling of resolution in a U-Net: convolve, repeat, add the projected skip, convolve.

    The main path's residual takes the first channels where the output has fewer than the input, and fills with zeros
    where it has more. The output has the skip's channels unless `channels` says otherwise.

    Shapes: x (batch, C, length), skip (batch, S, length * factor) -> (batch, channels or S, length * factor).
    Source: AlphaGenome, Avsec et al. 2026, Methods; the learnt scale of the main path starts at 1, as released.
    """

    def __init__(
        self,
        C: int,
        S: int,
        *,
        channels: Positive | None = None,
        kernel: Odd = 5,
        factor: Positive = 2,
        statistics: Statistics = "batch",
    ):
        super().__init__()
        role(self, "block.out")
        out = S if channels is None else channels
        self.main = _Up(C, out, kernel, factor, statistics)
        self.norm_skip = role(RMSBatchNorm(S, mode=statistics), "norm")
        self.activation_skip = QuickGELU()
        self.conv_skip = role(same_conv(S, out, 1), "conv.main")
        self.norm_out = role(RMSBatchNorm(out, mode=statistics), "norm")
        self.activation_out = QuickGELU()
        self.conv_out = role(same_conv(out, out, kernel), "conv.main")

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        h = self.main(x) + self.conv_skip(self.activation_skip(self.norm_skip(skip)))
        return h + self.conv_out(self.activation_out(self.norm_out(h)))


@register("conv.up_plain", "x: B C L -> out: B channels|C L*factor", reach="conv(kernel) up(factor) conv(kernel)")
class PlainUpStage(Block):
    """One doubling of resolution without a skip: `conv.up` where the encoder has no track of that stride.

    Shapes: x (batch, C, length) -> (batch, channels or C, length * factor).
    """

    def __init__(
        self,
        C: int,
        *,
        channels: Positive | None = None,
        kernel: Odd = 5,
        factor: Positive = 2,
        statistics: Statistics = "batch",
    ):
        super().__init__()
        role(self, "block.out")
        out = C if channels is None else channels
        self.main = _Up(C, out, kernel, factor, statistics)
        self.norm_out = role(RMSBatchNorm(out, mode=statistics), "norm")
        self.activation_out = QuickGELU()
        self.conv_out = role(same_conv(out, out, kernel), "conv.main")

    def forward(self, x: Tensor) -> Tensor:
        h = self.main(x)
        return h + self.conv_out(self.activation_out(self.norm_out(h)))


class _Up(nn.Module):
    """The main path of an up stage: residual convolution at the coarse resolution, repeated and scaled."""

    def __init__(self, channels: int, out: int, kernel: int, factor: int, statistics: Statistics):
        super().__init__()
        self.factor, self.more = factor, out - channels
        self.norm = role(RMSBatchNorm(channels, mode=statistics), "norm")
        self.activation = QuickGELU()
        self.conv = role(same_conv(channels, out, kernel), "conv.main")
        self.scale = nn.Parameter(torch.empty(1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The residual scale starts at 1."""
        nn.init.ones_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        h = F.pad(x, (0, 0, 0, self.more)).add_(self.conv(self.activation(self.norm(x))))  # a negative pad cuts
        return (h * self.scale).repeat_interleave(self.factor, -1)
