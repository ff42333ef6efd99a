"""What every kind of adapter is: the parameters of one site, and what it does before or after the module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..graph.adapter_kinds import Kind
from .affine import Affine, foldable
from .place import Place


class Phase(IntEnum):
    """The order in which adapters on one module act, in activations as in weights."""

    IN_SCALE = 10  # before the module
    ADD = 20
    DORA = 30
    OUT_SCALE = 40
    BIAS = 50
    ACT = 60  # bottlenecks, which are not linear
    REPR = 70  # interventions on what is handed on


class Adapter(nn.Module):
    """One adapter at one site; it holds that site's parameters and nothing of the base.

    A kind subclasses it, registers with `@adapter("name", role=...)` and writes

    * `__init__(self, place, *, ...)`: parameters by `self.parameter(*shape)`, or a `place.refuse(...)` raised;
    * `reset_parameters(generator)`: their initial values, drawn from the generator alone;
    * `before(module, args, kwargs) -> (args, kwargs)` and/or `after(module, args, kwargs, out) -> out`, which read
      `module` afresh at each call and change nothing anywhere;
    * `fold(affine, module) -> Affine`, the same on weights, where `unfoldable()` is None.

    Class attributes: `phase`; `identity`, whether it changes nothing at the start, to the bit.
    Dropout inside takes the target's own `module.training`.
    """

    kind: ClassVar[Kind]
    phase: ClassVar[Phase] = Phase.ADD
    identity: bool = True
    decays: bool = True  # whether weight decay makes sense for its parameters
    reads_weight: ClassVar[bool] = False  # at each call, so nothing may be folded into it while this stays beside it
    divisible: bool = True  # whether a share of what it does, a mean or a part of the batch, makes sense

    def __init__(self, place: Place):
        super().__init__()
        self.path = place.path
        self._device, self._dtype = place.device, place.dtype

    def parameter(self, *shape: int) -> nn.Parameter:
        """An unset parameter where the module is, in float32 or better."""
        return nn.Parameter(torch.empty(shape, device=self._device, dtype=self._dtype))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Draw the initial values."""
        raise NotImplementedError

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        """What the module is given instead."""
        return args, kwargs

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        """What the module gives instead."""
        return out

    def unfoldable(self, module: nn.Module) -> str | None:
        """Why it cannot be folded into the module's weights, or None."""
        if type(self).fold is Adapter.fold:
            return "it is no affine map of what the module gives"
        return foldable(module)

    def fold(self, affine: Affine, module: nn.Module) -> Affine:
        """The map with this adapter in it, in float64."""
        raise NotImplementedError

    def learning_rates(self) -> Mapping[str, float]:
        """Factors of the learning rate of its own parameters that have another than 1."""
        return {}

    @classmethod
    def acts_before(cls) -> bool:
        """Whether it changes what the module reads."""
        return cls.before is not Adapter.before

    @classmethod
    def acts_after(cls) -> bool:
        """Whether it changes what the module gives."""
        return cls.after is not Adapter.after

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """What is saved: parameters and persistent buffers by name."""
        yield from self.state_dict().items()

    def extra_repr(self) -> str:
        return self.path


def given(module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """What a module was called with: its first argument, by position or by name."""
    return args[0] if args else kwargs[_first(module, kwargs)]


def regiven(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], value: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with another first one."""
    return ((value, *args[1:]), kwargs) if args else (args, {**kwargs, _first(module, kwargs): value})


def _first(module: nn.Module, kwargs: Mapping[str, Any]) -> str:
    """The first of named arguments as the module's forward has them, in whatever order they were written."""
    names = inspect.signature(module.forward).parameters if len(kwargs) > 1 else ()
    return next((name for name in names if name in kwargs), next(iter(kwargs)))


def main(out: Any) -> Tensor:
    """The tensor that a module gives: itself, or the first of a tuple, list or mapping."""
    if isinstance(out, Tensor):
        return out
    first = next(iter(out.values())) if isinstance(out, Mapping) else out[0]
    return main(first)


def remade(out: Any, value: Tensor) -> Any:
    """What a module gives, with another main tensor, in the same container."""
    if isinstance(out, Tensor):
        return value
    if isinstance(out, Mapping):
        name = next(iter(out))
        new = dict(out)
        new[name] = remade(out[name], value)
        return new if type(out) is dict else type(out)(**new)
    items = [remade(out[0], value), *out[1:]]
    if hasattr(out, "_fields"):  # a named tuple
        return type(out)(*items)
    return type(out)(items)
