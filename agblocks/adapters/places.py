"""Places of a whole model: what modules say of themselves, what a recipe knows, what a probe shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from .place import Place, place_of
from .probing import Call, watch

Shape = Sequence[int]
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
            found[path] = _shown(base, found[path], seen)
    return found


def _shown(base: nn.Module, place: Place, seen: Mapping[str, Call]) -> Place:
    """A place with the channels of what it was seen to give."""
    if place.path not in seen:
        return replace(place, unclear="the probe, which was to show its channels, never calls it")
    gave, read = seen[place.path].gave, seen[place.path].read
    if gave is None or len(gave) < 2:
        return place
    axis = _axis(base, place, gave, seen)
    if axis is None:
        return replace(
            place,
            unclear=f"it gives {list(gave)}, and nothing in it, before it or behind it says which of that are its "
            "channels; aim at a linear map, a convolution or a norm",
        )
    inputs = read[axis] if read is not None and len(read) == len(gave) else gave[axis]
    return replace(place, outputs=gave[axis], inputs=place.inputs or inputs, axis=axis)


def _axis(base: nn.Module, place: Place, gave: Shape, seen: Mapping[str, Call]) -> int | None:
    """Where the channels stand in what a module gave.

    As what reads that very tensor says; or else the last inside that knows its own; or the last before of that shape.
    """
    if len(gave) == 2 or isinstance(place.module, LAST):
        return -1
    readers = {_from_end(axis, gave) for path, call in seen.items() if place.path in call.sources
               for axis in [_says(base, path, call.read, "inputs")] if axis is not None}  # fmt: skip
    if len(readers) == 1:
        return readers.pop()
    earlier = [*seen][: [*seen].index(place.path)][::-1]
    told = [(path, shape, axis) for path in earlier
            if (shape := seen[path].gave) and (axis := _says(base, path, shape, "outputs")) is not None]  # fmt: skip
    inside = [(shape, axis) for path, shape, axis in told if path.startswith(f"{place.path}.") or not place.path]
    for shape, axis in inside:
        if len(shape) == len(gave) and shape[axis] == gave[axis]:
            return axis
    if inside:  # turned or flattened behind that: then one axis alone has as many
        shape, axis = inside[0]
        alike = [d for d in range(1, len(gave)) if gave[d] == shape[axis]]
        return _from_end(alike[0], gave) if len(alike) == 1 else None
    return next((axis for _, shape, axis in told if shape == gave), None)


def _says(base: nn.Module, path: str, shape: Shape | None, width: str) -> int | None:
    """Where a module says that the channels stand in what it was seen to read or give, if it says so and it fits."""
    module = base.get_submodule(path)
    place = place_of(path, module)
    if isinstance(module, LAST):
        return -1
    fits = shape is not None and -len(shape) <= place.axis < len(shape) and shape[place.axis] == getattr(place, width)
    return place.axis if fits else None


def _from_end(axis: int, shape: Shape) -> int:
    """The last axis as -1, others as they are counted from the front."""
    return -1 if axis % len(shape) == len(shape) - 1 else axis % len(shape)


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
