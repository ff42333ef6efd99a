"""The pre-norm feed-forward half of a transformer layer."""

from __future__ import annotations

from torch import Tensor, nn

from .norm import LayerNorm
from .role import role


class FeedForward(nn.Module):
    """Norm, linear, dropout, ReLU, linear, dropout.

    Shapes: (..., channels) -> the same. Source: Enformer, Borzoi.
    """

    def __init__(self, channels: int, hidden: int, *, eps: float = 1e-5, dropout: float = 0.0):
        super().__init__()
        self.norm = role(LayerNorm(channels, eps=eps), "norm")
        self.up = role(nn.Linear(channels, hidden), "mlp.up")
        self.dropout_up = nn.Dropout(dropout)
        self.activation = nn.ReLU()
        self.down = role(nn.Linear(hidden, channels), "mlp.down")
        self.dropout_down = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        h = self.activation(self.dropout_up(self.up(self.norm(x))))
        return self.dropout_down(self.down(h))
