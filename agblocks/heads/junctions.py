"""A head over pairs of splice sites: reads across each junction, in each tissue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from agblocks.graph import Head, Misfit, register
from agblocks.graph.types import Counts, Distance, Positive, Probability
from agblocks.layers import OrganismLinear, RealTracks, Rope, rotate, wrong_counts
from agblocks.layers.loss import TINY, known, masked_mean, poisson, soft_clip

STRANDS = (("pos_donor", "pos_acceptor"), ("neg_donor", "neg_acceptor"))  # in the order of the classes
NOTHING = -1e4  # a logit whose softplus is 0
AT_ONCE = 2**23  # numbers of one site's features, over the tissues worked on together


@register(
    "head.splice_junctions",
    "x: B C L, organism: B < organisms, probabilities: B S L, positions?: B 4 candidates < L "
    "-> out: B candidates candidates 2*tissues, positions: B 4 candidates < L, real: B tissues < 2",
)
class SpliceJunctionHead(Head):
    """Reads across junctions from each candidate donor to each candidate acceptor of a strand, in each tissue.

    Candidates are the `candidates` likeliest positions of each of the first four classes of `probabilities` (donors and
    acceptors of the forward strand, then of the reverse one), in ascending order, -1 where fewer reach `threshold`; or
    those given at `positions`, where whatever is below 0 is none and becomes -1. Their features are projected, scaled
    and shifted for each tissue, turned by their positions in base pairs, and multiplied: `softplus(donor . acceptor)`.
    Pairs with a -1, and tissues that the organism doesn't have (all but the first `real[organism]`), are 0.

    Shapes: x (batch, channels, length), organism (batch,), probabilities (batch, classes, length), positions
    (batch, 4, candidates) whole numbers or none -> out (batch, donors, acceptors, 2 * tissues), forward strand first;
    the positions used, int64; real (batch, tissues). Loss: see `loss`.
    Costs: 2 * tissues * candidates ** 2 * channels multiply-adds; tissues go in portions, so memory is little more than
    twice the output's. Source: AlphaGenome, Avsec et al. 2026, Methods. Ours takes exact maxima, the official model
    approximate ones.
    """

    loss_ports = ("out", "positions", "real")

    def __init__(
        self,
        C: int,
        S: int,
        *,
        tissues: Positive = 367,
        candidates: Positive = 512,
        channels: Positive = 768,
        threshold: Probability = 0.1,
        real: Counts | None = None,
        organisms: Positive = 2,
        max_position: Distance = 2**20,
    ):
        super().__init__()
        self.tissues, self.candidates, self.threshold = tissues, candidates, threshold
        self.portion = max(1, AT_ONCE // (candidates * channels))
        self.linear = OrganismLinear(organisms, C, channels)
        self.rope = Rope(channels, max_position)
        for name in (name for pair in STRANDS for name in pair):
            self.register_parameter(name, nn.Parameter(torch.empty(organisms, 2, tissues, channels)))
        self.activation = nn.Softplus()
        self.real = RealTracks(real, organisms, tissues)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Scales and offsets by a truncated normal of 0.1."""
        for name in (name for pair in STRANDS for name in pair):
            nn.init.trunc_normal_(getattr(self, name), std=0.1, a=-0.2, b=0.2)

    @classmethod
    def check(cls, *, S: int, channels: int, real: list[int] | None, organisms: int, tissues: int, **_: Any) -> None:
        if S < 4:
            raise Misfit(f"'probabilities' has {S} classes; the first four are donors and acceptors of both strands")
        if channels % 2:
            raise Misfit(f"rotary positions turn pairs of channels, and 'channels' is {channels}")
        if said := wrong_counts(real, organisms, tissues):
            raise Misfit(said)

    def forward(
        self, x: Tensor, organism: Tensor, probabilities: Tensor, positions: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        positions = self.likeliest(probabilities) if positions is None else _whole(positions)
        at = positions.clamp(min=0)
        sites = x.gather(-1, at.flatten(1)[:, None].expand(-1, x.shape[1], -1))
        wide = torch.promote_types(x.dtype, torch.float32)
        sites = self.linear(sites, organism).to(wide).unflatten(-1, (4, -1)).permute(0, 2, 3, 1)  # B 4 K channels
        turns = self.rope.turns(at, wide)
        real = self.real(organism)
        logits = self._together(self._portions(sites, turns, pairs_of(positions), real, organism), sites)
        return self.activation(logits).to(x.dtype).permute(0, 2, 3, 1), positions, real

    def likeliest(self, probabilities: Tensor) -> Tensor:
        """Candidates (batch, 4, candidates) by probabilities (batch, classes, length): ascending, -1 after the last."""
        length = probabilities.shape[-1]
        found, at = probabilities[:, :4].detach().topk(min(self.candidates, length))
        at = torch.where(found < self.threshold, length, at).sort(-1).values
        at = torch.where(at == length, -1, at)
        return F.pad(at, (0, self.candidates - at.shape[-1]), value=-1)

    def _portions(
        self, sites: Tensor, turns: tuple[Tensor, Tensor], pairs: Tensor, real: Tensor, organism: Tensor
    ) -> Iterator[Tensor]:
        """Logits (batch, some tissues, K, K) of one strand's tissues after the other's."""
        again = torch.is_grad_enabled() and self.portion < self.tissues and not torch.compiler.is_compiling()
        for strand, names in enumerate(STRANDS):
            donor, acceptor = (getattr(self, name)[organism].to(sites.dtype) for name in names)
            halves = [(sites[:, k], turns[0][:, k], turns[1][:, k]) for k in (2 * strand, 2 * strand + 1)]
            for start in range(0, self.tissues, self.portion):
                some = slice(start, start + self.portion)
                given = (*halves[0], donor[:, :, some], *halves[1], acceptor[:, :, some])
                counts = pairs[:, strand, None] & real[:, some, None, None]
                # In training, features of a portion are worked out again when its gradient is.
                made = checkpoint(_logits, *given, counts, use_reentrant=False) if again else _logits(*given, counts)
                yield made

    def _together(self, portions: Iterator[Tensor], like: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return torch.cat(list(portions), 1)
        whole = like.new_empty(len(like), 2 * self.tissues, self.candidates, self.candidates)
        start = 0
        for made in portions:
            whole[:, start : start + made.shape[1]] = made
            start += made.shape[1]
        return whole

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Where each site's reads go and come from, plus 0.2 times how many they are.

        `target` (batch, donors, acceptors, 2 * tissues) are reads between the candidates of `positions`. The first part
        is the cross-entropy of shares, over the donors of each acceptor and over the acceptors of each donor; the
        second the Poisson deviance of each site's total, targets above 10 soft-clipped. Pairs with a -1, tissues that
        aren't real, NaN and masked targets don't count.
        """
        prediction = outputs["out"]
        prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
        target, there = known(target.to(prediction.dtype), mask)
        pairs = pairs_of(outputs["positions"])[..., None] & outputs["real"].to(torch.bool)[:, None, None, None]
        there = there & torch.cat(pairs.unbind(1), -1)
        target, prediction = torch.where(there, target, 0), torch.where(there, prediction, 0)
        parts = []
        for axis in (1, 2):
            totals, counts = target.sum(axis), there.any(axis)
            share = target / totals.clamp(min=TINY).unsqueeze(axis)
            likelihood = (share * (prediction + TINY).log()).sum(axis)
            parts.append(masked_mean((prediction + TINY).sum(axis).log() - likelihood, counts))
            parts.append(0.2 * masked_mean(poisson(soft_clip(totals), prediction.sum(axis)), counts))
        return torch.stack(parts).sum()


def pairs_of(positions: Tensor) -> Tensor:
    """Which pairs exist: positions (batch, 4, K) -> (batch, strands, donors, acceptors)."""
    there = positions >= 0
    return there[:, ::2, :, None] & there[:, 1::2, None]


def _whole(positions: Tensor) -> Tensor:
    """Positions as int64, everything below 0 as -1."""
    if positions.dtype == torch.bool:
        raise TypeError("positions are whole numbers, not torch.bool: list the places of a mask's sites")
    if positions.is_floating_point():
        raise TypeError(f"positions are whole numbers, not {positions.dtype}, which can't hold them all")
    return positions.to(torch.int64).clamp(min=-1)


def _logits(
    donors: Tensor, donor_cos: Tensor, donor_sin: Tensor, donor: Tensor,
    acceptors: Tensor, acceptor_cos: Tensor, acceptor_sin: Tensor, acceptor: Tensor, counts: Tensor,
) -> Tensor:  # fmt: skip
    """Features (batch, K, channels), their turns, scales and offsets (batch, 2, tissues, channels) to logits."""
    left = _features(donors, donor_cos, donor_sin, donor)
    right = _features(acceptors, acceptor_cos, acceptor_sin, acceptor)
    return torch.where(counts, left @ right.transpose(-1, -2), NOTHING)


def _features(sites: Tensor, cos: Tensor, sin: Tensor, parameters: Tensor) -> Tensor:
    scale, offset = parameters.unbind(1)
    return rotate(scale[:, :, None] * sites[:, None] + offset[:, :, None], cos[:, None], sin[:, None])
