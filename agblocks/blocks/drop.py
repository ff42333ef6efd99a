"""Dropout as a node of its own."""

from __future__ import annotations

from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Probability


@register("drop.elements", "x: B C L -> out: B C L", reach="")
class Dropout(Block):
    """Set single values of a track to zero in training, and scale the rest up.

    Shapes: x (batch, channels, length) -> the same. Use when: dropout stands after a join, where no block has it.
    """

    def __init__(self, *, probability: Probability = 0.5):
        super().__init__()
        self.dropout = nn.Dropout(probability)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x)
