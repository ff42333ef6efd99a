"""BitFit and norm tuning, as changes beside the frozen parameters."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from agblocks.graph.adapter_kinds import adapter

from ..adapter import Adapter, Phase, main, remade
from ..affine import Affine, has_bias
from ..place import Place, along, is_norm


@adapter("bitfit", role=("attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down"))
class BitFit(Adapter):
    """`y' = y + d`: a change of the bias.

    Sites: whatever has known channels; it merges only where there is a bias to add to. Parameters: out. Starts at 0, so
    nothing changes. Source: Ben Zaken et al. 2022. Use when: under a hundred measurements.
    """

    phase = Phase.BIAS
    decays = False

    def __init__(self, place: Place):
        super().__init__(place)
        self.axis = place.axis
        self.d = self.parameter(place.width("bitfit"))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Zeros."""
        nn.init.zeros_(self.d)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        y = main(out)
        return remade(out, y + along(self.d, y, self.axis))

    def unfoldable(self, module: nn.Module) -> str | None:
        if not has_bias(module):
            return "it has no bias to add to, and merging makes no new parameters"
        return super().unfoldable(module)

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        return affine.plus(bias=self.d.detach().double())


@adapter("norm", role="norm")
class NormTuning(Adapter):
    """`y' = g * y + d`: a norm's scale and offset, tuned.

    Sites: norms. Parameters: 2 * channels. g = 1, d = 0 at the start; merges exactly where the norm has a bias. The
    running statistics of a frozen norm stay as they are. (`train=["role=norm"]` trains the norms' own parameters.)
    Source: Baskerville's `unfreeze_norm`. Use when: beside other adapters, as Houlsby et al. 2019 do.
    """

    phase = Phase.OUT_SCALE
    decays = False

    def __init__(self, place: Place):
        super().__init__(place)
        if not is_norm(place.module):
            raise place.refuse("norm", "it is no norm; ia3 and bitfit fit other modules")
        self.axis = place.axis
        self.g = self.parameter(place.width("norm"))
        self.d = self.parameter(place.width("norm"))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Scale 1, offset 0."""
        nn.init.ones_(self.g)
        nn.init.zeros_(self.d)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        y = main(out)
        return remade(out, y * along(self.g, y, self.axis) + along(self.d, y, self.axis))

    def unfoldable(self, module: nn.Module) -> str | None:
        if not has_bias(module):
            return "the norm has no bias to add to, and merging makes no new parameters"
        return super().unfoldable(module)

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        return affine.scaled(self.g.detach().double()).plus(bias=self.d.detach().double())
