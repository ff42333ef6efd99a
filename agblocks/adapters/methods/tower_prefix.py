"""Learnt positions in front of what a tower reads, gone again from what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.types import Positive, PositiveFloat
from agblocks.layers import HookPoint

from ..adapter import Adapter, Phase, given, main, regiven, remade
from ..errors import AdapterError
from ..parts.dense import cast, unset
from ..place import Place, is_norm

POINTWISE = ("mlp.", "block.mlp", "conv.", "stem")  # roles of what sees one position, or those near it


class Prompt(nn.Module):
    """The positions of one tower: put in front of its first layer's input, taken off its last layer's output."""

    def __init__(self, places: Sequence[Place], length: int, spread: float):
        super().__init__()
        self.first, self.last, self.spread = places[0].path, places[-1].path, spread
        self.positions = unset(places[0], length, _width(places[0]))

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Uniform within the spread."""
        _draw(self.positions, self.spread, generator)


@adapter("tower_prefix")
class TowerPrefix(Adapter):
    """`length` learnt vectors in front of the track that a tower or a layer reads, and cropped off what it gives.

    Positions of the sequence can attend to them, and they to the sequence. Every layer that is aimed at has vectors of
    its own, and all edges keep their lengths. With `through: true` the layers aimed at are one chain: the first reads
    the vectors and the last crops them, so edges between are `length` positions longer, and it is refused where
    anything else reads one of those.
    Sites: what sees the whole window and takes any length: layers and towers of attention or recurrence, by name
    (`glob: tower.layer*`); in other models attention and transformer layers over (batch, positions, channels), at your
    word. Refused: AlphaGenome's layers with a pair map (it has a fixed number of positions an entry), towers with
    learnt positions, strided ones, pointwise maps and convolutions.
    Parameters: length * channels a site, or once with `through`; U(+-spread). Rotary and relative positions count from
    the first learnt one. Outputs change at the start; not mergeable.
    Source: Lester et al. 2021 (10 positions, U(+-0.5) as in AdapterHub); a site each: Jia et al. 2022 (VPT-Deep).
    Use when: `prefix` has no point to sit at, as in recurrent towers and in other people's transformers.
    """

    phase = Phase.REPR
    divisible = False
    shared: Prompt

    def __init__(self, place: Place, *, length: Positive = 10, through: bool = False, spread: PositiveFloat = 0.5):
        super().__init__(place)
        if why := _unfit(place):
            raise place.refuse("tower_prefix", why)
        self.length, self.through, self.spread, self.identity = length, through, spread, False
        self.axis = 2 if place.axis % 3 == 1 else 1  # of the positions
        self.own = None if through else self.parameter(length, _width(place))

    @classmethod
    def common(cls, places: Sequence[Place], *, length: int, through: bool, spread: float) -> Prompt | None:
        """The positions that a chain of layers has in common."""
        if not through:
            return None
        for place in places:
            if why := _unfit(place):
                raise place.refuse("tower_prefix", why)
        if why := _unchained(places):
            raise places[-1].refuse("tower_prefix", f"with through: true, {why}")
        return Prompt(places, length, spread)

    def reset_parameters(self, generator: torch.Generator) -> None:
        """Uniform within the spread."""
        if self.own is not None:
            _draw(self.own, self.spread, generator)

    def acts_before(self) -> bool:  # type: ignore[override]
        return not self.through or self.path == self.shared.first

    def acts_after(self) -> bool:  # type: ignore[override]
        return not self.through or self.path == self.shared.last

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        x = given(module, args, kwargs)
        others = [value for value in (*args[1:], *kwargs.values()) if isinstance(value, Tensor) and value is not x]
        if x.dim() != 3 or any(value.dim() > 1 for value in others):
            shapes = ", ".join(str(list(value.shape)) for value in (x, *others))
            raise AdapterError(f"'tower_prefix' at {self.path!r}: it was called with {shapes}, and one track is wanted")
        made = cast(self.shared.positions if self.own is None else self.own, x)
        front = (made.T if self.axis == 2 else made).expand(x.shape[0], -1, -1)
        return regiven(module, args, kwargs, torch.cat((front, x), self.axis))

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        x, y = given(module, args, kwargs), main(out)
        if y.dim() != 3 or y.shape[self.axis] != x.shape[self.axis]:
            raise AdapterError(
                f"'tower_prefix' at {self.path!r}: it makes {list(y.shape)} of {list(x.shape)}, so nobody knows which "
                "positions are the learnt ones"
            )
        return remade(out, y.narrow(self.axis, self.length, y.shape[self.axis] - self.length))

    def unfoldable(self, module: nn.Module) -> str | None:
        return "it adds positions, and no weight holds any"


