"""Convolutions taken apart, and the up stage that ends in one."""

from __future__ import annotations

from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Odd, Positive
from agblocks.layers import Activation, Eps, role

from .conv import ConvBlock


@register("conv.separable", "x: B C L -> out: B channels|C L", reach="conv(kernel)")
class Separable(Block):
    """A convolution along the sequence, channel by channel and without bias, then one over the channels.

    There is no norm and no activation. Shapes: x (batch, C, length) -> (batch, channels or C, length).
    Source: Borzoi's decoder (kernel 3). Costs: C * (kernel + channels) multiply-adds a position.
    """

    def __init__(self, C: int, *, channels: Positive | None = None, kernel: Odd = 3):
        super().__init__()
        role(self, "block.out")
        self.depthwise = role(nn.Conv1d(C, C, kernel, padding=kernel // 2, groups=C, bias=False), "conv.depthwise")
        self.pointwise = role(nn.Conv1d(C, C if channels is None else channels, 1), "conv.main")

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


@register(
    "conv.up_separable",
    "x: B C L, skip: B S L*factor -> out: B channels|C L*factor",
    reach={"x": "up(factor) conv(kernel)", "skip": "conv(kernel)"},
)
class UpSeparable(Block):
    """One doubling of resolution in a U-Net: repeat the projected positions, add the projected skip, convolve.

    Both projections are norm, activation, pointwise convolution; the last convolution is separable. Unlike `conv.up` it
    has no residual paths of its own.
    Shapes: x (batch, C, length), skip (batch, S, length * factor) -> (batch, channels or C, length * factor).
    Source: Borzoi, Linder et al. 2025.
    """

    def __init__(
        self,
        C: int,
        S: int,
        *,
        channels: Positive | None = None,
        kernel: Odd = 3,
        factor: Positive = 2,
        activation: Activation = "gelu_tanh",
        eps: Eps = 1e-3,
    ):
        super().__init__()
        role(self, "block.out")
        out, self.factor = C if channels is None else channels, factor
        self.main = ConvBlock(C, channels=out, kernel=1, activation=activation, eps=eps)
        self.skip = ConvBlock(S, channels=out, kernel=1, activation=activation, eps=eps)
        self.separable = Separable(out, kernel=kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.separable(self.main(x).repeat_interleave(self.factor, -1) + self.skip(skip))
