"""AlphaGenome's tower: attention layers with a soft cap, and a pair map that biases them."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, MultipleOf
from torch import Tensor, nn

from agblocks.graph import Block, Edge, Nodes, composite, register
from agblocks.graph.types import Positive
from agblocks.layers import (
    HookPoint,
    MultiQueryAttention,
    PairBias,
    PairMLP,
    RMSBatchNorm,
    RowAttention,
    SequenceToPair,
    Statistics,
    role,
)

Even = Annotated[int, Ge(4), Le(4096), MultipleOf(2)]  # rotary positions turn pairs of channels
Width = Annotated[int, Ge(4), Le(4096)]
Cap = Annotated[float, Ge(1.0), Le(1000.0)]


@register("tower.layer", "x: B C L, pair?: B L/repeat L/repeat F -> out: B C L")
class TowerLayer(Block):
    """Multi-query attention with rotary positions and a soft cap, then an MLP, each between two norms, each residual.

    A pair map biases the attention: one number a head for each block of `repeat` x `repeat` positions, added before the
    cap. Shapes: x (batch, channels, length), pair (batch, length / repeat, length / repeat, F) or none -> as x.
    Costs: heads * length ** 2 logits in float32. Source: AlphaGenome, Avsec et al. 2026, Methods; no dropout, as
    released. Positions are absolute from 0 on, up to any length; `max_position` is a constant.
    """

    def __init__(
        self,
        C: int,
        F: int | None = None,
        *,
        heads: Positive = 8,
        key_dim: Even = 128,
        value_dim: Width = 192,
        expand: Positive = 2,
        cap: Cap | None = 5.0,
        max_position: Positive = 8192,
        repeat: Positive = 16,
        statistics: Statistics = "batch",
    ):
        super().__init__()
        self.bias = None if F is None else PairBias(F, heads, statistics=statistics)
        attention = MultiQueryAttention(
            C, heads=heads, key_dim=key_dim, value_dim=value_dim, cap=cap, max_position=max_position, repeat=repeat,
            statistics=statistics,
        )  # fmt: skip
        self.attention = role(attention, "block.attn", width=C)
        self.mlp = role(_MLP(C, expand * C, statistics), "block.mlp", width=C)
        self.end = role(HookPoint(), "block.out", width=C)

    def forward(self, x: Tensor, pair: Tensor | None = None) -> Tensor:
        h = x.transpose(1, 2)
        h = h + self.attention(h, None if self.bias is None else self.bias(pair))
        h = self.end(h + self.mlp(h))
        return h.transpose(1, 2)


class _MLP(nn.Module):
    """Norm, linear, ReLU, linear, norm over (batch, positions, channels)."""

    def __init__(self, channels: int, hidden: int, statistics: Statistics):
        super().__init__()
        self.norm = role(RMSBatchNorm(channels, dim=-1, mode=statistics), "norm")
        self.up = role(nn.Linear(channels, hidden), "mlp.up")
        self.activation = nn.ReLU()
        self.down = role(nn.Linear(hidden, channels), "mlp.down")
        self.norm_out = role(RMSBatchNorm(channels, dim=-1, mode=statistics), "norm")

    def forward(self, x: Tensor) -> Tensor:
        return self.norm_out(self.down(self.activation(self.up(self.norm(x)))))


@register("tower.pair_update", "x: B C L, pair?: B L/pool L/pool channels -> out: B L/pool L/pool channels")
class PairUpdate(Block):
    """Make a pair map from a track, or add to one, then attend along its rows and pass each entry through an MLP.

    Shapes: x (batch, C, length), pair (batch, P, P, channels) or none -> (batch, P, P, channels), P = length / pool.
    Costs: heads * P ** 2 dot products of `key_dim`. Source: AlphaGenome, Avsec et al. 2026, Methods.
    """

    def __init__(
        self,
        C: int,
        *,
        channels: Positive = 128,
        heads: Positive = 32,
        key_dim: Positive = 128,
        pool: Positive = 16,
    ):
        super().__init__()
        role(self, "pair.update")
        self.from_track = SequenceToPair(C, channels, heads=heads, key_dim=key_dim, pool=pool)
        self.attention = role(RowAttention(channels), "pair.attn")
        self.mlp = role(PairMLP(channels), "pair.mlp")

    def forward(self, x: Tensor, pair: Tensor | None = None) -> Tensor:
        new = self.from_track(x.transpose(1, 2))
        pair = new if pair is None else pair + new
        pair = pair + self.attention(pair)
        return pair + self.mlp(pair)


@composite("tower.alphagenome", "x: B C L")
def alphagenome(
    x: Edge,
    *,
    depth: Positive = 9,
    heads: Positive = 8,
    key_dim: Even = 128,
    value_dim: Width = 192,
    expand: Positive = 2,
    cap: Cap | None = 5.0,
    max_position: Positive = 8192,
    pair: bool = True,
    every: Positive = 2,
    pair_channels: Positive = 128,
    pair_heads: Positive = 32,
    pair_key_dim: Positive = 128,
    pool: Positive = 16,
    statistics: Statistics = "batch",
) -> Nodes:
    """`depth` attention layers over a track, and a pair map, updated before every second, that biases them all.

    Shapes: x (batch, C, length) -> the same; `<tower>.pair` is the pair map (batch, P, P, pair_channels),
    P = length / pool. Nodes: `layer1` ..., `pair1` ...
    Without a pair map (`pair: false`) there is no bias, and the length need not be a multiple of `pool`.
    Source: AlphaGenome, Avsec et al. 2026, Methods: 191,801,088 parameters over 1536 channels by default.
    """
    nodes = Nodes()
    track, pairs = x, None
    for layer in range(depth):
        if pair and layer % every == 0:
            pairs = nodes.add(
                f"pair{layer // every + 1}", "tower.pair_update", {"x": track, "pair": pairs},
                channels=pair_channels, heads=pair_heads, key_dim=pair_key_dim, pool=pool,
            )  # fmt: skip
        track = nodes.add(
            f"layer{layer + 1}", "tower.layer", {"x": track, "pair": pairs},
            heads=heads, key_dim=key_dim, value_dim=value_dim, expand=expand, cap=cap, max_position=max_position,
            repeat=pool, statistics=statistics,
        )  # fmt: skip
    nodes.out(track)
    if pairs is not None:
        nodes.port("pair", pairs)
    return nodes
