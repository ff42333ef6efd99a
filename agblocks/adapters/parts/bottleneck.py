"""The core of the bottleneck kinds: a narrow path beside a module, from what it gives or reads to what it gives."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ...graph.types import Positive, PositiveFloat, Probability
from ...layers import Activation
from ...layers import activation as activation_by_name
from ..adapter import Adapter, Phase, given, main, remade
from ..errors import UnsupportedModule
from ..place import OVERWRITES, Place, along, overwrites
from .dense import ChannelNorm, Dense, Draw, cast

Scaling = PositiveFloat | Literal["learned", "channel"]
UpInit = Literal["same", "zero"]


class Bottleneck(Adapter):
    """`y' = y + s U f(D h + d) + s u`: down to `latent` channels, an activation, up again, at every position by itself.

    h is what the module gives (`y`), or what it reads where a kind `taps_input`. The width is `latent`, or the channels
    divided by `reduction` (1 at least); one of them is None. D and U are drawn by `init` with `std`, U = 0 with
    `up_init` "zero", biases 0. `scaling`: a number, one `learned` number or one for each `channel`, both from 1.
    `ln_before`: a norm of h. `ln_after`: a norm of what U gives, which makes it large unless U = 0 at the start.
    `dropout`: on the narrow channels. `drop_path`: leaves the whole path out for rows of the batch, in training.
    `gating`: times the mean over all positions of sigmoid(w h + b), so that a window of a longer input differs.
    """

    phase = Phase.ACT
    taps_input: ClassVar[bool] = False
    least: int = 1  # of the width that a reduction gives

    def __init__(
        self,
        place: Place,
        *,
        latent: Positive | None = None,
        reduction: Positive | None = None,
        activation: Activation = "relu",
        init: Draw = "truncated",
        std: PositiveFloat = 1e-3,
        up_init: UpInit = "same",
        scaling: Scaling = 1.0,
        ln_before: bool = False,
        ln_after: bool = False,
        dropout: Probability = 0.0,
        drop_path: Probability = 0.0,
        gating: bool = False,
    ):
        super().__init__(place)
        name = self.kind.name
        out = place.width(name)
        reads = place.inputs if self.taps_input else out
        if reads is None:
            raise place.refuse(name, "nothing says how many channels it reads; attach with a probe batch")
        if self.taps_input and not keeps_length(place.module):
            raise place.refuse(name, "it gives another number of positions than it reads")
        if self.taps_input and overwrites(place.module):
            raise place.refuse(name, OVERWRITES)
        narrow = latent if latent is not None else max(self.least, reads // (reduction or 1))
        self.axis, self.init, self.std, self.up_init = place.axis, init, std, up_init
        self.dropout, self.drop_path = dropout, drop_path
        self.identity = up_init == "zero"
        self.activation = activation_by_name(activation)
        self.down, self.up = self.maps(place, reads, narrow, out)
        self.norm_before = ChannelNorm(place, reads) if ln_before else None
        self.norm_after = ChannelNorm(place, out) if ln_after else None
        self.gate = Dense(place, reads, 1) if gating else None
        self.scaling = 1.0 if isinstance(scaling, str) else float(scaling)
        self.scale = self.parameter(1 if scaling == "learned" else out) if isinstance(scaling, str) else None

    @staticmethod
    def check(*, latent: int | None, reduction: int | None, **others: Any) -> str | None:
        """One of them says the width."""
        if (latent is None) == (reduction is None):
            said = "neither" if latent is None else f"both latent {latent} and reduction {reduction}"
            return f"latent or reduction says the bottleneck's width, here {said}; give one and set the other to null"
        return None

    def maps(self, place: Place, reads: int, narrow: int, out: int) -> tuple[nn.Module, nn.Module]:
        """The maps down and up."""
        return Dense(place, reads, narrow), Dense(place, narrow, out)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """D and U drawn, biases 0; norms and scales start at 1, the gate at N(0, 0.02)."""
        self.reset_maps(generator)
        if self.gate is not None:
            self.gate.draw("normal", 0.02, generator)
        for norm in (self.norm_before, self.norm_after):
            if norm is not None:
                norm.reset_parameters()
        if self.scale is not None:
            nn.init.ones_(self.scale)

    def reset_maps(self, generator: torch.Generator) -> None:
        """Draw D and U."""
        assert isinstance(self.down, Dense) and isinstance(self.up, Dense)
        self.down.draw(self.init, self.std, generator)
        self.up.draw("zero" if self.up_init == "zero" else self.init, self.std, generator)

    def narrowed(self, h: Tensor) -> Tensor:
        """`D h + d`."""
        return self.down(h, self.axis)

    def widened(self, z: Tensor) -> Tensor:
        """`U z + u`."""
        return self.up(z, self.axis)

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        y = main(out)
        h = given(module, args, kwargs) if self.taps_input else y
        change = self.change(h, module.training)
        if change.shape != y.shape:
            raise UnsupportedModule(
                f"{self.kind.name!r} cannot sit on {self.path!r}: it reads {list(h.shape)} and gives {list(y.shape)}; "
                "a path beside a module needs as many positions on both sides"
            )
        return remade(out, y + cast(change, y))

    def change(self, h: Tensor, training: bool) -> Tensor:
        """What is added."""
        z = self.activation(self.narrowed(h if self.norm_before is None else self.norm_before(h, self.axis)))
        if self.dropout and training:
            z = F.dropout(z, self.dropout)
        change = self.widened(z)
        if self.norm_after is not None:
            change = self.norm_after(change, self.axis)
        if self.scale is not None:
            change = change * along(self.scale, change, self.axis)
        elif self.scaling != 1:
            change = change * self.scaling
        if self.gate is not None:
            gate = torch.sigmoid(self.gate(h, self.axis))
            inner = [axis for axis in range(1, gate.dim()) if axis != self.axis % gate.dim()]
            change = change * (gate.mean(inner, keepdim=True) if inner else gate)
        if self.drop_path and training:
            change = change * F.dropout(change.new_ones(len(change), *(1,) * (change.dim() - 1)), self.drop_path)
        return change


def keeps_length(module: Any) -> bool:
    """Whether a convolution gives as many positions as it reads; True for what is none."""
    if isinstance(module, _ConvTransposeNd):
        return False
    if hasattr(module, "conv_geometry"):
        left, right, stride, dilation, _ = module.conv_geometry()
        return bool(stride == 1 and left + right == dilation * (module.weight.shape[-1] - 1))
    if not isinstance(module, _ConvNd):
        return True
    if module.padding == "same":
        return True
    padding = [0] * len(module.kernel_size) if isinstance(module.padding, str) else module.padding
    sizes = zip(module.stride, padding, module.dilation, module.kernel_size, strict=True)
    return all(stride == 1 and 2 * pad == dilation * (kernel - 1) for stride, pad, dilation, kernel in sizes)


__all__ = ["Bottleneck", "Scaling", "UpInit", "keeps_length"]
