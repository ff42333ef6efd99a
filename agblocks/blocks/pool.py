"""Pools as nodes of their own."""

from __future__ import annotations

from torch import Tensor

from agblocks.graph import Block, register
from agblocks.graph.types import Positive
from agblocks.layers import AttentionPool, MaxPool, MeanPool


@register("pool.max", "x: B C L -> out: B C ceil(L/pool)", reach="pool(pool)")
class MaxPoolBlock(Block):
    """Maximum of each `pool` positions; a rest at the end counts, as if padded by minus infinity.

    Shapes: x (batch, channels, length) -> (batch, channels, ceil(length / pool)). Source: AlphaGenome (at 2).
    """

    def __init__(self, *, pool: Positive = 2):
        super().__init__()
        self.pool = MaxPool(pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@register("pool.max_floor", "x: B C L>=pool -> out: B C floor(L/pool)", reach="pool(pool)")
class MaxPoolFloor(Block):
    """Maximum of each `pool` positions; a rest at the end is left out.

    Shapes: x (batch, channels, length) -> (batch, channels, floor(length / pool)). Source: MPRALegNet, DeepSTARR,
    Borzoi.
    """

    def __init__(self, *, pool: Positive = 2):
        super().__init__()
        self.pool = MaxPool(pool, rest=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@register("pool.mean", "x: B C L -> out: B C ceil(L/pool)", reach="pool(pool)")
class MeanPoolBlock(Block):
    """Mean of each `pool` positions; in a rest at the end only the real ones count.

    Shapes: x (batch, channels, length) -> (batch, channels, ceil(length / pool)).
    """

    def __init__(self, *, pool: Positive = 2):
        super().__init__()
        self.pool = MeanPool(pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)


@register("pool.attention", "x: B C L -> out: B C ceil(L/pool)", reach="pool(pool)")
class AttentionPoolBlock(Block):
    """Weighted mean of each `pool` positions, the weights learnt.

    Shapes: x (batch, channels, length) -> (batch, channels, ceil(length / pool)). Source: Enformer.
    Costs: channels ** 2 parameters.
    """

    def __init__(self, C: int, *, pool: Positive = 2):
        super().__init__()
        self.pool = AttentionPool(C, pool)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x)
