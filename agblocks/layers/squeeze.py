"""Squeeze-excite over positions."""

from __future__ import annotations

from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate worked out from all channels' means over the length.

    Shapes: x (batch, channels, length) -> the same. Source: MPRALegNet (mean, linear, SiLU, linear, sigmoid).
    Costs: sees the whole length, so a window of a longer input comes out differently.
    """

    def __init__(self, channels: int, hidden: int):
        super().__init__()
        self.down = nn.Linear(channels, hidden)
        self.activation = nn.SiLU()
        self.up = nn.Linear(hidden, channels)
        self.gate = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        gate = self.gate(self.up(self.activation(self.down(x.mean(-1)))))
        return x * gate[:, :, None]
