"""A head over pair maps: contacts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from agblocks.graph import Head, Misfit, register
from agblocks.graph.types import Counts, Positive
from agblocks.layers import OrganismLinear, RealTracks, wrong_counts
from agblocks.layers.loss import known, masked_mean


@register("head.contacts", "x: B P P C, organism: B < organisms -> out: B P P tracks, real: B tracks < 2")
class ContactHead(Head):
    """Contact maps from a pair embedding: a linear map of each organism's own, nothing after it.

    Shapes: x (batch, P, P, channels), organism (batch,) -> (batch, P, P, tracks); the port `real` (batch, tracks) says
    which tracks the organism has: the first `real[organism]`, all by default. Loss: squared error over known targets of
    real tracks. Source: AlphaGenome (28 tracks; 8 of them in mouse).
    """

    loss_ports = ("out", "real")

    def __init__(self, C: int, *, tracks: Positive = 28, real: Counts | None = None, organisms: Positive = 2):
        super().__init__()
        self.linear = OrganismLinear(organisms, C, tracks)
        self.real = RealTracks(real, organisms, tracks)

    @classmethod
    def check(cls, *, real: list[int] | None, organisms: int, tracks: int, **_: Any) -> None:
        if said := wrong_counts(real, organisms, tracks):
            raise Misfit(said)

    def forward(self, x: Tensor, organism: Tensor) -> tuple[Tensor, Tensor]:
        flat = self.linear(x.flatten(1, 2).transpose(1, 2), organism)
        return flat.transpose(1, 2).unflatten(1, x.shape[1:3]), self.real(organism)

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean squared error over targets (batch, P, P, tracks) of real tracks that are not NaN and not masked."""
        prediction = outputs["out"]
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target, there = known(target.to(prediction.dtype), mask)
        there = there & outputs["real"].to(torch.bool)[:, None, None]
        return masked_mean((prediction - target).square(), there)
