"""Invertible adapters: couplings of two halves of the channels, forward behind a stem and, if asked for, back again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Positive, PositiveFloat

from ..adapter import Adapter, Phase, given, main, regiven, remade
from ..errors import NoTargetMatch, UnsupportedModule
from ..parts.bottleneck import UpInit
from ..parts.dense import Dense, cast
from ..place import Place
from ..targets import glob_matcher

STD = 0.02  # of every weight


class Network(nn.Module):
    """Linear, ReLU, linear over one axis."""

    def __init__(self, place: Place, inputs: int, hidden: int, outputs: int):
        super().__init__()
        self.first, self.second = Dense(place, inputs, hidden), Dense(place, hidden, outputs)

    def draw(self, generator: torch.Generator, zero: bool) -> None:
        """N(0, 0.02), the second map 0 if asked for; biases 0."""
        self.first.draw("normal", STD, generator)
        self.second.draw("zero" if zero else "normal", STD, generator)

    def forward(self, x: Tensor, axis: int) -> Tensor:
        return cast(self.second(torch.relu(self.first(x, axis)), axis), x)


class Coupling(nn.Module):
    """`y1 = c(x1; F(x2))`, `y2 = c(x2; G(y1))` on the halves of one axis, and the way back.

    c adds what the network gives or, with a `clamp`, multiplies and adds: `x e(s) + t`, where
    `e(s) = exp(0.636 clamp atan(s / clamp))`. Of an odd number of channels the second half has one more.
    """

    def __init__(self, place: Place, channels: int, reduction: int, zero: bool, clamp: float | None = None):
        super().__init__()
        first = channels // 2
        second, hidden, times = channels - first, max(1, first // reduction), 1 if clamp is None else 2
        self.channels, self.sizes, self.zero, self.clamp = channels, (first, second), zero, clamp
        self.F = Network(place, second, hidden, times * first)
        self.G = Network(place, first, hidden, times * second)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Weights N(0, 0.02), biases 0."""
        self.F.draw(generator, self.zero)
        self.G.draw(generator, self.zero)

    def _couple(self, x: Tensor, said: Tensor, axis: int) -> Tensor:
        if self.clamp is None:
            return x + said
        s, t = said.chunk(2, axis)
        return x * self._factor(s) + t

    def _uncouple(self, y: Tensor, said: Tensor, axis: int) -> Tensor:
        if self.clamp is None:
            return y - said
        s, t = said.chunk(2, axis)
        return (y - t) / self._factor(s)

    def _factor(self, s: Tensor) -> Tensor:
        assert self.clamp is not None
        return torch.exp(0.636 * self.clamp * torch.atan(s / self.clamp))

    def forward(self, x: Tensor, axis: int = -1) -> Tensor:
        x1, x2 = x.split(self.sizes, axis)
        y1 = self._couple(x1, self.F(x2, axis), axis)
        return torch.cat([y1, self._couple(x2, self.G(y1, axis), axis)], axis)

    def inverse(self, y: Tensor, axis: int = -1) -> Tensor:
        """What `forward` made y of."""
        y1, y2 = y.split(self.sizes, axis)
        x2 = self._uncouple(y2, self.G(y1, axis), axis)
        return torch.cat([self._uncouple(y1, self.F(x2, axis), axis), x2], axis)


