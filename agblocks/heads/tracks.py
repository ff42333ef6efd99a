"""A head of many tracks at one resolution, AlphaGenome's way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agblocks.graph import Head, Misfit, register
from agblocks.graph.types import Counts, Distance, NonNegativeFloat, Positive
from agblocks.layers import OrganismLinear, RealTracks, wrong_counts
from agblocks.layers.loss import SOFT, TINY, known, masked_mean, poisson, soft_clip

POWER = 0.75  # of squashed tracks


@register(
    "head.tracks",
    "x: B C L, organism: B < organisms -> out: B tracks L, scaled: B tracks L, unit: B tracks, real: B tracks < 2",
    reach="",
)
class TrackHead(Head):
    """Tracks along the sequence: a linear map of each organism's own, softplus, and a learnt scale of each track.

    The head has one resolution; a model with two has two heads. Its ports: `out`, the experimental scale; `scaled`, the
    model's, on which the loss is taken; `unit`, the experimental value of one: `track_means` (state, 1 until set or
    loaded) times `resolution`; `real`, which tracks the organism has: the first of them, as many as the argument `real`
    says (all by default); the others fill up the width and don't count in the loss. From model's to experimental: above
    10 the value grows as `(y + 10) ** 2 / 40`, with `squash` it is raised to 1 / 0.75, then multiplied by the unit.

    Shapes: x (batch, channels, length), organism (batch,) -> out and scaled (batch, tracks, length), unit and real
    (batch, tracks). Loss: see `loss`; the published model's optional loss over genes of RNA-seq is not there. Targets
    at a coarser resolution than measured are sums: `agblocks.layers.sum_pool`.
    Source: AlphaGenome, Avsec et al. 2026, Methods.
    """

    loss_ports = ("scaled", "unit", "real")
    track_means: Tensor

    def __init__(
        self,
        C: int,
        *,
        tracks: Positive,
        resolution: Positive = 1,
        squash: bool = False,
        real: Counts | None = None,
        organisms: Positive = 2,
        segment: Distance = 2**17,
        positional_weight: NonNegativeFloat = 5.0,
    ):
        super().__init__()
        self.resolution, self.squash, self.positional_weight = resolution, squash, positional_weight
        self.bins = max(1, segment // resolution)
        self.linear = OrganismLinear(organisms, C, tracks)
        self.activation = nn.Softplus()
        self.scale = nn.Parameter(torch.empty(organisms, tracks))
        self.activation_scale = nn.Softplus()
        self.register_buffer("track_means", torch.empty(organisms, tracks))
        self.real = RealTracks(real, organisms, tracks)
        self.reset_parameters()

    @classmethod
    def check(cls, *, real: list[int] | None, organisms: int, tracks: int, **_: Any) -> None:
        if said := wrong_counts(real, organisms, tracks):
            raise Misfit(said)

    def reset_parameters(self) -> None:
        """Scales start at 1 before their softplus; track means are 1."""
        nn.init.ones_(self.scale)
        self.track_means.fill_(1)

    def forward(self, x: Tensor, organism: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        scale = self.activation_scale(self.scale[organism])
        scaled = self.activation(self.linear(x, organism)) * scale[:, :, None]
        unit = self.track_means[organism] * self.resolution
        return self.experimental(scaled, unit), scaled, unit, self.real(organism)

    def experimental(self, scaled: Tensor, unit: Tensor) -> Tensor:
        """From the model's scale (batch, tracks, length) to the experiment's."""
        y = scaled.to(torch.promote_types(scaled.dtype, torch.float32))  # the square leaves half precision's range
        y = torch.where(y > SOFT, (y + SOFT).square() / (4 * SOFT), y)
        if self.squash:
            y = y ** (1 / POWER)
        return (y * unit[:, :, None]).to(scaled.dtype)

    def model_scale(self, target: Tensor, unit: Tensor) -> Tensor:
        """From the experiment's scale to the model's: the inverse of `experimental` on targets from 0 on."""
        t = target.clamp(min=0) / torch.where(unit == 0, 1, unit)[:, :, None]  # a mean of 0 is that of padding
        if self.squash:
            t = t**POWER
        return soft_clip(t)

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Poisson deviance of each segment's total, plus 5 times where in the segment the counts lie.

        `target` (batch, tracks, length) is on the experimental scale. A segment is 131,072 bp wherever the head's
        resolution; a shorter rest at the end is a segment too (the published loss wants whole ones). The second term is
        weighted by counts, not divided by the total. NaN targets, those where `mask` is False and those of tracks that
        the organism doesn't have don't count.
        """
        prediction, unit = outputs["scaled"], outputs["unit"].detach()
        wide = torch.promote_types(prediction.dtype, torch.float32)
        target, there = known(target.to(wide), mask)
        there = there & outputs["real"].to(torch.bool)[:, :, None]
        target = self._segments(torch.where(there, self.model_scale(target, unit.to(wide)), 0))
        prediction = self._segments(torch.where(there, prediction.to(wide), 0))
        there = self._segments(there)
        totals, total = target.sum(-1), prediction.sum(-1)
        count = masked_mean(poisson(totals, total), there.any(-1)) / self.bins
        share = prediction / (total[..., None] + TINY)
        return count + self.positional_weight * masked_mean(-target * (share + TINY).log(), there)

    def _segments(self, x: Tensor) -> Tensor:
        """(batch, tracks, length) to (batch, tracks, segments, bins); the rest is filled with what doesn't count."""
        bins = min(self.bins, x.shape[-1])
        return F.pad(x, (0, -x.shape[-1] % bins)).unflatten(-1, (-1, bins))
