"""What a published model wants of its one-hot DNA, right after the input (which is A C G T, N all zeros)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from agblocks.graph import Block, register
from agblocks.graph.types import Probability

Order = Literal[
    "ACGT", "ACTG", "AGCT", "AGTC", "ATCG", "ATGC", "CAGT", "CATG", "CGAT", "CGTA", "CTAG", "CTGA",
    "GACT", "GATC", "GCAT", "GCTA", "GTAC", "GTCA", "TACG", "TAGC", "TCAG", "TCGA", "TGAC", "TGCA",
]  # fmt: skip


@register("input.order", "x: B 4 L -> out: B 4 L", reach="")
class ChannelOrder(Block):
    """Put the channels of A C G T into another order.

    Shapes: x (batch, 4, length) -> the same. Use when: a published model was trained on another order (MPRALegNet:
    AGCT).
    """

    index: Tensor

    def __init__(self, *, order: Order = "AGCT"):
        super().__init__()
        self.order = order
        self.register_buffer("index", torch.empty(4, dtype=torch.long), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill in the constant."""
        self.index.copy_(torch.tensor(["ACGT".index(letter) for letter in self.order]))

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(1, self.index)


@register("input.unknown", "x: B C L -> out: B C L", reach="")
class Unknown(Block):
    """Give unknown bases (all zeros) a value in every channel; a base that is partly known gets its missing part.

    Shapes: x (batch, channels, length) -> the same. Use when: a published model codes N as 0.25.
    """

    def __init__(self, *, value: Probability = 0.25):
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Tensor:
        return x + (1 - x.sum(1, keepdim=True)) * self.value


@register("input.reverse", "x: B C L, reverse: B < 2 -> out: B C+1 L", reach="")
class ReverseFlag(Block):
    """Add a channel that is 1 everywhere in examples which were reverse-complemented, and 0 in the others.

    Shapes: x (batch, channels, length), reverse (batch,) of 0 and 1 -> (batch, channels + 1, length).
    Use when: a model is told the strand (the DREAM nets). Whoever reverse-complements an example flips its flag.
    """

    def forward(self, x: Tensor, reverse: Tensor) -> Tensor:
        flag = reverse.to(x.dtype)[:, None, None].expand(-1, 1, x.shape[-1])
        return torch.cat((x, flag), 1)
