"""Tracks cut to their middle."""

from __future__ import annotations

from torch import Tensor

from agblocks.graph import Block, register
from agblocks.graph.types import NonNegative, Positive


@register("crop.center", "x: B C L>=target_length -> out: B C target_length", reach="center(target_length)")
class CenterCrop(Block):
    """Keep the middle `target_length` positions; of an odd rest, one more goes on the right.

    Shapes: x (batch, channels, length) -> (batch, channels, target_length). Use when: the output has a fixed number of
    bins (Enformer: 896), so that what is left out hangs on the input's length.
    """

    def __init__(self, *, target_length: Positive):
        super().__init__()
        self.target_length = target_length

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(-1, (x.shape[-1] - self.target_length) // 2, self.target_length)


@register("crop.sides", "x: B C L>=2*crop+1 -> out: B C L-2*crop", reach="shift(crop)")
class SideCrop(Block):
    """Leave out `crop` positions on each side.

    Shapes: x (batch, channels, length) -> (batch, channels, length - 2 * crop). Use when: edges that see padding should
    not count.
    """

    def __init__(self, *, crop: NonNegative):
        super().__init__()
        self.crop = crop

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(-1, self.crop, x.shape[-1] - 2 * self.crop)
