"""IA3: one learnt factor a channel, of what a module gives or of what it reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from agblocks.graph.adapter_kinds import adapter

from ..adapter import Adapter, Phase, given, main, regiven, remade
from ..affine import Affine
from ..place import Place, along


@adapter("ia3", role=("attn.k", "attn.v"))
class Ia3(Adapter):
    """`y' = l * y`: a factor for every channel that a module gives.

    Sites: linear maps, convolutions, norms, embeddings; anything whose channels are known, though only those merge.
    Parameters: out. Factors start at 1, so nothing changes; merges exactly. Weight decay leaves them alone.
    On AlphaGenome's keys and values a norm follows, which takes a common factor out again.
    Source: Liu et al. 2022. Use when: data are few, and what is there already only has to be weighed anew.
    """

    phase = Phase.OUT_SCALE
    decays = False

    def __init__(self, place: Place):
        super().__init__(place)
        self.axis = place.axis
        self.l = self.parameter(place.width("ia3"))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Ones."""
        nn.init.ones_(self.l)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        y = main(out)
        return remade(out, y * along(self.l, y, self.axis))

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        return affine.scaled(self.l.detach().double())


@adapter("ia3_ff", role="mlp.down")
class Ia3FeedForward(Adapter):
    """`y = W (l * x) + b`: a factor for every channel that a module reads.

    Sites: linear maps and convolutions. Parameters: in. Factors start at 1; merges exactly, but not into a standardised
    convolution, whose kernels could not be centred any more. Weight decay leaves them alone.
    Source: Liu et al. 2022, on the second map of feed-forward layers. Use when: beside `ia3`.
    """

    phase = Phase.IN_SCALE
    decays = False

    def __init__(self, place: Place):
        super().__init__(place)
        if place.inputs is None or (not isinstance(place.module, (nn.Linear, _ConvNd)) and not hasattr(
            place.module, "conv_geometry"
        )):  # fmt: skip
            raise place.refuse("ia3_ff", "it is neither a linear map nor a convolution")
        self.axis = place.axis
        self.l = self.parameter(place.inputs)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Ones."""
        nn.init.ones_(self.l)

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x = given(module, args, kwargs)
        return regiven(module, args, kwargs, x * along(self.l, x, self.axis))

    def unfoldable(self, module: nn.Module) -> str | None:
        if hasattr(module, "effective_weight"):
            return "factors of its inputs would give a standardised kernel a mean"
        return super().unfoldable(module)

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        l = self.l.detach().double()
        weight = affine.weight
        groups = int(getattr(module, "groups", 1))
        rest = (1,) * (weight.dim() - 2)
        if groups == 1:
            return Affine(weight * l.view(1, -1, *rest), affine.bias)
        parts: list[Tensor] = []
        for part, factors in zip(weight.chunk(groups), l.chunk(groups), strict=True):
            parts.append(part * factors.view(1, -1, *rest))
        return Affine(torch.cat(parts), affine.bias)
