"""A head of many tracks at one resolution, as Enformer and Borzoi have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from agblocks.graph import Head, register
from agblocks.graph.types import NonNegativeFloat, Positive
from agblocks.layers.loss import TINY, known, masked_mean

CoverageLoss = Literal["poisson", "poisson_multinomial"]
FLOOR = 1e-20  # of predictions under the logarithm


@register("head.coverage", "x: B C L -> out: B tracks L", reach="")
class CoverageHead(Head):
    """Tracks along the sequence: a linear map of each position, then softplus. One head an organism.

    With `full_precision` it leaves autocast's half precision (Borzoi). Predictions are on the scale of the training
    targets; Borzoi's were squashed, and `agblocks.layers.squash.unsquash` takes them back to coverage.

    Shapes: x (batch, channels, length) -> (batch, tracks, length). Loss: see `loss`.
    Source: Enformer (5313 human and 1643 mouse tracks), Borzoi (7611 and 2608; Calico's baskerville for its loss).
    """

    def __init__(
        self,
        C: int,
        *,
        tracks: Positive,
        full_precision: bool = False,
        loss: CoverageLoss = "poisson",
        total_weight: NonNegativeFloat = 0.2,
    ):
        super().__init__()
        self.full_precision, self.loss_name, self.total_weight = full_precision, loss, total_weight
        self.conv = nn.Conv1d(C, tracks, 1)
        self.activation = nn.Softplus()

    def forward(self, x: Tensor) -> Tensor:
        if not self.full_precision:
            return self.activation(self.conv(x))
        with torch.autocast(x.device.type, enabled=False):
            return self.activation(self.conv(x.to(self.conv.weight.dtype)))

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """How unlikely the counts of `target` (batch, tracks, length) are.

        `poisson` (Enformer): mean of p - t log p, with p at least 1e-20 under the logarithm.
        `poisson_multinomial` (Borzoi): for each track, the likelihood of where its counts lie, plus `total_weight`
        times that of their total, both divided by the length.
        NaN targets and those where `mask` is False don't count.
        """
        prediction = outputs["out"]
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target, there = known(target.to(prediction.dtype), mask)
        if self.loss_name == "poisson":
            return masked_mean(prediction - target * prediction.clamp(min=FLOOR).log(), there)
        prediction = torch.where(there, prediction, 0)
        total, expected = target.sum(-1), prediction.sum(-1)
        share = (prediction + TINY) / (expected[..., None] + TINY)
        where = torch.where(there, -(target + TINY) * share.log(), 0).sum(-1)
        how_many = expected - total * (expected + TINY).log()
        each = (where + self.total_weight * how_many) / there.sum(-1).clamp(min=1)
        return masked_mean(each, there.any(-1))
