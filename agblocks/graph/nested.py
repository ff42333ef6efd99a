"""A recipe as a node of another one: its inputs are the ports, its heads the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import RecipeError, near
from .apply import is_wiring
from .dims import number
from .find import Source
from .infer import EdgeInfo
from .patch import Inner, Patched, nested_source, patched
from .schema import NodeSpec, input_port
from .signature import Port
from .source import Tree
from .state import State
from .wire import given_inputs, path_of, reference

MOST_NESTED = 64


@dataclass(frozen=True)
class Part:
    """A nested recipe in its place: nodes with full names and outer wiring, the verbs inside, and its heads."""

    source: Source
    specs: dict[str, NodeSpec]
    inner: Inner
    heads: tuple[str, ...]


def open_nested(state: State, spec: NodeSpec) -> Part | None:
    """Read a nested recipe and give its nodes their names and wiring; None with findings."""
    tree = spec.recipe
    assert tree is not None
    state.opened += 1
    if state.opened > MOST_NESTED:
        state.fail(spec, f"more than {MOST_NESTED} nested recipes", tree.mark, f"{spec.path}.recipe")
        return None
    try:
        source = nested_source(spec, spec.origin or state.source)
        part = patched(source, settings=spec.args)
    except LookupError as error:
        state.fail(spec, str(error), tree.mark, f"{spec.path}.recipe")
        return None
    except RecipeError as error:
        state.findings.extend(error.problems)
        state.broken.add(spec.name)
        return None
    state.findings.extend(part.findings)
    if part.findings:
        state.broken.add(spec.name)
        return None
    if part.cut:
        message = "the nested recipe is cut, so that a part of it has nothing to read; nest the whole one"
        state.fail(spec, message, tree.mark, f"{spec.path}.recipe")
        return None
    if part.adapters is not None and part.adapters.value:
        message = "the nested recipe has adapters; say them in this recipe, whose names they go by"
        state.fail(spec, message, tree.mark, f"{spec.path}.recipe")
        return None
    wiring = _wiring(state, spec, part)
    if wiring is None:
        state.broken.add(spec.name)
        return None

    def outer(ref: str) -> str:
        return wiring.get(ref) or f"{spec.name}.{ref}"

    absent = {name for name in part.inputs if name not in wiring}

    def wired(tree: Tree | None) -> Tree | None:
        return _renamed(_without(tree, absent), outer)

    specs = {
        outer(name): replace(
            inside,
            name=outer(name),
            head=False,
            inputs=wired(inside.inputs),
            path=f"{spec.path} ({inside.path})",
        )
        for name, inside in part.nodes.items()
    }
    inner = Inner(
        {outer(n): replace(s, inputs=wired(s.inputs)) for n, s in part.inner.replace.items()},
        {outer(n): verb for n, verb in part.inner.remove.items()},
        {outer(n): ((_renamed(t, outer) or t) if is_wiring(n) else t, verb) for n, (t, verb) in part.inner.set.items()},
    )
    return Part(source, specs, inner, tuple(name for name, s in part.nodes.items() if s.head))


def _wiring(state: State, spec: NodeSpec, part: Patched) -> dict[str, str] | None:
    """Input of the nested recipe -> outer edge, shapes checked."""
    given = given_inputs(state, spec, next(iter(part.inputs), ""))
    if given is None or spec.inputs is None:
        return None
    wired: dict[str, str] = {}
    for port, tree in given.items():
        if port not in part.inputs:
            message = f"the recipe has no input {port!r}; {near(port, part.inputs)}"
            state.fail(spec, message, spec.inputs.key_mark(port), path_of(spec, port))
            return None
        edge = reference(state, tree, False, spec, path_of(spec, port))
        if edge is None:
            return None
        wanted, info = input_port(part.inputs[port]), state.edges[edge]
        if info.optional and port not in part.optional:
            message = f"{edge!r} may be left out, but the recipe needs its input {port!r}"
            state.fail(spec, message, tree.mark, path_of(spec, port))
            return None
        if isinstance(wanted, str) or not _fits(wanted, info):
            message = f"input {port!r} of the recipe is [{part.inputs[port].value}], but {edge!r} is {info.shape}"
            state.fail(spec, message, tree.mark, path_of(spec, port))
            return None
        wired[port] = edge
    if missing := [name for name in part.inputs if name not in wired and name not in part.optional]:
        message = f"the recipe needs an edge at {', '.join(map(repr, missing))}"
        state.fail(spec, message, spec.inputs.mark, f"{spec.path}.in")
        return None
    return wired


def _fits(port: Port, edge: EdgeInfo) -> bool:
    """Whether an edge can stand for an input: a symbol takes any dimension, a number that one."""
    return (
        port.integer == edge.integer
        and len(port.axes) == len(edge.axes)
        and all(
            axis.symbol is not None or number(dim) == int(axis.text)
            for axis, dim in zip(port.axes, edge.axes, strict=True)
        )
    )


def _without(tree: Tree | None, absent: set[str]) -> Tree | None:
    """A wiring without the ports that read an input which is not there."""
    if tree is None or not absent:
        return tree
    if isinstance(tree.value, str):
        return Tree({}, tree.mark) if tree.value in absent else tree
    return Tree({p: edge for p, edge in tree.value.items() if edge.value not in absent}, tree.mark, tree.keys)


def _renamed(tree: Tree | None, rename: Callable[[str], str]) -> Tree | None:
    if tree is None:
        return None
    if isinstance(tree.value, str):
        return Tree(rename(tree.value), tree.mark)
    return Tree({port: Tree(rename(edge.value), edge.mark) for port, edge in tree.value.items()}, tree.mark, tree.keys)
