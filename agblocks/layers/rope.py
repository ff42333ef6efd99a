"""Rotary positions with AlphaGenome's own frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

from .constants import ExactConstants


class Rope(ExactConstants):
    """Rotate neighbouring pairs of channels by position * frequency.

    Frequency f of n = channels / 2 is `1 / (f + (max_position - n + 1) ** (f / (n - 1)))`: arange plus geomspace, both
    ends included. `max_position` is a constant of the model and doesn't follow the input's length. Positions count from
    0; angles are worked out in float64, so they are right at any length.

    Shapes: x (batch, positions, ..., channels) -> the same. Source: AlphaGenome. Pairs are (0, 1), (2, 3), ...
    `turns` and `rotate` are the two halves of it, for positions that are given.
    """

    frequency: Tensor

    def __init__(self, channels: int, max_position: int = 8192):
        super().__init__()
        if channels % 2:
            raise ValueError(f"rotary positions turn pairs of channels, and {channels} is odd")
        self.channels, self.max_position = channels, max_position
        self.register_buffer("frequency", torch.empty(channels // 2, dtype=torch.float64), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill in the constants."""
        n = self.channels // 2
        steps = torch.arange(n, dtype=torch.float64, device=self.frequency.device)
        widest = max(1.0, float(self.max_position - n + 1))
        self.frequency.copy_(1 / (steps + widest ** (steps / max(1, n - 1))))

    def turns(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines of whole-number positions (...) -> (..., channels / 2), float32 or better for a type."""
        angle = positions.to(torch.float64)[..., None] * self.frequency
        wide = torch.promote_types(dtype, torch.float32)
        return angle.cos().to(wide), angle.sin().to(wide)

    def forward(self, x: Tensor) -> Tensor:
        cos, sin = self.turns(torch.arange(x.shape[1], device=x.device), x.dtype)
        shape = (x.shape[1], *(1,) * (x.dim() - 3), -1)
        return rotate(x, cos.view(shape), sin.view(shape))

    def extra_repr(self) -> str:
        return f"{self.channels}, max_position={self.max_position}"


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn pairs of channels of x (..., channels) by angles; cosines and sines broadcast to (..., channels / 2)."""
    even, odd = x.to(cos.dtype).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((even * cos - odd * sin, odd * cos + even * sin), -1).flatten(-2).to(x.dtype)
