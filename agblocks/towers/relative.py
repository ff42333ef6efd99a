"""Transformer layers with relative attention: the towers of Enformer and Borzoi."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from agblocks.graph import Block, Edge, Misfit, Nodes, composite, register
from agblocks.graph.types import Positive, Probability
from agblocks.layers import Eps, HookPoint, role
from agblocks.layers.distances import CLASSES, Basis
from agblocks.layers.feed_forward import FeedForward
from agblocks.layers.relative import RelativeAttention


@register("tower.relative_layer", "x: B C L -> out: B C L")
class RelativeLayer(Block):
    """Pre-norm attention with a learnt key for every distance, then a feed-forward pair of linear maps, each residual.

    Values are channels / heads wide; `features` of the distance are as many (rounded down to a multiple of 6, or of 2
    for the basis `borzoi`) unless given. `train_length` sets the features' scales and doesn't follow the input.

    Shapes: x (batch, channels, length) -> the same. Any length. Costs: 2 * heads * length ** 2 logits in float32, a
    block of queries at a time. Source: Enformer, Avsec et al. 2021; Borzoi, Linder et al. 2025.
    """

    def __init__(
        self,
        C: int,
        *,
        heads: Positive = 8,
        key_dim: Positive = 64,
        basis: Basis = "enformer",
        features: Positive | None = None,
        train_length: Positive = 1536,
        expand: Positive = 2,
        eps: Eps = 1e-5,
        dropout: Probability = 0.4,
        attention_dropout: Probability = 0.05,
        position_dropout: Probability = 0.01,
    ):
        super().__init__()
        attention = RelativeAttention(
            C, heads=heads, key_dim=key_dim, basis=basis, features=features, train_length=train_length, eps=eps,
            dropout=attention_dropout, position_dropout=position_dropout,
        )  # fmt: skip
        self.attention = role(attention, "block.attn", width=C)
        self.dropout = nn.Dropout(dropout)
        self.mlp = role(FeedForward(C, expand * C, eps=eps, dropout=dropout), "block.mlp", width=C)
        self.end = role(HookPoint(), "block.out", width=C)

    @classmethod
    def check(cls, C: int, *, heads: int, basis: Basis, features: int | None, **_: Any) -> None:
        if heads > C or C % heads:
            raise Misfit(f"{heads} heads do not share out {C} channels")
        if features is not None and features % CLASSES[basis]:
            raise Misfit(f"the {basis} basis wants a multiple of {CLASSES[basis]} features, not {features}")

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(1, 2)
        h = h + self.dropout(self.attention(h))
        h = self.end(h + self.mlp(h))
        return h.transpose(1, 2)


@composite("tower.enformer", "x: B C L")
def enformer(
    x: Edge,
    *,
    depth: Positive = 11,
    heads: Positive = 8,
    key_dim: Positive = 64,
    train_length: Positive = 1536,
    dropout: Probability = 0.4,
    attention_dropout: Probability = 0.05,
    position_dropout: Probability = 0.01,
) -> Nodes:
    """`depth` layers of relative attention over exponential, mask and gamma features of the distance.

    Shapes: x (batch, C, length) -> the same. Nodes: `layer1` ...
    Source: Enformer, Avsec et al. 2021: 174,242,816 parameters over 1536 channels by default.
    """
    return _layers(
        x, depth, heads=heads, key_dim=key_dim, basis="enformer", train_length=train_length,
        dropout=dropout, attention_dropout=attention_dropout, position_dropout=position_dropout,
    )  # fmt: skip


@composite("tower.borzoi", "x: B C L")
def borzoi(
    x: Edge,
    *,
    depth: Positive = 8,
    heads: Positive = 8,
    key_dim: Positive = 64,
    train_length: Positive = 4096,
    features: Positive = 32,
    eps: Eps = 1e-3,
    dropout: Probability = 0.2,
    attention_dropout: Probability = 0.05,
    position_dropout: Probability = 0.01,
) -> Nodes:
    """`depth` layers of relative attention over central masks of the distance alone.

    Shapes: x (batch, C, length) -> the same. Nodes: `layer1` ...
    Source: Borzoi, Linder et al. 2025: 126,066,688 parameters over 1536 channels by default.
    """
    return _layers(
        x, depth, heads=heads, key_dim=key_dim, basis="borzoi", train_length=train_length, features=features, eps=eps,
        dropout=dropout, attention_dropout=attention_dropout, position_dropout=position_dropout,
    )  # fmt: skip


def _layers(x: Edge, depth: int, **args: Any) -> Nodes:
    nodes = Nodes()
    for layer in range(1, depth + 1):
        x = nodes.add(f"layer{layer}", "tower.relative_layer", {"x": x}, **args)
    nodes.out(x)
    return nodes