def _draw(positions: Tensor, spread: float, generator: torch.Generator) -> None:
    drawn = torch.empty(positions.shape, dtype=positions.dtype).uniform_(-spread, spread, generator=generator)
    with torch.no_grad():
        positions.copy_(drawn)


def _width(place: Place) -> int:
    return place.inputs if place.inputs is not None else place.width("tower_prefix")


def _unfit(place: Place) -> str | None:
    """Why a module cannot have positions put in front of what it reads, or None."""
    module, node = place.module, _node(place)
    if node is not None:
        return _unfit_node(place.recipe, node)
    said = module.__dict__.get("role", "")
    pointwise = isinstance(module, (nn.Linear, nn.Embedding, HookPoint, _ConvNd, nn.ModuleList)) or is_norm(module)
    if pointwise or hasattr(module, "conv_geometry") or said.startswith(POINTWISE):
        return "it sees a position alone, or those near it; towers and attention layers see them all"
    return None


def _unfit_node(recipe: Any, node: Any) -> str | None:
    reads = {port: recipe.edges[edge].axes for port, edge in node.inputs.items()}
    tracks = {port: axes for port, axes in reads.items() if len(axes) > 1}
    port, track = next(iter(tracks.items()), ("", None))
    gives = recipe.edges[node.outputs[0]].axes
    if track is None or len(track) != 3 or len(node.outputs) != 1:
        return f"{node.entry.name} does not make one track of one"
    if len(tracks) > 1:
        other = next(name for name in tracks if name != port)
        shape = recipe.edges[node.inputs[other]].shape
        return f"it reads {other!r} {shape} too, whose positions belong to those of the track as it is"
    if isinstance(track[2], int):
        return f"it takes {track[2]} positions and no others"
    if len(gives) != 3 or gives[2] != track[2]:
        return f"it makes {recipe.edges[node.outputs[0]].shape} of {recipe.edges[node.inputs[port]].shape}"
    if node.entry.reach.get(port) != "all":
        return "it sees positions that are near; towers and attention layers see them all"
    return None


def _node(place: Place) -> Any:
    """The node of a recipe that a place is, or None."""
    return None if place.recipe is None else place.recipe.nodes.get(place.path)


def _unchained(places: Sequence[Place]) -> str | None:
    """Why layers are no chain that keeps its edges to itself, or None."""
    if len(places) == 1:
        return None
    recipe, nodes = places[0].recipe, [_node(place) for place in places]
    if recipe is None or any(node is None for node in nodes):
        return "several layers have to be nodes of a recipe, which says what reads what"
    kept = {recipe.edge(name) for name in (*recipe.heads, *recipe.keep)}
    for before, after in pairwise(nodes):
        edge = before.outputs[0]
        readers = [*_readers(recipe, edge)]
        if after.name not in readers:
            return f"{after.name!r} does not read {before.name!r}; say which layers are one chain"
        if len(readers) > 1 or edge in kept:
            others = [name for name in readers if name != after.name] or ["the model's outputs"]
            return f"{edge!r} is read by {', '.join(others)} too, which would see the learnt positions"
    return None


def _readers(recipe: Any, edge: str) -> Iterator[str]:
    return (name for name, node in recipe.nodes.items() if edge in node.inputs.values())
