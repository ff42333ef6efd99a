"""Attention whose logits know the distance between two positions, as in Transformer-XL, Enformer and Borzoi."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .distances import CLASSES, Basis, distance_features
from .gated_prefix import add_prefixes
from .hookpoint import HookPoint
from .norm import LayerNorm
from .role import role
from .streaming import HELD, HELD_ELSEWHERE


class RelativeAttention(nn.Module):
    """Pre-norm multi-head attention with a learnt key for every distance.

    `logit[i, j] = (q_i + content_bias) . k_j + (q_i + position_bias) . r_(j - i)`, where queries are scaled before the
    biases are added, and r is a linear map of `distance_features`. Values have channels // heads channels a head, and
    there are as many features, rounded down to what the basis shares out (6, or 2 for `borzoi`), unless `features` says
    otherwise. Dropout: `dropout` on the attention's weights, `position_dropout` on the features.

    Shapes: x (batch, positions, channels) -> the same, at any length: features are worked out at each call, in float64.
    Source: Enformer, Avsec et al. 2021. Costs: heads * positions ** 2 logits twice over, a block of queries at a time.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 8,
        key_dim: int = 64,
        basis: Basis = "enformer",
        features: int | None = None,
        train_length: int = 1536,
        eps: float = 1e-5,
        dropout: float = 0.05,
        position_dropout: float = 0.01,
    ):
        super().__init__()
        self.heads, self.basis, self.train_length, self.scale = heads, basis, train_length, key_dim**-0.5
        value_dim, kinds = channels // heads, CLASSES[basis]
        self.features = max(kinds, value_dim // kinds * kinds) if features is None else features
        self.norm = role(LayerNorm(channels, eps=eps), "norm")
        self.q = role(nn.Linear(channels, heads * key_dim, bias=False), "attn.q")
        self.k = role(nn.Linear(channels, heads * key_dim, bias=False), "attn.k")
        self.v = role(nn.Linear(channels, heads * value_dim, bias=False), "attn.v")
        self.kv = role(HookPoint(keys=(heads, key_dim), values=(heads, value_dim), heads=heads), "kv")
        self.position_dropout = nn.Dropout(position_dropout)
        self.positions = nn.Linear(self.features, heads * key_dim, bias=False)
        self.content_bias = nn.Parameter(torch.empty(heads, key_dim))
        self.position_bias = nn.Parameter(torch.empty(heads, key_dim))
        self.dropout = nn.Dropout(dropout)
        self.out = role(nn.Linear(heads * value_dim, channels), "attn.out")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The two biases N(0, 1), the output map 0, so that a layer begins as if it were not there; as published."""
        nn.init.normal_(self.content_bias)
        nn.init.normal_(self.position_bias)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (linear(h).unflatten(-1, (self.heads, -1)) for linear in (self.q, self.k, self.v))
        k, v, *prefixes = self.kv((k, v))
        found = distance_features(self.basis, x.shape[1], self.features, self.train_length, x.device)
        r = self.positions(self.position_dropout(found.to(x.dtype))).unflatten(-1, (self.heads, -1))
        y = attend_by_distance(q * self.scale, k, v, r, self.content_bias, self.position_bias, self.dropout)
        if prefixes:
            y = add_prefixes(y, q * self.scale + self.content_bias, prefixes)
        return self.out(y.flatten(2))


def attend_by_distance(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    r: Tensor,
    content_bias: Tensor,
    position_bias: Tensor,
    drop: Callable[[Tensor], Tensor] = nn.Identity(),  # noqa: B008
) -> Tensor:
    """Attention with relative logits; queries come scaled, and `drop` acts on the weights.

    q (batch, n, heads, d), k (batch, keys, heads, d), v (batch, keys, heads, e), r (2n - 1, heads, d) by distance from
    -(n - 1) on, biases (heads, d) -> (batch, n, heads, e). Keys in front of the last n (a prefix) stand
    nowhere, so they have no distance: their logits are `(q + content_bias) . k`.

    Costs: logits are float32 or better and are not held whole but a block of queries at a time; each block has only
    the distances that occur in it. A backward pass works a block out again.
    """
    wide = torch.promote_types(q.dtype, torch.float32)
    q, k, r = (x.to(wide) for x in (q, k, r))
    with_content = (q + content_bias.to(wide)).permute(2, 0, 1, 3)  # heads first: batch and queries lie together
    with_position = (q + position_bias.to(wide)).permute(2, 0, 1, 3)
    k, v, r = k.permute(2, 0, 3, 1), v.permute(2, 0, 1, 3), r.permute(1, 2, 0)
    batch, n = q.shape[:2]
    examples, queries = _blocks(batch, n, q.shape[2] * k.shape[-1], q.device.type)
    rows = []
    for first in range(0, batch, examples):
        some = slice(first, first + examples)
        parts = []
        for start in range(0, n, queries):
            end = min(n, start + queries)
            given = (
                with_content[:, some, start:end], with_position[:, some, start:end],
                k[:, some], v[:, some], r[..., n - end : 2 * n - 1 - start], drop,
            )  # fmt: skip
            whole = not torch.is_grad_enabled() or (examples >= batch and queries >= n)
            parts.append(_block(*given) if whole else checkpoint(_block, *given, use_reentrant=False))
        rows.append(_joined(parts, 2))
    return _joined(rows, 1).permute(1, 2, 0, 3)


def _block(
    with_content: Tensor, with_position: Tensor, k: Tensor, v: Tensor, r: Tensor, drop: Callable[[Tensor], Tensor]
) -> Tensor:
    """One block of queries (heads, batch, m, d) over all keys: (heads, batch, m, e)."""
    with torch.autocast(k.device.type, enabled=False):  # it would take the logits back to half precision
        logits = with_content @ k
        by_distance = (with_position.flatten(1, 2) @ r).unflatten(1, with_position.shape[1:3])
        near = shifted(by_distance, by_distance.shape[-1] - with_position.shape[2] + 1)
        prefix = logits.shape[-1] - near.shape[-1]
        logits = logits + near if not prefix else logits + nn.functional.pad(near, (prefix, 0))
        return drop(logits.softmax(-1)).to(v.dtype) @ v


def shifted(by_distance: Tensor, n: int) -> Tensor:
    """From logits by distance to logits by key: `out[i, j] = by_distance[i, m - 1 - i + j]`, without a copy.

    Shapes: (..., m, n + m - 1) -> (..., m, n).
    """
    m = by_distance.shape[-2]
    if m == 1:
        return by_distance
    return by_distance.flatten(-2).narrow(-1, m - 1, m * (n + m - 2)).unflatten(-1, (m, n + m - 2)).narrow(-1, 0, n)


def _blocks(batch: int, n: int, logits: int, device: str) -> tuple[int, int]:
    """Examples and queries a block, at so many logits a query: several short examples, or one long one in parts."""
    if torch.compiler.is_compiling():
        return batch, n
    held = HELD.get(device, HELD_ELSEWHERE) // logits
    return (max(1, held // n), n) if held >= n else (1, max(1, held))


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
