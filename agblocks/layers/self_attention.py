"""Attention as torch's own multi-head layer has it, with its four maps as modules that adapters can reach."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from .gated_prefix import add_prefixes
from .hookpoint import HookPoint
from .role import role


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence over itself: scaled dot products, no positions, no mask, biases everywhere.

    Shapes: x (batch, positions, channels) -> the same. `heads` must divide `channels`.
    Source: `torch.nn.MultiheadAttention`, whose numbers and initial values it has, without its fused weights.
    Costs: heads * positions ** 2 logits, which torch keeps out of memory where it can.
    """

    def __init__(self, channels: int, *, heads: int):
        super().__init__()
        self.heads = heads
        self.q = role(nn.Linear(channels, channels), "attn.q")
        self.k = role(nn.Linear(channels, channels), "attn.k")
        self.v = role(nn.Linear(channels, channels), "attn.v")
        self.kv = role(HookPoint(keys=(heads, channels // heads), values=(heads, channels // heads), heads=heads), "kv")
        self.out = role(nn.Linear(channels, channels), "attn.out")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Queries, keys and values uniform as one Glorot matrix of all three; biases 0."""
        bound = math.sqrt(6 / (4 * self.q.in_features))
        for linear in (self.q, self.k, self.v):
            nn.init.uniform_(linear.weight, -bound, bound)
        for linear in (self.q, self.k, self.v, self.out):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.q, self.k, self.v))
        k, v, *prefixes = self.kv((k, v))
        y = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (q, k, v))).transpose(1, 2)
        return self.out(add_prefixes(y, q, prefixes, scale=q.shape[-1] ** -0.5).flatten(2))
