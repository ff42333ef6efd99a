"""Compacter: bottlenecks whose maps are sums of Kronecker products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Positive, Probability
from agblocks.layers import Activation

from ..parts.bottleneck import Bottleneck, Scaling, UpInit
from ..parts.dense import draw, linear, unset
from ..place import Place

SHARED_STD, OWN_STD = 1e-4, 1e-2  # of the rule


class PHMRule(nn.Module):
    """The n matrices A (n, n, n) that say how inputs and outputs mix in n parts. Parameters: n ** 3."""

    def __init__(self, place: Place, n: int, std: float):
        super().__init__()
        self.std = std
        self.A = unset(place, n, n, n)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """N(0, std)."""
        draw(self.A, "normal", self.std, generator)


class PHMLinear(nn.Module):
    """`x H + b`, `H = sum_i A_i (x) (s_i t_i)`: a map of rank (in + out) + out parameters, and the rule's.

    s (n, in / n, rank), t (n, rank, out / n), `(x)` the Kronecker product. The rule is given at each call.
    """

    def __init__(self, place: Place, inputs: int, outputs: int, n: int, rank: int):
        super().__init__()
        self.s = unset(place, n, inputs // n, rank)
        self.t = unset(place, n, rank, outputs // n)
        self.bias = unset(place, outputs)

    def reset_parameters(self, generator: torch.Generator, zero: bool) -> None:
        """s and t by Xavier's normal rule for each slice, N(0, 2 / (rows + columns)) in variance, or t = 0; bias 0."""
        for parameter in (self.s, self.t):
            draw(parameter, "normal", (2 / (parameter.shape[1] + parameter.shape[2])) ** 0.5, generator)
        if zero:
            nn.init.zeros_(self.t)
        nn.init.zeros_(self.bias)

    def weight(self, rule: Tensor) -> Tensor:
        """H with outputs first, (out, in)."""
        blocks = torch.einsum("irk,iko->ior", self.s, self.t)
        return torch.einsum("ipq,ior->qopr", rule, blocks).reshape(len(self.bias), -1)

    def forward(self, x: Tensor, rule: Tensor, axis: int = -1) -> Tensor:
        return linear(x, self.weight(rule), self.bias, axis)


@adapter("compacter", role=("block.attn", "block.mlp"))
class Compacter(Bottleneck):
    """`y' = y + U gelu(D y + d) + u`, where D and U are sums of n Kronecker products `A_i (x) (s_i t_i)` of one rule A.

    Sites: as `houlsby`; the channels and the bottleneck's width must be multiples of `n` (4).
    Parameters: 2 rank (d + m) + m + d a site, m = d // reduction (32; n at least), and n ** 3 of the `rule`: once for
    all sites ("shared"), or twice a site ("own"). A is N(0, 1e-4), or N(0, 0.01) if its own; s and t are Xavier-normal,
    biases 0: at the start the output changes by 3e-9 of its norm at 1536 channels, or 4e-5 (nothing with `up_init:
    zero`). Not mergeable. The other arguments are those of every bottleneck.
    Source: Mahabadi et al. 2021. Use when: an adapter should weigh next to nothing.
    """

    shared: PHMRule  # set where adapters are attached

    def __init__(
        self,
        place: Place,
        *,
        n: Positive = 4,
        rank: Positive = 1,
        rule: Literal["shared", "own"] = "shared",
        latent: Positive | None = None,
        reduction: Positive | None = 32,
        activation: Activation = "gelu",
        up_init: UpInit = "same",
        scaling: Scaling = 1.0,
        ln_before: bool = False,
        ln_after: bool = False,
        dropout: Probability = 0.0,
        drop_path: Probability = 0.0,
        gating: bool = False,
    ):
        self.n = self.least = n  # before the maps are made
        self.rank, self.owns = rank, rule == "own"
        super().__init__(
            place, latent=latent, reduction=reduction, activation=activation, up_init=up_init, scaling=scaling,
            ln_before=ln_before, ln_after=ln_after, dropout=dropout, drop_path=drop_path, gating=gating,
        )  # fmt: skip
        if self.owns:
            self.rule_down, self.rule_up = PHMRule(place, n, OWN_STD), PHMRule(place, n, OWN_STD)

    @classmethod
    def common(cls, places: Sequence[Place], *, n: int, rule: str, **others: Any) -> PHMRule | None:
        """The rule that all sites share."""
        return PHMRule(places[0], n, SHARED_STD) if rule == "shared" else None

    def maps(self, place: Place, reads: int, narrow: int, out: int) -> tuple[nn.Module, nn.Module]:
        """Sums of Kronecker products down and up."""
        for count, what in ((reads, "its channels"), (narrow, "the bottleneck's width")):
            if count % self.n:
                raise place.refuse(self.kind.name, f"{what}, {count}, cannot be shared out among n = {self.n} parts")
        return PHMLinear(place, reads, narrow, self.n, self.rank), PHMLinear(place, narrow, out, self.n, self.rank)

    def reset_maps(self, generator: torch.Generator) -> None:
        """s and t drawn, and the rules if they are its own."""
        assert isinstance(self.down, PHMLinear) and isinstance(self.up, PHMLinear)
        self.down.reset_parameters(generator, zero=False)
        self.up.reset_parameters(generator, zero=self.up_init == "zero")
        if self.owns:
            self.rule_down.reset_parameters(generator)
            self.rule_up.reset_parameters(generator)

    def narrowed(self, h: Tensor) -> Tensor:
        return self.down(h, (self.rule_down if self.owns else self.shared).A, self.axis)

    def widened(self, z: Tensor) -> Tensor:
        return self.up(z, (self.rule_up if self.owns else self.shared).A, self.axis)


@adapter("compacter_pp", role="block.mlp")
class CompacterPlusPlus(Compacter):
    """Compacter behind the MLP alone, with half as many sites.

    Sites: as `houlsby`, and as `compacter` for widths. Parameters: as `compacter`, a site. Starts as `compacter`.
    Source: Mahabadi et al. 2021 (Compacter++). Use when: as `compacter`, which it equals in its paper.
    """
