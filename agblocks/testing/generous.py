"""A case made large enough to be generic: several channels, several positions, no argument at its smallest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import ceil
from typing import Any

from ..errors import RecipeError
from ..graph.nodes import stride_of
from ..graph.registry import Entry, lookup
from .arguments import of
from .case import AnyCase, GraphCase
from .fit import fitted
from .solve import SIZES, dims_of

CHANNELS, LENGTH = 8, 16
LONGEST = 512  # positions, where the coarsest track of a graph should have two


def generous(case: AnyCase) -> AnyCase | None:
    """The case with larger arguments, channels and lengths; None where no larger one fits."""
    if isinstance(case, GraphCase):
        return _recipe(case)
    args = _larger(case.entry, case.args)
    values = {name: size if size is None else max(size, LENGTH) for name, size in case.values.items()}
    values["B"] = max(case.batch, 2)
    dims = dims_of(case.entry, tuple(case.shapes))
    for chosen in (args, case.args):
        for size in (s for s in SIZES if s >= CHANNELS):
            wanted = {**values, **dict.fromkeys(dims, size)}
            for made in fitted(case, chosen, tuple(case.shapes), wanted):
                return made
    return None


def _larger(entry: Entry, args: Mapping[str, Any]) -> dict[str, Any]:
    """Whole numbers at the largest of what is drawn, everything else as it is."""
    made = dict(args)
    for name, annotation in entry.annotations.items():
        now = args.get(name, entry.defaults[name])
        options = [v for v in getattr(of(annotation), "elements", ()) if type(v) is int]
        if type(now) is int and options and now < max(options):
            made[name] = max(options)
    return made


def _recipe(case: GraphCase) -> GraphCase | None:
    node = case.recipe["nodes"]["node"]
    args = _larger(lookup(node["block"]), node.get("args", {}))
    tries = [args, *({**node.get("args", {}), name: args[name]} for name in args)]
    for chosen in tries:
        recipe = {**case.recipe, "nodes": {**case.recipe["nodes"], "node": {**node, "args": chosen}}}
        recipe["inputs"] = {n: _wider(axes) for n, axes in case.recipe["inputs"].items()}
        for inputs in (recipe["inputs"], case.recipe["inputs"]):
            made = replace(case, recipe={**recipe, "inputs": inputs})
            try:
                wanted = max(LENGTH, min(2 * _coarsest(made), LONGEST))
                fits = made.admitted(64) if len(made.lengths) > 1 else made.admitted(max(64, wanted))
            except RecipeError:
                continue
            if fits:
                long = [v for v in fits if min(v.values(), default=wanted) >= wanted]
                return replace(made, lengths=(long or fits[-1:])[0])
    return None


def _coarsest(case: GraphCase) -> int:
    """The largest stride in a graph: two positions there are so many, rounded up, at the input."""
    resolved = case.resolved
    edges = [edge for node in resolved.nodes.values() for edge in node.outputs]
    return max((ceil(stride_of(resolved.info(edge).axes) or 1) for edge in edges), default=1)


def _wider(axes: str) -> str:
    """A track of `C` channels with more of them; DNA as it is."""
    batch, *rest = axes.split()
    if len(rest) == 2 and rest[0].isdigit() and int(rest[0]) != 4:
        rest[0] = str(max(int(rest[0]), CHANNELS))
    return " ".join([batch, *rest])
