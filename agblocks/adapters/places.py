"""Places of a whole model: what modules say of themselves, what a recipe knows, what a probe shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .adapter import main
from .place import Place, place_of
from .probing import Call, watch

LAST = (nn.RNNBase, nn.MultiheadAttention)  # channels last, in weights of their own


def places(base: nn.Module, modules: Mapping[str, nn.Module], probe: Any = None) -> dict[str, Place]:
    """Where adapters would sit, by name. The probe, if there is one, is run where something is still unknown."""
    like = next((p for p in base.parameters() if p.is_floating_point()), None)
    recipe = getattr(base, "resolved", None)
    found = {path: replace(_of_node(base, place_of(path, m)), like=like, recipe=recipe) for path, m in modules.items()}
    unknown = {path: place.module for path, place in found.items() if place.outputs is None}
    if probe is not None and unknown:
        seen = watch(base, dict(base.named_modules()), probe)
        for path in unknown:
            out = _tensor(seen[path].out) if path in seen else None
            if path not in seen:
                found[path] = replace(found[path], unclear="the probe, which was to show its channels, never calls it")
            elif out is not None and out.dim() >= 2:
                found[path] = _shown(base, found[path], out, seen)
    return found


def _shown(base: nn.Module, place: Place, out: Tensor, seen: Mapping[str, Call]) -> Place:
    """A place with the channels of what it was seen to give."""
    axis = _axis(base, place, out, seen)
    if axis is None:
        return replace(
            place,
            unclear=f"it gives {list(out.shape)}, and nothing in it or before it says which of that are its channels; "
            "aim at a linear map, a convolution or a norm in it",
        )
    read, width = seen[place.path].read, out.shape[axis]
    alike = isinstance(read, Tensor) and read.dim() == out.dim()
    return replace(place, outputs=width, inputs=place.inputs or (read.shape[axis] if alike else width), axis=axis)


def _axis(base: nn.Module, place: Place, out: Tensor, seen: Mapping[str, Call]) -> int | None:
    """Where the channels stand in what a module gave: as in what the last one inside that knows gave, or one before."""
    if out.dim() == 2 or isinstance(place.module, LAST):
        return -1
    earlier = [*seen][: [*seen].index(place.path)][::-1]
    inside = [path for path in earlier if path.startswith(f"{place.path}.") or not place.path]
    told = [each for path in inside if (each := _told(base, path, seen))]
    for given, axis in told:
        if given.dim() == out.dim() and given.shape[axis] == out.shape[axis]:
            return axis
    if told:  # turned or flattened behind that: then one axis alone has as many
        given, axis = told[0]
        alike = [d for d in range(1, out.dim()) if out.shape[d] == given.shape[axis]]
        return None if len(alike) != 1 else -1 if alike[0] == out.dim() - 1 else alike[0]
    before = [each for path in earlier if (each := _told(base, path, seen))]
    return next((axis for given, axis in before if given.shape == out.shape), None)


def _told(base: nn.Module, path: str, seen: Mapping[str, Call]) -> tuple[Tensor, int] | None:
    """What a module gave and where its channels stand in it, if it says that itself."""
    module, given = base.get_submodule(path), _tensor(seen[path].out)
    place = place_of(path, module)
    axis = -1 if isinstance(module, LAST) else place.axis
    if given is None or not -given.dim() <= axis < given.dim():
        return None
    return (given, axis) if isinstance(module, LAST) or given.shape[axis] == place.outputs else None


def _of_node(base: nn.Module, place: Place) -> Place:
    """A node of a recipe: a track's channels come second."""
    resolved: Any = getattr(base, "resolved", None)
    nodes = getattr(resolved, "nodes", {})
    if place.outputs is not None or place.path not in nodes:
        return place
    node, edges = nodes[place.path], resolved.edges
    gives = edges[node.outputs[0]].axes
    reads = edges[next(iter(node.inputs.values()))].axes
    if len(gives) != 3 or not isinstance(gives[1], int):
        return place
    inputs = reads[1] if len(reads) == 3 and isinstance(reads[1], int) else None
    return replace(place, inputs=inputs, outputs=gives[1], axis=1)


def _tensor(value: Any) -> Tensor | None:
    try:
        return main(value)
    except (TypeError, IndexError, KeyError, StopIteration, RecursionError):
        return None
