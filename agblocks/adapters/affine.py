"""A module's weights as one affine map, into which adapters are folded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from ..layers import StandardizedConv1d
from ..layers.conv import standardize
from .errors import NonFiniteMerge, NotMergeable
from .place import Place, along, is_norm, norm_axis, norm_width

OWN = f"{__name__.partition('.')[0]}.layers."
CENTRED = 1e-6  # how far from 0 a standardised kernel's mean may be, of its norm


@dataclass(frozen=True)
class Affine:
    """`weight` has output channels first: (out, in, ...) of a map, (out,) of a norm; `bias` is (out,) or None."""

    weight: Tensor
    bias: Tensor | None

    def scaled(self, rows: Tensor) -> Affine:
        """Every output channel times a number."""
        weight = self.weight * rows.view(-1, *(1,) * (self.weight.dim() - 1))
        return Affine(weight, None if self.bias is None else self.bias * rows)

    def plus(self, weight: Tensor | None = None, bias: Tensor | None = None) -> Affine:
        """With something added; a bias needs one to be added to."""
        new = self if weight is None else replace(self, weight=self.weight + weight.view_as(self.weight))
        if bias is not None:
            assert new.bias is not None
            new = replace(new, bias=new.bias + bias)
        return new

    def towards(self, other: Affine, share: float) -> Affine:
        """A share of the way to another."""
        bias = None if self.bias is None or other.bias is None else torch.lerp(self.bias, other.bias, share)
        return Affine(torch.lerp(self.weight, other.weight, share), bias)


def unmapped(module: nn.Module) -> str | None:
    """Why an adapter cannot compute beside a module what its weights would, or None."""
    if isinstance(module, _ConvTransposeNd):
        return "a transposed convolution is not supported"
    if hasattr(module, "conv_geometry") and not hasattr(module, "effective_weight"):
        return "it does not say its effective kernel (effective_weight)"
    if not is_norm(module) and computes_otherwise(module) and not hasattr(module, "effective_weight"):
        return (
            f"{type(module).__name__} computes in a way of its own, of which nothing is known; it would have to say "
            "its kernel (effective_weight) and, for a convolution, where it pads (conv_geometry)"
        )
    known = isinstance(module, (nn.Linear, nn.Embedding, _ConvNd)) or hasattr(module, "effective_weight")
    if not known and norm_width(module) is None:
        return f"a {type(module).__name__} is no affine map"
    if getattr(module, "weight", None) is None:
        return "it has no weight"
    return None


def foldable(module: nn.Module) -> str | None:
    """Why a module's weights cannot take an adapter, or None."""
    if why := unmapped(module):
        return why
    for name in tensors(module):
        if module._parameters.get(name) is None:
            return (
                f"its {name} is no parameter of its own but worked out from others, as by weight_norm, spectral_norm "
                "or pruning; take those off first"
            )
    if getattr(module, "max_norm", None) is not None:
        return "it cuts its rows at max_norm when they are read, and would cut what is merged too"
    if is_norm(module) and computes_otherwise(module) and not _scales_and_adds(module):
        return f"{type(module).__name__} does more with its weight than to multiply what it normalised"
    return None


def linear(module: nn.Module) -> bool:
    """Whether a mean of what a module reads gives the mean of what it gives."""
    maps = isinstance(module, (nn.Linear, _ConvNd)) and not computes_otherwise(module)
    return maps or hasattr(module, "effective_weight")


def computes_otherwise(module: nn.Module) -> bool:
    """Whether what a module computes was written neither by torch nor here, whatever it descends from."""
    for name in ("forward", "_conv_forward"):
        writer = next((cls for cls in type(module).__mro__ if name in vars(cls)), None)
        if writer is not None and not writer.__module__.startswith(("torch.nn.modules.", OWN)):
            return True
    return False


