"""Heads over splice sites: which positions are sites, and how often each tissue uses them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agblocks.graph import Head, Misfit, register
from agblocks.graph.types import Counts, Positive
from agblocks.layers import OrganismLinear, RealTracks, wrong_counts
from agblocks.layers.loss import TINY, known, masked_mean


@register("head.splice_sites", "x: B C L, organism: B < organisms -> out: B classes L, logits: B classes L", reach="")
class SpliceSiteHead(Head):
    """The class of each position: a linear map of each organism's own, softmax.

    The five published classes are donor and acceptor of the forward strand, donor and acceptor of the reverse strand,
    and none of these. Shapes: x (batch, channels, length), organism (batch,) -> out, probabilities, and logits
    (batch, classes, length). Loss: cross-entropy. Source: AlphaGenome, Avsec et al. 2026, Methods.
    """

    loss_ports = ("logits",)

    def __init__(self, C: int, *, classes: Positive = 5, organisms: Positive = 2):
        super().__init__()
        self.linear = OrganismLinear(organisms, C, classes)
        self.activation = nn.Softmax(1)

    def forward(self, x: Tensor, organism: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.linear(x, organism)
        return self.activation(logits), logits

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean cross-entropy over positions that have a label; labels (batch, classes, length) are 0 or 1.

        Labels are smoothed by 1e-7, so that nothing is impossible. A position without a label, or where one of its
        labels is NaN or masked, does not count.
        """
        logits = outputs["logits"]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        target, there = known(target.to(logits.dtype), mask)
        smooth = (1 - TINY) * target + TINY / target.shape[1]
        entropy = -(smooth * logits.log_softmax(1)).sum(1)
        return masked_mean(entropy, there.all(1) & target.any(1))


@register(
    "head.splice_usage",
    "x: B C L, organism: B < organisms -> out: B tracks L, logits: B tracks L, real: B tracks < 2",
    reach="",
)
class SpliceUsageHead(Head):
    """How often each position is used as a splice site, a share for each tissue and strand.

    A linear map of each organism's own, sigmoid; `real` as in `head.tracks`. Shapes: x (batch, channels, length),
    organism (batch,) -> out, shares, and logits (batch, tracks, length), real (batch, tracks). Loss: binary
    cross-entropy. Source: AlphaGenome, Avsec et al. 2026, Methods (734 tracks; 180 of them in mouse).
    """

    loss_ports = ("logits", "real")

    def __init__(self, C: int, *, tracks: Positive = 734, real: Counts | None = None, organisms: Positive = 2):
        super().__init__()
        self.linear = OrganismLinear(organisms, C, tracks)
        self.activation = nn.Sigmoid()
        self.real = RealTracks(real, organisms, tracks)

    @classmethod
    def check(cls, *, real: list[int] | None, organisms: int, tracks: int, **_: Any) -> None:
        if said := wrong_counts(real, organisms, tracks):
            raise Misfit(said)

    def forward(self, x: Tensor, organism: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = self.linear(x, organism)
        return self.activation(logits), logits, self.real(organism)

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean binary cross-entropy over known shares (batch, tracks, length) of real tracks, clipped by 1e-7."""
        logits = outputs["logits"]
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        target, there = known(target.to(logits.dtype), mask)
        there = there & outputs["real"].to(torch.bool)[:, :, None]
        entropy = F.binary_cross_entropy_with_logits(logits, target.clamp(TINY, 1 - TINY), reduction="none")
        return masked_mean(entropy, there)
