"""The recipe of a cell: overrides applied, cut at its tap, with the head that the cell asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from ...errors import InputError, Misfit
from ...graph.resolve import resolve
from ...graph.resolved import Resolved
from ..file.form import HEAD

ACTIVITY = "activity"  # what a head is called that a cell puts in the place of a recipe's own


def whole(recipe: Any, settings: Mapping[str, Any], folder: Path | None) -> Resolved:
    """The recipe with the cell's `set` applied. Errors: `RecipeError`."""
    beside = folder / recipe if folder is not None and isinstance(recipe, str) else None
    for file in (beside, beside.with_name(f"{beside.name}.yaml") if beside is not None else None):
        if file is not None and file.is_file():
            recipe = str(file)
            break
    return _resolved(json.dumps(recipe), tuple(f"{k}={json.dumps(v)}" for k, v in settings.items()))


def taps(resolved: Resolved, pattern: str) -> tuple[str, ...]:
    """The edges that a pattern means, in the order of the recipe: a `*` stands within one part of a name.

    Edges that no head reads count too: a tap is what makes them read.
    """
    depth = pattern.count(".")
    there = _everything(json.dumps(resolved.recipe))
    names = dict.fromkeys((*there.nodes, *there.names, *there.edges))
    alike = [name for name in names if name.count(".") == depth and fnmatchcase(name, pattern)]
    found = [name for name in alike if name in there.outputs]
    order = {edge: i for i, edge in enumerate(there.edges)}
    return tuple(sorted(found, key=lambda name: order[there.edge(name)]))


def outputs(resolved: Resolved) -> tuple[str, ...]:
    """Every edge that could be a tap."""
    return _everything(json.dumps(resolved.recipe)).outputs


def tapped(resolved: Resolved, edges: tuple[str, ...]) -> Resolved:
    """The recipe without heads, up to some edges. Errors: `RecipeError` for an edge that is not there."""
    return _resolved(json.dumps({**resolved.recipe, "heads": {}, "keep": list(edges), "adapters": []}), ())


def headed(resolved: Resolved, tap: str | None, head: Mapping[str, Any], targets: int, length: int | None) -> Resolved:
    """The recipe with one head for so many targets, which reads the tap, or what its own head reads.

    A recipe with one scalar head keeps it, with the cell's arguments over its own; heads of another sort are replaced.
    length: of every input, None if they differ: what a flattening pool needs to know.
    Errors: `RecipeError`; `Misfit` where there is no tap and nothing says what a new head should read.
    """
    recipe = dict(resolved.recipe)
    heads = dict(recipe.get("heads", {}))
    scalar = len(heads) == 1 and next(iter(heads.values())).get("block") == HEAD
    overrides: dict[str, Any] = {}
    if scalar:
        name = next(iter(heads))
        if tap is not None:
            overrides[f"{name}.in"] = tap
    elif tap is None and not head and heads:
        return resolved  # as it is: whether its heads fit the targets is checked with them
    else:
        if tap is None:
            raise Misfit(f"the recipe has the heads {', '.join(heads) or 'none'}: say which edge a new one reads (tap)")
        name = ACTIVITY
        recipe["heads"] = {name: {"block": HEAD, "in": tap}}
    overrides |= {f"{name}.{argument}": value for argument, value in head.items()}
    args = {**recipe["heads"][name].get("args", {}), **{k.rpartition(".")[2]: v for k, v in overrides.items()}}
    if args.get("targets", 1) != targets:
        overrides[f"{name}.targets"] = targets
    if args.get("pool") == "flatten":
        if length is None:
            raise Misfit("head.pool is flatten, but the sequences have several lengths; mean or attention pool any")
        dna = next(n for n, i in resolved.inputs.items() if len(i.axes) == 3 and i.axes[1] == 4 and not i.integer)
        overrides[f"inputs.{dna}"] = f"B 4 {length}"
    return _resolved(json.dumps(recipe), tuple(f"{k}={json.dumps(v)}" for k, v in overrides.items()))


def node_digests(resolved: Resolved, edges: tuple[str, ...]) -> dict[str, str]:
    """What every node that some outputs need computes, by its name: what weights are drawn for and loaded into."""
    return {node.name: resolved.edges[node.outputs[0]].digest[:16] for node in resolved.needed(edges)}


def read_edge(resolved: Resolved) -> str | None:
    """What the recipe's one head reads, if it has one head with one input."""
    if len(resolved.heads) != 1:
        return None
    inputs = resolved.nodes[next(iter(resolved.heads))].inputs
    return next(iter(inputs.values())) if len(inputs) == 1 else None


def forget() -> None:
    """Let go of recipes that were read by name: their files may have changed since."""
    _resolved.cache_clear()


@lru_cache(maxsize=512)
def _resolved(recipe: str, overrides: tuple[str, ...]) -> Resolved:
    return resolve(json.loads(recipe), *overrides)


@lru_cache(maxsize=64)
def _everything(recipe: str) -> Resolved:
    """The recipe with every edge of every node kept that can be."""
    return resolve(json.loads(recipe), keep=["*"])


__all__ = ["InputError", "forget", "headed", "node_digests", "outputs", "read_edge", "tapped", "taps", "whole"]
