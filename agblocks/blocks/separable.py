"""A convolution taken apart: along the sequence channel by channel, then over the channels."""

from __future__ import annotations

from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Odd, Positive
from agblocks.layers import role


@register("conv.separable", "x: B C L -> out: B channels|C L", reach="conv(kernel)")
class Separable(Block):
    """Depthwise convolution without bias, then a pointwise one; no norm, no activation.

    Shapes: x (batch, C, length) -> (batch, channels or C, length). Source: Borzoi's decoder (kernel 3).
    Costs: C * (kernel + channels) multiply-adds a position.
    """

    def __init__(self, C: int, *, channels: Positive | None = None, kernel: Odd = 3):
        super().__init__()
        role(self, "block.out")
        self.depthwise = role(nn.Conv1d(C, C, kernel, padding=kernel // 2, groups=C, bias=False), "conv.main")
        self.pointwise = role(nn.Conv1d(C, C if channels is None else channels, 1), "conv.main")

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))
