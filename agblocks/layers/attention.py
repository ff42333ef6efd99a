"""Multi-query attention with a soft cap, and the bias that a pair map gives it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .hookpoint import HookPoint
from .norm import LayerNorm, RMSBatchNorm, Statistics
from .role import role
from .rope import Rope


def attend(
    q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, *, repeat: int = 1, cap: float | None = None
) -> Tensor:
    """Attention of many query heads over one key and value head.

    q (batch, queries, heads, d), k (batch, keys, d), v (batch, keys, e) -> (batch, queries, heads, e).
    `bias` (batch, heads, queries / repeat, keys / repeat) holds one number for each block of repeat x repeat logits and
    is added without being repeated in memory. Then logits are capped, `cap * tanh(logits / cap)`: the bias is capped
    too. Logits and softmax are float32 or better. Keys in front of the biased ones (a prefix) get no bias. Queries are
    independent of each other, so a caller may go through them, and through the rows of the bias, in slices.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    heads_first = q.to(wide).transpose(1, 2)  # batch heads queries d
    logits = (heads_first * (1 / math.sqrt(q.shape[-1]))) @ k.to(wide).transpose(1, 2)[:, None]
    if bias is not None:
        spread = bias.to(wide)[:, :, :, None, :, None]
        before = logits.shape[-1] - bias.shape[-1] * repeat
        biased = logits[..., before:].unflatten(-1, (-1, repeat)).unflatten(2, (-1, repeat)) + spread
        biased = biased.flatten(-2).flatten(2, 3)
        logits = torch.cat((logits[..., :before], biased), -1) if before else biased
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    weights = logits.softmax(-1).to(v.dtype)
    return (weights @ v[:, None]).transpose(1, 2)


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
    Source: AlphaGenome. Costs: heads * positions ** 2 logits in float32.
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
        self.kv = role(HookPoint(), "kv")
        self.out = role(nn.Linear(heads * value_dim, channels), "attn.out")
        self.norm_out = role(RMSBatchNorm(channels, dim=-1, mode=statistics), "norm")

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        h = self.norm(x)
        q = self.rope(self.norm_q(self.q(h).unflatten(-1, (self.heads, -1))))
        k, v = self.kv((self.rope(self.norm_k(self.k(h))), self.norm_v(self.v(h))))
        y = attend(q, k, v, bias, repeat=self.repeat, cap=self.cap)
        return self.norm_out(self.out(y.flatten(2)))