@torch.no_grad()
def _scales_and_adds(norm: nn.Module) -> bool:
    """Whether somebody's norm gives `weight * n(x) + bias`: tried on a twin, as nothing says it."""
    twin, draw = copy.copy(norm), torch.Generator().manual_seed(0)
    own = {name: torch.randn(t.shape, generator=draw, dtype=torch.float64) for name, t in tensors(norm).items()}
    buffers = {k: None if b is None else b.detach().clone() for k, b in norm._buffers.items()}
    buffers = {k: b.double() if b is not None and b.is_floating_point() else b for k, b in buffers.items()}
    twin.__dict__.update(_parameters={**norm._parameters, **own}, _buffers=buffers, training=False)
    plain = copy.copy(twin)
    plain.__dict__["_parameters"] = {**twin._parameters, "weight": torch.ones_like(own["weight"])}
    if "bias" in own:
        plain._parameters["bias"] = torch.zeros_like(own["bias"])  # type: ignore[assignment]
    width, axis = norm_width(norm), norm_axis(norm)
    for others in ((2, 3, 3), (2, 3), (2,), (2, 3, 3, 3)):
        shape = list(others)
        shape.insert(len(others) if axis == -1 else axis, int(width or 0))
        x = torch.randn(shape, generator=draw, dtype=torch.float64)
        try:
            whole, alone = twin.forward(x), plain.forward(x)
            wanted = alone * along(own["weight"], alone, axis)
            wanted = wanted + along(own["bias"], alone, axis) if "bias" in own else wanted
            return torch.allclose(whole, wanted, rtol=1e-5, atol=1e-6)
        except Exception:  # its own forward may raise anything for what it was not made for
            continue
    return False


def has_bias(module: nn.Module) -> bool:
    """Whether something can be added to the module's bias."""
    return isinstance(getattr(module, "bias", None), Tensor)


@torch.no_grad()
def read(module: nn.Module) -> Affine:
    """The map that a module applies, in float64. Standardised kernels as they are applied."""
    return Affine(_kernel(module), module.bias.detach().double() if has_bias(module) else None)  # type: ignore[operator]


def _kernel(module: Any) -> Tensor:
    """The weight as it is applied, output channels first."""
    if isinstance(module, StandardizedConv1d):
        return standardize(module.weight.detach().double(), module.scale.detach().double())
    weight: Tensor = module.effective_weight() if hasattr(module, "effective_weight") else module.weight
    weight = weight.detach().double()
    return weight.T if isinstance(module, nn.Embedding) else weight


def tensors(module: nn.Module) -> dict[str, Tensor]:
    """The tensors that writing changes, by name."""
    return {name: t for name in ("weight", "scale", "bias") if isinstance(t := getattr(module, name, None), Tensor)}


@torch.no_grad()
def write(place: Place, affine: Affine) -> None:
    """Put a map into a module's own tensors, each rounded once.

    Raises `NotMergeable` and `NonFiniteMerge`, and then nothing has changed.
    """
    module = place.module
    new = dict(_values(place, affine))
    for name, value in new.items():
        if not bool(torch.isfinite(value).all()):
            raise NonFiniteMerge(f"merging {place.path!r} gave a {name} that is not finite; the adapter has diverged")
    for name, value in new.items():
        tensor: Tensor = getattr(module, name)
        tensor.copy_(value.view(tensor.shape))


def _values(place: Place, affine: Affine) -> Iterator[tuple[str, Tensor]]:
    module, weight = place.module, affine.weight
    if hasattr(module, "effective_weight"):
        rows = weight.flatten(1)
        norm = torch.linalg.vector_norm(rows, dim=1)
        if bool((rows.mean(1).abs() > CENTRED * norm.clamp(min=1e-30)).any()):
            raise NotMergeable(
                f"{place.path!r} standardises its kernel, whose mean over inputs is then 0, and the adapters give it "
                "another; for lora and locon say center: true"
            )
        unit = torch.where(norm > 0, norm, torch.ones_like(norm))
        yield "weight", torch.where(norm[:, None] > 0, rows / unit[:, None], _any_direction(rows)).view_as(weight)
        yield "scale", norm
    else:
        yield "weight", weight.T if isinstance(module, nn.Embedding) else weight
    if affine.bias is not None:
        yield "bias", affine.bias


def _any_direction(rows: Tensor) -> Tensor:
    """A centred kernel of norm 1 for channels whose scale is 0."""
    row = torch.zeros_like(rows)
    if rows.shape[1] > 1:
        row[:, 0], row[:, 1] = 0.5**0.5, -(0.5**0.5)
    return row
