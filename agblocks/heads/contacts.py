"""A head over pair maps: contacts."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from agblocks.graph import Head, register
from agblocks.graph.types import Positive
from agblocks.layers import OrganismLinear
from agblocks.layers.loss import known, masked_mean


@register("head.contacts", "x: B P P C, organism: B < organisms -> out: B P P tracks")
class ContactHead(Head):
    """Contact maps from a pair embedding: a linear map of each organism's own, nothing after it.

    Shapes: x (batch, P, P, channels), organism (batch,) -> (batch, P, P, tracks). Loss: squared error over known
    targets. Source: AlphaGenome (28 tracks).
    """

    def __init__(self, C: int, *, tracks: Positive = 28, organisms: Positive = 2):
        super().__init__()
        self.linear = OrganismLinear(organisms, C, tracks)

    def forward(self, x: Tensor, organism: Tensor) -> Tensor:
        flat = self.linear(x.flatten(1, 2).transpose(1, 2), organism)
        return flat.transpose(1, 2).unflatten(1, x.shape[1:3])

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean squared error over targets (batch, P, P, tracks) that are not NaN and not masked."""
        prediction = outputs["out"]
        target, there = known(target.to(prediction.dtype), mask)
        return masked_mean((prediction - target).square(), there)
