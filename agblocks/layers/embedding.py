"""What depends on the organism: a vector added to every position, and a linear map of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class OrganismEmbedding(nn.Module):
    """A learnt vector for each organism, looked up for each example.

    Shapes: organism (batch,) whole numbers below `organisms` -> (batch, channels).
    """

    def __init__(self, organisms: int, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(organisms, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Small draws (0.02), so that organisms start almost alike."""
        nn.init.normal_(self.weight, std=0.02)

    def forward(self, organism: Tensor) -> Tensor:
        return nn.functional.embedding(organism, self.weight)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))


class OrganismLinear(nn.Module):
    """A linear map for each organism, picked for each example.

    Shapes: x (batch, in_channels, positions), organism (batch,) -> (batch, out_channels, positions).
    Costs: gathers one weight matrix an example. Source: AlphaGenome's heads.
    """

    def __init__(self, organisms: int, in_channels: int, out_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(organisms, out_channels, in_channels))
        self.bias = nn.Parameter(torch.empty(organisms, out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal with variance 1/fan_in; bias 0."""
        nn.init.trunc_normal_(self.weight, std=1, a=-2, b=2)
        with torch.no_grad():
            self.weight.mul_(1 / math.sqrt(self.weight.shape[-1]))
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, organism: Tensor) -> Tensor:
        return torch.baddbmm(self.bias[organism][:, :, None], self.weight[organism], x)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.weight.shape))
