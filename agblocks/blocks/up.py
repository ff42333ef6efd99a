"""Finer resolution by repeating positions."""

from __future__ import annotations

from torch import Tensor

from agblocks.graph import Block, register
from agblocks.graph.types import Positive


@register("up.nearest", "x: B C L -> out: B C L*factor", reach="up(factor)")
class Nearest(Block):
    """Repeat every position `factor` times.

    Shapes: x (batch, channels, length) -> (batch, channels, length * factor). Source: Borzoi's decoder (at 2).
    """

    def __init__(self, *, factor: Positive = 2):
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(self.factor, -1)
