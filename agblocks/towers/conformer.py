"""Conformer layers, as in DREAM-Attn: gated feed-forward halves around a convolution and attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from agblocks.graph import Block, Edge, Misfit, Nodes, composite, register
from agblocks.graph.types import Odd, Positive, Probability
from agblocks.layers import Eps, LayerNorm, SelfAttention, role

KEY_BIAS = {"gradients": "a bias on keys adds the same to all logits of a query, so none reaches attention.k.bias"}


@register("tower.conformer_layer", "x: B C L -> out: B C L")
class ConformerLayer(Block):
    """Half a gated feed-forward, a depthwise-separable convolution, self-attention, the other half.

    With F a feed-forward (norm, linear to `expand * C` channels, one half times SiLU of the other, linear back):
    x + F(x) / 2; then x + n + conv(n), n the normed x; then the norm of that, m, and m + attention(m); then F as at
    first. So the attention's residual starts from the normed track, and the convolution's adds it.

    Shapes: x (batch, channels, length) -> the same. Source: UnlockDNA's core in DREAM-Attn (layer norms of eps 1e-6,
    feed-forward without bias, depthwise convolution of width 15 without bias, pointwise with, ReLU, four heads).
    Costs: heads * length ** 2 logits.
    """

    excused = KEY_BIAS

    def __init__(
        self,
        C: int,
        *,
        kernel: Odd = 15,
        heads: Positive = 4,
        expand: Positive = 4,
        dropout: Probability = 0.1,
        eps: Eps = 1e-6,
    ):
        super().__init__()
        role(self, "block.out")
        self.forward1 = _FeedForward(C, expand, dropout, eps)
        self.norm_conv = role(LayerNorm(C, eps=eps), "norm")
        self.depthwise = role(nn.Conv1d(C, C, kernel, padding=kernel // 2, groups=C, bias=False), "conv.depthwise")
        self.pointwise = role(nn.Conv1d(C, C, 1), "conv.main")
        self.activation = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.norm_attention = role(LayerNorm(C, eps=eps), "norm")
        self.attention = role(SelfAttention(C, heads=heads), "block.attn", width=C)
        self.forward2 = _FeedForward(C, expand, dropout, eps)

    @classmethod
    def check(cls, C: int, *, heads: int, expand: int, **_: Any) -> None:
        if C % heads:
            raise Misfit(f"{heads} heads do not divide {C} channels")
        if C * expand % 2:
            raise Misfit(f"{expand} times {C} channels is odd: a gated feed-forward halves it")

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        x = x + self.forward1(x) * 0.5
        normed = self.norm_conv(x)
        convolved = self.dropout(self.activation(self.pointwise(self.depthwise(normed.transpose(1, 2)))))
        x = self.norm_attention(x + normed + convolved.transpose(1, 2))
        x = x + self.attention(x)
        return (x + self.forward2(x) * 0.5).transpose(1, 2)


class _FeedForward(nn.Module):
    """Norm, linear up, gate by SiLU, dropout, linear down, dropout; over rows (batch, positions, channels)."""

    def __init__(self, channels: int, expand: int, dropout: float, eps: float):
        super().__init__()
        role(self, "block.mlp", width=channels)
        inner = channels * expand
        self.norm = role(LayerNorm(channels, eps=eps), "norm")
        self.up = role(nn.Linear(channels, inner, bias=False), "mlp.up")
        self.gate = nn.SiLU()
        self.dropout = nn.Dropout(dropout)
        self.down = role(nn.Linear(inner // 2, channels, bias=False), "mlp.down")
        self.dropout_out = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.up(self.norm(x)).chunk(2, -1)
        return self.dropout_out(self.down(self.dropout(value * self.gate(gate))))


@composite("tower.conformer", "x: B C L")
def conformer(
    x: Edge,
    *,
    depth: Positive = 4,
    length: Positive | None = None,
    kernel: Odd = 15,
    heads: Positive = 4,
    expand: Positive = 4,
    dropout: Probability = 0.1,
) -> Nodes:
    """`depth` Conformer layers, after learnt positions if `length` says how many.

    Shapes: x (batch, C, length) -> the same. Nodes: `positions`, `layer1` ...
    Without `length` any length goes, and only the convolutions know of order. Source: UnlockDNA's core in DREAM-Attn,
    for 230 positions. (Its `num_heads` is ignored there: four heads always. Its recipe asks for eight.)
    """
    nodes = Nodes()
    if length is not None:
        x = nodes.add("positions", "embed.positions", {"x": x}, length=length)
    for layer in range(depth):
        x = nodes.add(
            f"layer{layer + 1}", "tower.conformer_layer", {"x": x},
            kernel=kernel, heads=heads, expand=expand, dropout=dropout,
        )  # fmt: skip
    nodes.out(x)
    return nodes


conformer.excused = KEY_BIAS  # type: ignore[attr-defined]
