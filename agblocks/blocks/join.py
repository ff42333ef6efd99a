"""Two tracks of one resolution into one."""

from __future__ import annotations

import torch
from torch import Tensor

from agblocks.graph import Block, register


@register("join.add", "x: B C L, y: B C L -> out: B C L", reach="")
class Add(Block):
    """Sum of two tracks.

    Shapes: x and y (batch, channels, length) -> the same.
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@register("join.concat", "x: B C L, y: B D L -> out: B C+D L", reach="")
class Concat(Block):
    """Channels of two tracks side by side.

    Shapes: x (batch, C, length), y (batch, D, length) -> (batch, C + D, length).
    """

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.cat((x, y), 1)
