"""Learnt positions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Positive


@register("embed.positions", "x: B C length -> out: B C length", reach="")
class Positions(Block):
    """Add a learnt vector to each position.

    Shapes: x (batch, channels, length) -> the same. The table belongs to one length, so the recipe's input has to
    state it (`dna: B 4 230`). Source: UnlockDNA's core in DREAM-Attn.
    """

    def __init__(self, C: int, *, length: Positive):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(length, C))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Standard normal, as torch's embeddings are drawn."""
        nn.init.normal_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight.T
