"""What makes and updates a pair map: sequence to pair, attention along rows, a small MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .constants import ExactConstants
from .norm import LayerNorm
from .pool import MeanPool
from .role import role
from .streaming import attend


class SequenceToPair(ExactConstants):
    """A pair map from a track: dot products of pooled positions, with relative positions, and two outer sums.

    `a[i, j] = q_i . k_j + ((q_i + b_q) . e(j - i) + (k_j + b_k) . e(i - j)) / 2` for each head, without scaling or
    softmax. `e(r)` is a linear map of 2 * 32 indicators: whether |r| is below `j + 481 ** (j / 32)`, j = 0..31, and the
    same times the sign of r. The 481 comes from the constant 512 and doesn't follow the length.

    Shapes: x (batch, positions, channels) -> (batch, P, P, out), P = ceil(positions / pool). Source: AlphaGenome.
    """

    thresholds: Tensor
    WIDTHS, FARTHEST = 32, 512

    def __init__(self, channels: int, out: int, *, heads: int = 32, key_dim: int = 128, pool: int = 16):
        super().__init__()
        self.heads, self.key_dim = heads, key_dim
        self.pool = MeanPool(pool)
        self.norm = role(LayerNorm(channels, rms=True), "norm")
        self.q = role(nn.Linear(channels, heads * key_dim, bias=False), "pair.q")
        self.k = role(nn.Linear(channels, heads * key_dim, bias=False), "pair.k")
        self.position = role(nn.Linear(2 * self.WIDTHS, heads * key_dim), "pair.position")
        self.q_bias = nn.Parameter(torch.empty(heads, key_dim))
        self.k_bias = nn.Parameter(torch.empty(heads, key_dim))
        self.activation = nn.GELU(approximate="tanh")
        self.row = role(nn.Linear(channels, out, bias=False), "pair.row")
        self.column = role(nn.Linear(channels, out, bias=False), "pair.column")
        self.out = role(nn.Linear(heads, out), "pair.out")
        self.register_buffer("thresholds", torch.empty(self.WIDTHS, dtype=torch.float64), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Position biases 0 as published, and the constants."""
        nn.init.zeros_(self.q_bias)
        nn.init.zeros_(self.k_bias)
        step = torch.arange(self.WIDTHS, dtype=torch.float64, device=self.thresholds.device)
        self.thresholds.copy_(step + float(self.FARTHEST - self.WIDTHS + 1) ** (step / self.WIDTHS))

    def forward(self, x: Tensor) -> Tensor:
        z = self.norm(self.pool(x.transpose(1, 2)).transpose(1, 2))
        q, k = (linear(z).unflatten(-1, (self.heads, -1)).transpose(1, 2) for linear in (self.q, self.k))  # B H P D
        e = (
            self.position(self.features(z.shape[1]).to(z.dtype)).unflatten(-1, (self.heads, -1)).movedim(0, -1)
        )  # H D 2P
        by_row = relative((q + self.q_bias[:, None]) @ e)
        by_column = relative((k + self.k_bias[:, None]) @ e)
        logits = q @ k.transpose(-1, -2) + 0.5 * (by_row + by_column.transpose(-1, -2))
        activated = self.activation(z)
        outer = self.row(activated)[:, :, None] + self.column(activated)[:, None]
        return self.out(logits.movedim(1, -1)) + outer

    def features(self, positions: int) -> Tensor:
        """Indicators of the distances -positions .. positions - 1: (2 * positions, 64), float64."""
        distance = torch.arange(-positions, positions, device=self.thresholds.device)
        near = (self.thresholds > distance.abs()[:, None]).to(torch.float64)
        return torch.cat((near, distance.sign()[:, None] * near), -1)


def relative(by_distance: Tensor) -> Tensor:
    """(..., P, 2P), whose last axis is the distances -P .. P - 1, to (..., P, P): entry i, j is that of j - i."""
    n = by_distance.shape[-2]
    at = torch.arange(n, device=by_distance.device)
    index = (at[None, :] - at[:, None] + n).expand(*by_distance.shape[:-1], n)
    return by_distance.gather(-1, index)


class RowAttention(nn.Module):
    """Single-head attention of a pair map's entries over the columns of their row.

    Shapes: pair (batch, P, P, channels) -> the same. Source: AlphaGenome: no output projection, no bias, no cap; only
    the values have a bias.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.norm = role(LayerNorm(channels, rms=True), "norm")
        self.q = role(nn.Linear(channels, channels, bias=False), "pair.row.q")
        self.k = role(nn.Linear(channels, channels, bias=False), "pair.row.k")
        self.v = role(nn.Linear(channels, channels), "pair.row.v")

    def forward(self, pair: Tensor) -> Tensor:
        h = self.norm(pair)
        q, k, v = (linear(h).flatten(0, 1) for linear in (self.q, self.k, self.v))  # each row an example
        return attend(q[:, :, None], k, v).view_as(pair)


class PairMLP(nn.Module):
    """RMS norm with offset, linear, ReLU, linear, for each entry of a pair map.

    Shapes: pair (batch, P, P, channels) -> the same. Source: AlphaGenome.
    """

    def __init__(self, channels: int, *, factor: int = 2):
        super().__init__()
        self.norm = role(LayerNorm(channels, rms=True), "norm")
        self.up = role(nn.Linear(channels, factor * channels), "pair.mlp.up")
        self.activation = nn.ReLU()
        self.down = role(nn.Linear(factor * channels, channels), "pair.mlp.down")

    def forward(self, pair: Tensor) -> Tensor:
        return self.down(self.activation(self.up(self.norm(pair))))
