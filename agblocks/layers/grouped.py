"""Attention with fewer key and value heads than query heads, by torch's own fused kernels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .constants import ExactConstants
from .gated_prefix import add_prefixes
from .hookpoint import HookPoint
from .norm import LayerNorm
from .role import role


class HalfRope(ExactConstants):
    """Rotary positions on the first `width` channels of each head, which turn in pairs (i, i + width / 2).

    Pair i turns by position / base ** (2 i / width); channels from `width` on stay. Angles are worked out in float64.
    Shapes: x (batch, positions, heads, channels) -> the same. Source: GPT-NeoX, flash-attn's default, so Flashzoi.
    (AlphaGenome's `Rope` turns neighbouring channels, by other frequencies.)
    """

    frequency: Tensor

    def __init__(self, width: int, base: float = 10_000.0):
        super().__init__()
        if width % 2:
            raise ValueError(f"rotary positions turn pairs of channels, and {width} is odd")
        self.width, self.base = width, base
        self.register_buffer("frequency", torch.empty(width // 2, dtype=torch.float64), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill in the constants."""
        steps = torch.arange(self.width // 2, dtype=torch.float64, device=self.frequency.device)
        self.frequency.copy_(self.base ** (-2 * steps / self.width))

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[1], dtype=torch.float64, device=x.device)
        angle = (positions[:, None] * self.frequency)[:, None]
        wide = torch.promote_types(x.dtype, torch.float32)
        cos, sin = angle.cos().to(wide), angle.sin().to(wide)
        half = self.width // 2
        left, right = x[..., :half].to(wide), x[..., half : self.width].to(wide)
        turned = (left * cos - right * sin).to(x.dtype), (left * sin + right * cos).to(x.dtype)
        return torch.cat((*turned, x[..., self.width :]), -1)

    def extra_repr(self) -> str:
        return f"{self.width}, base={self.base}"


class GroupedAttention(nn.Module):
    """Pre-norm attention in which `heads / kv_heads` query heads share a key and value head, with rotary positions.

    Heads are channels / heads wide, query head i reads key head i // (heads / kv_heads), logits are scaled by the
    width's inverse root. Biases everywhere.

    Shapes: x (batch, positions, channels) -> the same, any length. Source: Flashzoi, Hingerl et al. 2024.
    Costs: heads * positions ** 2 logits, which torch keeps out of memory where it can.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        kv_heads: int = 4,
        rotary_dim: int = 128,
        base: float = 20_000.0,
        eps: float = 1e-5,
        dropout: float = 0.0,
    ):
        super().__init__()
        width = channels // heads
        self.heads, self.kv_heads, self.dropout = heads, kv_heads, dropout
        self.norm = role(LayerNorm(channels, eps=eps), "norm")
        self.q = role(nn.Linear(channels, heads * width), "attn.q")
        self.k = role(nn.Linear(channels, kv_heads * width), "attn.k")
        self.v = role(nn.Linear(channels, kv_heads * width), "attn.v")
        self.rope = HalfRope(rotary_dim, base)
        self.kv = role(HookPoint(keys=(kv_heads, width), values=(kv_heads, width), heads=heads), "kv")
        self.out = role(nn.Linear(heads * width, channels), "attn.out")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The output map starts at 0, as published."""
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q = self.rope(self.q(h).unflatten(-1, (self.heads, -1)))
        k = self.rope(self.k(h).unflatten(-1, (self.kv_heads, -1)))
        k, v, *prefixes = self.kv((k, self.v(h).unflatten(-1, (self.kv_heads, -1))))
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        dropout = self.dropout if self.training else 0.0
        if k.shape[2] == 1 and not dropout:  # one key takes all; torch's kernels give the queries rounding as gradients
            y = v.repeat_interleave(self.heads // self.kv_heads, 1)
        else:
            y = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, enable_gqa=True)
        y = add_prefixes(y.transpose(1, 2), q.transpose(1, 2), prefixes, scale=q.shape[-1] ** -0.5)
        return self.out(y.flatten(2))
