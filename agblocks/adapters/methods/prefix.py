"""Prefix tuning: learnt keys and values in front of those that attention makes of the sequence."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Positive, PositiveFloat
from agblocks.layers import HookPoint
from agblocks.layers.gated_prefix import GatedPrefix

from ..adapter import Adapter, Phase
from ..parts.dense import cast, draw, unset
from ..place import Place

FOREIGN = "additional_key_values"  # x-transformers' own argument: (batch, heads, positions, width), after rotation


class PrefixNet(nn.Module):
    """The prefixes of all sites by one bottleneck: an embedding of each position, linear, tanh, linear to a site's own.

    Parameters: length * width + (width + 1) * hidden + (hidden + 1) * all channels of keys and values.
    """

    def __init__(self, places: Sequence[Place], length: int, width: int, hidden: int, std: float):
        super().__init__()
        self.std = std
        self.embedding = unset(places[0], length, width)
        self.weight, self.bias = unset(places[0], hidden, width), unset(places[0], hidden)
        self.up = nn.ParameterDict()
        self.offset = nn.ParameterDict()
        for place in places:
            channels = sum(map(math.prod, _shapes(place)[:2]))
            self.up[_key(place.path)] = unset(place, channels, hidden)
            self.offset[_key(place.path)] = unset(place, channels)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Embeddings N(0, std), the linear maps and their biases uniform within the inverse root of what they read."""
        draw(self.embedding, "normal", self.std, generator)
        for weight, bias in ((self.weight, self.bias), *((self.up[k], self.offset[k]) for k in self.up)):
            draw(weight, "kaiming", 0.0, generator)
            bound = 1 / math.sqrt(weight.shape[1])
            with torch.no_grad():
                bias.copy_(torch.empty(bias.shape, dtype=bias.dtype).uniform_(-bound, bound, generator=generator))

    def forward(self, path: str) -> Tensor:
        """(length, channels of keys and values) of a site, in the parameters' type."""
        device = self.embedding.device.type
        with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
            hidden = torch.tanh(F.linear(self.embedding, self.weight, self.bias))
            return F.linear(hidden, self.up[_key(path)], self.offset[_key(path)])


@adapter("prefix", role="kv")
class Prefix(Adapter):
    """`length` learnt positions in front of the keys and values of every layer, after their norm and rotation.

    They take part in the layer's own softmax, soft cap too; they stand nowhere, so no pair bias and no distance term
    is added to them, and nothing of them goes on. Each key head has its own.
    Sites: the `kv` points of attention layers of agblocks, and with `role=block.attn` x-transformers' (ungated).
    Parameters: length * (channels of keys + of values) a site, N(0, std); with `gate: zero` one a query head more.
    `hidden` (512, published): they are worked out by a bottleneck of so many channels over an embedding of `width`,
    shared by all sites, which trains more steadily; `agblocks.adapters.eject` keeps what it gives and drops it.
    A softmax takes from the rest what it gives to a prefix, so outputs change at the start. With `gate: zero` queries
    attend to the prefix in a softmax of its own (the same logits), times tanh of the head's gate, which starts at 0:
    nothing changes at the start, to the bit, and gates learn first. Not mergeable.
    Source: Li and Liang 2021, initial values and lengths of AdapterHub; gate: LLaMA-Adapter, Zhang et al. 2023.
    Use when: attention should read something that is in no sequence; with few measurements LoRA does as well.
    """

    phase = Phase.REPR
    divisible = False
    shared: PrefixNet  # set where adapters are attached, if there is one

    def __init__(
        self,
        place: Place,
        *,
        length: Positive = 30,
        hidden: Positive | None = None,
        width: Positive = 512,
        gate: Literal["none", "zero"] = "none",
        std: PositiveFloat = 1.0,
    ):
        super().__init__(place)
        self.key_shape, self.value_shape, heads = _shapes(place)
        self.length, self.hidden, self.std, self.identity = length, hidden, std, gate == "zero"
        self.foreign = not isinstance(place.module, HookPoint)
        if self.foreign and gate == "zero":
            raise place.refuse("prefix", "x-transformers has one softmax; a gate needs attention of agblocks")
        if hidden is None:
            self.keys = self.parameter(length, *self.key_shape)
            self.values = self.parameter(length, *self.value_shape)
        self.gate = self.parameter(heads) if self.identity else None

    @classmethod
    def common(
        cls, places: Sequence[Place], *, length: int, hidden: int | None, width: int, std: float, **_: Any
    ) -> PrefixNet | None:
        """The bottleneck that makes every site's prefix, if there is one."""
        return None if hidden is None else PrefixNet(places, length, width, hidden, std)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """N(0, std); the gate 0."""
        if self.hidden is None:
            draw(self.keys, "normal", self.std, generator)
            draw(self.values, "normal", self.std, generator)
        if self.gate is not None:
            nn.init.zeros_(self.gate)

    def made(self) -> tuple[Tensor, Tensor]:
        """Keys (length, *their channels) and values."""
        if self.hidden is None:
            return self.keys, self.values
        keys, values = self.shared(self.path).split([math.prod(self.key_shape), math.prod(self.value_shape)], 1)
        return keys.unflatten(1, self.key_shape), values.unflatten(1, self.value_shape)

    def acts_before(self) -> bool:  # type: ignore[override]
        return self.foreign

    def acts_after(self) -> bool:  # type: ignore[override]
        return not self.foreign

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x, given = args[0] if args else kwargs["x"], kwargs.get(FOREIGN)
        made = tuple(cast(t, x).movedim(0, 1).expand(x.shape[0], -1, -1, -1) for t in self.made())
        if given is not None:
            made = tuple(torch.cat((mine, theirs.to(mine.dtype)), -2) for mine, theirs in zip(made, given, strict=True))
        return args, {**kwargs, FOREIGN: made}

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        keys, values = self.made()
        if self.gate is not None:
            return (*out, GatedPrefix(keys, values, torch.tanh(self.gate)))
        k, v, *prefixes = out
        k = torch.cat((cast(keys, k).expand(k.shape[0], *keys.shape), k), 1)
        v = torch.cat((cast(values, v).expand(v.shape[0], *values.shape), v), 1)
        return (k, v, *prefixes)

    def unfoldable(self, module: nn.Module) -> str | None:
        return "a prefix adds keys and values, and no weight holds any"

    def eject(self, place: Place) -> tuple[dict[str, Any], Adapter] | None:
        """The arguments that change, and the same prefix as plain tensors; None where it is that already."""
        if self.hidden is None:
            return None
        flat = type(self)(
            place, length=self.length, gate="zero" if self.gate is not None else "none", std=self.std
        )  # fmt: skip
        with torch.no_grad():
            for mine, made in zip((flat.keys, flat.values), self.made(), strict=True):
                mine.copy_(made)
            if self.gate is not None and flat.gate is not None:
                flat.gate.copy_(self.gate)
        return {"hidden": None}, flat


def _shapes(place: Place) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Channels of keys and of values at a site, and how many query heads read them; refused where it has none."""
    module: Any = place.module
    if isinstance(module, HookPoint) and module.keys:
        return module.keys, module.values, module.heads
    if FOREIGN in inspect.signature(module.forward).parameters and hasattr(module, "kv_heads"):
        keys, values = (linear.out_features // module.kv_heads for linear in (module.to_k, module.to_v))
        return (module.kv_heads, keys), (module.kv_heads, values), module.heads
    raise place.refuse("prefix", "it is no point at keys and values; role=kv finds those there are")


def _key(path: str) -> str:
    """A site's name as a parameter's."""
    return path.replace(".", "/")
