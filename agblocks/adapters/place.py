"""Where an adapter sits: a module, and the channels it reads and gives."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from ..layers import ChannelLayerNorm, LayerNorm, RMSBatchNorm
from .errors import UnsupportedModule


@dataclass(frozen=True)
class Place:
    """A module of a model as an adapter sees it.

    path: its dotted name. inputs, outputs: channels of what it reads and gives, None where that is not known.
    axis: where the channels stand in what it gives (and reads).
    """

    path: str
    module: nn.Module
    inputs: int | None = None
    outputs: int | None = None
    axis: int = -1
    like: Tensor | None = None  # a tensor of the model, where the module has none
    on: torch.device | None = None  # where the adapter is to be, if not where the module is
    recipe: Any = field(default=None, repr=False, compare=False)  # the resolved recipe, where the model has one
    unclear: str = "nothing says how many channels it gives; attach with a probe batch, which shows it"

    @property
    def weight(self) -> Tensor | None:
        """The module's weight, if it has one."""
        weight = getattr(self.module, "weight", None)
        return weight if isinstance(weight, Tensor) else None

    @property
    def device(self) -> torch.device:
        """Where the module's tensors are, or else the model's."""
        if self.on is not None:
            return self.on
        tensor = next(self.module.parameters(), self.like)
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def dtype(self) -> torch.dtype:
        """What an adapter's parameters should be: float32, or float64 where the module is."""
        tensor = next((t for t in self.module.parameters() if t.is_floating_point()), self.like)
        return torch.float32 if tensor is None else torch.promote_types(tensor.dtype, torch.float32)

    @property
    def kind(self) -> str:
        """The module's class."""
        return type(self.module).__name__

    def refuse(self, kind: str, why: str) -> UnsupportedModule:
        """The error for a kind of adapter that cannot sit here."""
        return UnsupportedModule(f"{kind!r} cannot sit on {self.path!r}, a {self.kind}: {why}")

    def width(self, kind: str) -> int:
        """The channels of what the module gives; refused, with what would help, where nothing says it."""
        if self.outputs is None:
            raise self.refuse(kind, self.unclear)
        return self.outputs


def place_of(path: str, module: nn.Module) -> Place:
    """What a module itself says of its channels: its type, or the `width` and `channel_axis` that a role gave it."""
    place = Place(path, module)
    if isinstance(module, nn.Linear):
        return replace(place, inputs=module.in_features, outputs=module.out_features)
    if isinstance(module, nn.Embedding):
        return replace(place, outputs=module.embedding_dim)
    if isinstance(module, _ConvNd) or hasattr(module, "conv_geometry"):
        return replace(place, inputs=module.in_channels, outputs=module.out_channels, axis=1)  # type: ignore[arg-type]
    width = norm_width(module)
    if width is not None:
        return replace(place, inputs=width, outputs=width, axis=norm_axis(module))
    said = getattr(module, "width", None)
    if isinstance(said, int) and "role" in module.__dict__:
        return replace(place, inputs=said, outputs=said, axis=getattr(module, "channel_axis", -1))
    return place


def is_norm(module: nn.Module) -> bool:
    """Whether a module normalises: by its class, never by its name."""
    return isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, LayerNorm, RMSBatchNorm))


def norm_width(module: nn.Module) -> int | None:
    """The channels of a norm, or None."""
    if not is_norm(module):
        return None
    for name in ("channels", "num_features", "num_channels"):
        if isinstance(getattr(module, name, None), int):
            return int(getattr(module, name))
    shape: tuple[int, ...] = getattr(module, "normalized_shape", ())
    return int(shape[0]) if len(shape) == 1 else None


def norm_axis(module: nn.Module) -> int:
    """Where a norm has its channels."""
    if isinstance(module, RMSBatchNorm):
        return module.dim
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return 1 if _channels_second(module) else -1
    if isinstance(module, LayerNorm) and not isinstance(module, ChannelLayerNorm):
        return -1
    return 1


def _channels_second(module: nn.LayerNorm | nn.RMSNorm) -> bool:
    """Whether somebody's subclass takes its channels second, as timm's LayerNorm2d does: tried, as nothing says it."""
    if type(module).forward in (nn.LayerNorm.forward, nn.RMSNorm.forward):
        return False
    width, tensor = module.normalized_shape[0], next(module.parameters(), torch.zeros(0))
    for others in ((1, width + 1), (width + 1,)):  # an image, a track
        try:
            with torch.no_grad():
                module.forward(tensor.new_zeros(1, width, *others))
            return True
        except (RuntimeError, ValueError, IndexError):
            continue
    return False


OVERWRITES = "it overwrites what it reads, as an activation in place does; make that inplace=False"


def overwrites(module: nn.Module) -> bool:
    """Whether the first thing that a module does is in place, as far as it can be seen without a call."""
    first = next(module.children(), None) if isinstance(module, nn.Sequential) else None
    return getattr(module, "inplace", False) is True or (first is not None and overwrites(first))


def along(vector: Tensor, like: Tensor, axis: int) -> Tensor:
    """A vector of channels as it multiplies or adds to a tensor that has them at `axis`, in that tensor's type."""
    after = like.dim() - 1 - axis % like.dim()
    vector = vector if vector.dtype == like.dtype else vector.to(like.dtype)
    return vector.view(-1, *(1,) * after) if after else vector
