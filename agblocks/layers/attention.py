"""Multi-query attention with a soft cap, and the bias that a pair map gives it."""

from __future__ import annotations

from torch import Tensor, nn

from .gated_prefix import add_prefixes
from .hookpoint import HookPoint
from .norm import LayerNorm, RMSBatchNorm, Statistics
from .role import role
from .rope import Rope
from .streaming import attend


class PairBias(nn.Module):
    """The bias on attention logits that a pair map gives: norm, tanh-GELU, linear.

    Shapes: pair (batch, P, P, channels) -> (batch, heads, P, P), not repeated to the resolution of the attention.
    Source: AlphaGenome; its GELU here is the tanh approximation, not the sigmoid one of its convolutions.
    """

    def __init__(self, channels: int, heads: int, *, statistics: Statistics = "batch"):
        super().__init__()
        self.norm = role(RMSBatchNorm(channels, dim=-1, mode=statistics), "norm")
        self.activation = nn.GELU(approximate="tanh")
        self.linear = role(nn.Linear(channels, heads, bias=False), "pair.bias")

    def forward(self, pair: Tensor) -> Tensor:
        return self.linear(self.activation(self.norm(pair))).movedim(-1, 1)


class MultiQueryAttention(nn.Module):
    """Attention with one shared key and value head, norms on queries, keys and values, rotary positions, soft cap.

    A norm stands before and after (a sandwich). `heads * value_dim` need not be `channels`.

    Shapes: x (batch, positions, channels), bias (batch, heads, P, P) or None -> (batch, positions, channels).
    Source: AlphaGenome. Costs: heads * positions ** 2 logits in float32, worked out a block at a time.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        key_dim: int = 128,
        value_dim: int = 192,
        cap: float | None = 5.0,
        max_position: int = 8192,
        repeat: int = 16,
        statistics: Statistics = "batch",
    ):
        super().__init__()
        self.heads, self.cap, self.repeat = heads, cap, repeat
        self.norm = role(RMSBatchNorm(channels, dim=-1, mode=statistics), "norm")
        self.q = role(nn.Linear(channels, heads * key_dim, bias=False), "attn.q")
        self.k = role(nn.Linear(channels, key_dim, bias=False), "attn.k")
        self.v = role(nn.Linear(channels, value_dim, bias=False), "attn.v")
        self.norm_q = role(LayerNorm(key_dim), "norm")
        self.norm_k = role(LayerNorm(key_dim), "norm")
        self.norm_v = role(LayerNorm(value_dim), "norm")
        self.rope = Rope(key_dim, max_position)
        self.kv = role(HookPoint(keys=(key_dim,), values=(value_dim,), heads=heads), "kv")
        self.out = role(nn.Linear(heads * value_dim, channels), "attn.out")
        self.norm_out = role(RMSBatchNorm(channels, dim=-1, mode=statistics), "norm")

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        q = self.rope(self.norm_q(self.q(h).unflatten(-1, (self.heads, -1))))
        k, v, *prefixes = self.kv((self.rope(self.norm_k(self.k(h))), self.norm_v(self.v(h))))
        y = attend(q, k, v, bias, repeat=self.repeat, cap=self.cap)
        y = add_prefixes(y, q, prefixes, scale=q.shape[-1] ** -0.5, cap=self.cap)
        return self.norm_out(self.out(y.flatten(2)))
