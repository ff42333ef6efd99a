"""A head of many tracks at one resolution, as Enformer and Borzoi have it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from agblocks.graph import Head, register
from agblocks.graph.types import Positive
from agblocks.layers.loss import known, masked_mean

FLOOR = 1e-20  # of predictions under the logarithm


@register("head.coverage", "x: B C L -> out: B tracks L", reach="")
class CoverageHead(Head):
    """Tracks along the sequence: a linear map of each position, then softplus. One head an organism.

    With `full_precision` it leaves autocast's half precision (Borzoi). Predictions are on the scale of the training
    targets; Borzoi's were squashed, and `agblocks.layers.squash.unsquash` takes them back to coverage.

    Shapes: x (batch, channels, length) -> (batch, tracks, length). Loss: see `loss`.
    Source: Enformer (5313 human and 1643 mouse tracks), Borzoi (7611 and 2608).
    """

    def __init__(self, C: int, *, tracks: Positive, full_precision: bool = False):
        super().__init__()
        self.full_precision = full_precision
        self.conv = nn.Conv1d(C, tracks, 1)
        self.activation = nn.Softplus()

    def forward(self, x: Tensor) -> Tensor:
        if not self.full_precision:
            return self.activation(self.conv(x))
        with torch.autocast(x.device.type, enabled=False):
            return self.activation(self.conv(x.to(self.conv.weight.dtype)))

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Poisson negative log-likelihood, mean of p - t log p, p at least 1e-20 under the logarithm.

        `target` (batch, tracks, length). NaN targets and those where `mask` is False don't count.
        """
        prediction = outputs["out"]
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target, there = known(target.to(prediction.dtype), mask)
        return masked_mean(prediction - target * prediction.clamp(min=FLOOR).log(), there)
