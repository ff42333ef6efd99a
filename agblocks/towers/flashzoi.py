"""Flashzoi's tower: Borzoi's with grouped heads and rotary positions instead of relative attention."""

from __future__ import annotations

from typing import Annotated, Any

from annotated_types import Ge, Le, MultipleOf
from torch import Tensor, nn

from agblocks.graph import Block, Edge, Misfit, Nodes, composite, register
from agblocks.graph.types import Positive, PositiveFloat, Probability
from agblocks.layers import Eps, HookPoint, role
from agblocks.layers.feed_forward import FeedForward
from agblocks.layers.grouped import GroupedAttention

Even = Annotated[int, Ge(2), Le(4096), MultipleOf(2)]  # rotary positions turn pairs of channels


@register("tower.grouped_layer", "x: B C L -> out: B C L")
class GroupedLayer(Block):
    """Pre-norm attention with shared key and value heads and rotary positions, then a feed-forward pair, each residual.

    Heads are channels / heads wide, of which the first `rotary_dim` turn with the position.
    Shapes: x (batch, channels, length) -> the same. Any length, on any device: torch's own fused attention.
    Source: Flashzoi, Hingerl et al. 2024.
    """

    def __init__(
        self,
        C: int,
        *,
        heads: Positive = 8,
        kv_heads: Positive = 4,
        rotary_dim: Even = 128,
        base: PositiveFloat = 20_000.0,
        expand: Positive = 2,
        eps: Eps = 1e-3,
        dropout: Probability = 0.2,
        attention_dropout: Probability = 0.05,
    ):
        super().__init__()
        attention = GroupedAttention(
            C, heads=heads, kv_heads=kv_heads, rotary_dim=rotary_dim, base=base, eps=eps, dropout=attention_dropout
        )
        self.attention = role(attention, "block.attn", width=C)
        self.dropout = nn.Dropout(dropout)
        self.mlp = role(FeedForward(C, expand * C, eps=eps, dropout=dropout), "block.mlp", width=C)
        self.end = role(HookPoint(), "block.out", width=C)

    @classmethod
    def check(cls, C: int, *, heads: int, kv_heads: int, rotary_dim: int, **_: Any) -> None:
        if heads > C or C % heads:
            raise Misfit(f"{heads} heads do not share out {C} channels")
        if heads % kv_heads:
            raise Misfit(f"{heads} query heads do not share out {kv_heads} key and value heads")
        if rotary_dim > C // heads:
            raise Misfit(f"'rotary_dim' is {rotary_dim}, but {heads} heads of {C} channels are {C // heads} wide")

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(1, 2)
        h = h + self.dropout(self.attention(h))
        h = self.end(h + self.mlp(h))
        return h.transpose(1, 2)


@composite("tower.flashzoi", "x: B C L")
def flashzoi(
    x: Edge,
    *,
    depth: Positive = 8,
    heads: Positive = 8,
    kv_heads: Positive = 4,
    rotary_dim: Even = 128,
    base: PositiveFloat = 20_000.0,
    eps: Eps = 1e-3,
    dropout: Probability = 0.2,
    attention_dropout: Probability = 0.05,
) -> Nodes:
    """`depth` layers of attention with grouped heads and rotary positions.

    Shapes: x (batch, C, length) -> the same. Nodes: `layer1` ...
    A layer over C channels, h heads and g key and value heads has C (C + 1) for queries, 2 (g C / h) (C + 1) for keys
    and values, C (C + 1) for the output, 4 C^2 + 3 C for the feed-forward pair and 4 C for two norms: 16,530,432 at
    C = 1536, h = 8, g = 4; eight of them 132,243,456 (Borzoi's tower: 126,066,688).
    Source: Flashzoi, Hingerl et al. 2024.
    """
    nodes = Nodes()
    for layer in range(1, depth + 1):
        x = nodes.add(
            f"layer{layer}", "tower.grouped_layer", {"x": x}, heads=heads, kv_heads=kv_heads, rotary_dim=rotary_dim,
            base=base, eps=eps, dropout=dropout, attention_dropout=attention_dropout,
        )  # fmt: skip
    nodes.out(x)
    return nodes
