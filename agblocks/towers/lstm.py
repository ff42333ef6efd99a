"""A recurrent tower."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le
from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Positive, Probability
from agblocks.layers import role

Layers = Annotated[int, Ge(1), Le(16)]


@register("tower.lstm", "x: B C L -> out: B 2*hidden L")
class LSTMTower(Block):
    """A long short-term memory that reads a track from both ends; its two states of each position side by side.

    Shapes: x (batch, channels, length) -> (batch, 2 * hidden, length). Source: BHI's core in DREAM-RNN (hidden 320).
    Use when: order matters over the whole of a short sequence. Costs: one step a position, one after the other, so
    time grows with the length even where memory and arithmetic are free. `dropout` is between layers.
    """

    graph_breaks = "torch.compile does not trace torch's recurrent layers"

    def __init__(self, C: int, *, hidden: Positive = 320, layers: Layers = 1, dropout: Probability = 0.0):
        super().__init__()
        role(self, "block.out")
        between = dropout if layers > 1 else 0.0  # torch warns of a dropout that nothing follows
        self.lstm = nn.LSTM(C, hidden, layers, batch_first=True, bidirectional=True, dropout=between)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.transpose(1, 2))[0].transpose(1, 2)