class Invertible(Adapter):
    """A coupling on what a module gives; its inverse on what the modules that `inverse` names read."""

    phase = Phase.ACT
    shared: Coupling  # set where adapters are attached, if there is an inverse

    def __init__(self, place: Place, reduction: int, up_init: str, inverse: str | None, clamp: float | None = None):
        super().__init__(place)
        self.axis = place.axis
        self.identity = up_init == "zero"
        self.inverts = _named(place, inverse)
        self.coupling: Coupling | None = None
        if inverse is None:
            self.coupling = _coupling(place, place.width(self.kind.name), self.kind.name, reduction, up_init, clamp)

    @classmethod
    def common(
        cls, places: Sequence[Place], *, inverse: str | None, reduction: int, up_init: str, clamp: float | None = None
    ) -> Coupling | None:
        """The coupling of which one module has the forward and others the inverse direction."""
        if inverse is None:
            return None
        name = cls.kind.name
        there = [place for place in places if not _named(place, inverse)]
        back = [place for place in places if _named(place, inverse)]
        if not back:
            raise NoTargetMatch(
                f"{name!r}: inverse {inverse!r} names none of the modules that the target matches, "
                f"{', '.join(repr(place.path) for place in places)}; it is a glob, and the target must match it too"
            )
        if len(there) != 1:
            raise UnsupportedModule(
                f"{name!r}: with an inverse one module gives what is coupled, and {len(there)} do: "
                f"{', '.join(repr(place.path) for place in there) or 'the inverse names all'}"
            )
        width = there[0].width(name)
        for place in back:
            if place.inputs != width:
                found = "nothing says how many it reads" if place.inputs is None else f"it reads {place.inputs}"
                raise place.refuse(name, f"it should read the {width} channels of {there[0].path!r}, and {found}")
        return _coupling(there[0], width, name, reduction, up_init, clamp)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """The coupling, where it is not shared."""
        if self.coupling is not None:
            self.coupling.reset_parameters(generator)

    def acts_before(self) -> bool:  # type: ignore[override]
        return self.inverts

    def acts_after(self) -> bool:  # type: ignore[override]
        return not self.inverts

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        return regiven(module, args, kwargs, self.shared.inverse(given(module, args, kwargs), self.axis))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        coupling = self.shared if self.coupling is None else self.coupling
        return remade(out, coupling(main(out), self.axis))


def _named(place: Place, inverse: str | None) -> bool:
    return inverse is not None and glob_matcher(inverse)(place.path) is not None


def _coupling(place: Place, width: int, name: str, reduction: int, up_init: str, clamp: float | None) -> Coupling:
    if width < 2:
        raise place.refuse(name, f"{width} channels have no two halves")
    return Coupling(place, width, reduction, up_init == "zero", clamp)


@adapter("nice", role="stem")
class Nice(Invertible):
    """`y1 = x1 + F(x2)`, `y2 = x2 + G(y1)`: halves of the channels added to each other by turns, which can be undone.

    Sites: stems, or whatever has known channels, two at least. Parameters: 2 c h + 2 h + c, h = c / 2 // `reduction`
    (2). F and G are linear, ReLU, linear with weights N(0, 0.02) and biases 0: at the start the output changes by 0.15
    of its norm at 1536 channels, 0.03 at 256 (nothing with `up_init: zero`). Not mergeable.
    `inverse`: a glob of the modules of which the inputs go back through the inverse of the same coupling, like the head
    of a model that fills in masked bases: `nice:glob=stem+bases,inverse=bases`, the target naming both sides.
    Source: Pfeiffer et al. 2020 (MAD-X), Dinh et al. 2015. Use when: one trunk serves several species or cell types.
    """

    def __init__(
        self, place: Place, *, reduction: Positive = 2, up_init: UpInit = "same", inverse: str | None = None
    ):  # fmt: skip
        super().__init__(place, reduction, up_init, inverse)


@adapter("affine_coupling", role="stem")
class AffineCoupling(Invertible):
    """`y1 = x1 e(s2) + t2`, `y2 = x2 e(s1) + t1`: as `nice`, with factors beside what is added.

    `(s2, t2) = F(x2)`, `(s1, t1) = G(y1)`, `e(s) = exp(0.636 clamp atan(s / clamp))`, between exp(-clamp) and
    exp(clamp), `clamp` 5. Sites: as `nice`. Parameters: 3 c h + 2 h + 2 c. At the start the output changes by 0.16 of
    its norm at 1536 channels, 0.03 at 256 (nothing with `up_init: zero`). `inverse` as there.
    Source: Dinh et al. 2017; Kingma and Dhariwal 2018 (Glow). Use when: `nice` is too stiff.
    """

    def __init__(
        self,
        place: Place,
        *,
        reduction: Positive = 2,
        up_init: UpInit = "same",
        inverse: str | None = None,
        clamp: PositiveFloat = 5.0,
    ):
        super().__init__(place, reduction, up_init, inverse, clamp)
