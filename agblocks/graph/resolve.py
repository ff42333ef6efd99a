"""A patched recipe resolved: composites expanded, every shape known, unread nodes dropped. No tensor is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import RecipeError, near, shown
from . import digest
from .adapter_spec import read_specs
from .dims import Dim, symbol
from .expand import process, reads, unanswered
from .infer import EdgeInfo
from .patch import Patched, load
from .reach import Field
from .resolved import Resolved, reached
from .schema import NodeSpec, input_port
from .source import Tree
from .state import State


def resolve(recipe: str | Path | Mapping[str, Any], *overrides: str, keep: Iterable[str] = ()) -> Resolved:
    """Read, patch, expand, infer and prune a recipe. Raises RecipeError with everything that is wrong.

    `recipe` is a path, a shipped name, a text or a dict; an override is 'node.argument=value'; `keep` are patterns of
    edges to keep although no head reads them.
    """
    layered = load(recipe, overrides)
    for pattern in [keep] if isinstance(keep, str) else keep:
        if isinstance(pattern, str):
            layered.keep.append(Tree(pattern))
        else:
            layered.findings.find(f"keep lists names or patterns, not {shown(pattern)}", None, "keep")
    assert layered.source is not None
    state = State(
        layered.source, layered.findings, layered.inputs, removed=dict(layered.removed), broken=set(layered.broken)
    )
    for name, tree in layered.inputs.items():
        _add_input(state, name, tree, name in layered.optional)
    _check_bounds(state, layered.inputs)
    heads = {name: _weight(spec) for name, spec in layered.nodes.items() if spec.head}
    if not heads and not layered.keep and not state.findings:
        state.findings.find("there is no head and nothing to keep, so nothing to compute", None, "heads")
    inner, wanted = layered.inner.copy(), _wanted(layered)
    process(state, layered.nodes, inner, wanted)
    unanswered(state, inner, wanted)
    kept = _kept(state, layered.keep)
    given = _given(state, layered, heads)
    adapters = read_specs(layered.adapters, "adapters", state.findings) if layered.adapters is not None else ()
    if state.findings:
        raise RecipeError(state.findings)
    resolved = _pruned(state, layered, heads, kept, given)
    _check_given(state, resolved, given)
    if state.findings:
        raise RecipeError(state.findings)
    return replace(resolved, adapters=adapters)


def _add_input(state: State, name: str, tree: Tree, optional: bool) -> None:
    port = input_port(tree)
    assert not isinstance(port, str)  # read_recipe has checked it
    # Channels are numbers, everything else a symbol, a stated length too.
    axes: list[Dim] = [int(a.text) if a.text.isdigit() and i == 1 else symbol(a.text) for i, a in enumerate(port.axes)]
    state.edges[name] = EdgeInfo(
        axes=tuple(axes),
        integer=port.integer,
        below=int(port.below.text) if port.below is not None and port.below.text.isdigit() else None,
        free=port.integer and port.below is None,
        optional=optional,
        field=None if port.integer else Field(),
        digest=digest.of_input(name, tuple(axes)),
    )


def _check_bounds(state: State, inputs: Mapping[str, Tree]) -> None:
    """Findings for whole numbers bounded by a symbol that no input has."""
    known = {s for name in inputs for axis in state.edges[name].axes if not isinstance(axis, int) for s in axis.symbols}
    for name, tree in inputs.items():
        port = input_port(tree)
        below = "" if isinstance(port, str) or port.below is None else port.below.text
        if below and not below.isdigit() and below not in known:
            state.findings.find(f"no input has an axis {below!r}; {near(below, known)}", tree.mark, f"inputs.{name}")


def _wanted(layered: Patched) -> set[str]:
    """The top-level nodes that a head or `keep` reads, directly or not."""
    patterns = [tree.value.partition(".")[0] for tree in layered.keep]
    queue = [n for n, spec in layered.nodes.items() if spec.head or any(fnmatchcase(n, p) for p in patterns)]
    found: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in found:
            found.add(name)
            queue.extend(reads(name, layered.nodes, layered.inner))
    return found


def _kept(state: State, patterns: Iterable[Tree]) -> tuple[str, ...]:
    """The names of edges that `keep` matches."""
    found: list[str] = []
    for index, tree in enumerate(patterns):
        names = [name for name in state.known() if fnmatchcase(name, tree.value)]
        if not names and not state.is_broken(tree.value.partition("*")[0].rstrip(".")):
            message = f"nothing is named {tree.value!r}; {near(tree.value, state.known())}"
            state.findings.find(message, tree.mark, f"keep[{index}]")
        found += names
    return tuple(dict.fromkeys(found))


def _given(state: State, layered: Patched, heads: Mapping[str, float]) -> dict[str, Tree]:
    """The edges that `cut` names; findings for what is none, and for heads."""
    found: dict[str, Tree] = {}
    for index, tree in enumerate(layered.cut):
        edge = state.names.get(tree.value, tree.value)
        problem = ""
        if edge in layered.inputs:
            problem = f"{tree.value!r} is an input already"
        elif edge in heads:
            problem = f"{tree.value!r} is a head: nothing of the model would be left of it"
        elif edge in state.edges:
            found[edge] = tree
        elif tree.value.partition(".")[0] in set(layered.nodes) - {*state.nodes, *state.stages}:
            problem = f"nothing reads {tree.value!r}"
        elif not state.is_broken(tree.value):
            problem = f"there is no edge {tree.value!r}; {near(tree.value, state.known())}"
        if problem:
            state.findings.find(problem, tree.mark, f"cut[{index}]")
    return found


def _check_given(state: State, resolved: Resolved, given: Mapping[str, Tree]) -> None:
    """Findings for cut edges that nothing reads, and for nodes of which one edge is given and another one wanted."""
    read = {*resolved.heads, *map(resolved.edge, resolved.keep)}
    read.update(name for node in resolved.nodes.values() for name in node.inputs.values())
    for index, (edge, tree) in enumerate(given.items()):
        if edge not in resolved.inputs:
            state.findings.find(f"nothing that is left reads {tree.value!r}", tree.mark, f"cut[{index}]")
        for node in resolved.nodes.values():
            if edge in node.outputs:
                others = [other for other in node.outputs if other in read and other not in given]
                message = f"{tree.value!r} is given, but its node still has to make {', '.join(map(repr, others))}"
                state.findings.find(message, tree.mark, f"cut[{index}]", "cut there too")


def _pruned(
    state: State, layered: Patched, heads: dict[str, float], keep: tuple[str, ...], given: Mapping[str, Tree]
) -> Resolved:
    alive = {*heads, *(state.names.get(name, name) for name in keep)}
    nodes = {node.name: node for node in reached(state.nodes.values(), alive, given)}
    alive.update(edge for node in nodes.values() for edge in node.outputs)
    edges = {name: info for name, info in state.edges.items() if name in alive}
    names = {name: edge for name, edge in state.names.items() if edge in edges}
    gone = dict.fromkeys((*layered.nodes, *state.names, *state.edges))
    return Resolved(
        name=layered.name,
        inputs={name: edges[name] for name in (*given, *layered.inputs) if name in edges},
        nodes=nodes,
        edges=edges,
        names=names,
        heads=heads,
        keep=keep,
        pruned=tuple(name for name in gone if name not in edges and name not in names),
        recipe=layered.plain(),
        cut=tuple(name for name in given if name in edges),
    )


def _weight(spec: NodeSpec) -> float:
    return float(spec.weight.value) if spec.weight is not None else 1.0


__all__ = ["Resolved", "resolve"]
