"""Places of a whole model: what modules say of themselves, what a recipe knows, what a probe shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from .adapter import main
from .place import Place, place_of
from .probing import watch


def places(base: nn.Module, modules: Mapping[str, nn.Module], probe: Any = None) -> dict[str, Place]:
    """Where adapters would sit, by name. The probe, if there is one, is run where something is still unknown."""
    like = next((p for p in base.parameters() if p.is_floating_point()), None)
    recipe = getattr(base, "resolved", None)
    found = {path: replace(_of_node(base, place_of(path, m)), like=like, recipe=recipe) for path, m in modules.items()}
    unknown = {path: place.module for path, place in found.items() if place.outputs is None}
    if probe is not None and unknown:
        for path, seen in watch(base, unknown, probe).items():
            out = _tensor(seen)
            if out is not None and out.dim() >= 2:
                place = found[path]
                width = out.shape[place.axis]
                found[path] = replace(place, outputs=width, inputs=place.inputs or width)
    return found


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
