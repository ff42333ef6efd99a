"""A recipe as a node of another one: its inputs are the ports, its heads the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ..errors import RecipeError, near
from .apply import is_wiring
from .dims import Dim, number
from .find import Source
from .patch import Inner, Patched, nested_source, patched
from .schema import NodeSpec, input_axes
from .signature import Axis
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
    wiring = _wiring(state, spec, part)
    if wiring is None:
        state.broken.add(spec.name)
        return None

    def outer(ref: str) -> str:
        return wiring.get(ref) or f"{spec.name}.{ref}"

    specs = {
        outer(name): replace(
            inside,
            name=outer(name),
            head=False,
            inputs=_renamed(inside.inputs, outer),
            path=f"{spec.path} ({inside.path})",
        )
        for name, inside in part.nodes.items()
    }
    inner = Inner(
        {outer(n): replace(s, inputs=_renamed(s.inputs, outer)) for n, s in part.inner.replace.items()},
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
        axes, info = input_axes(part.inputs[port]), state.edges[edge]
        if isinstance(axes, str) or not _fits(axes, info.axes):
            message = f"input {port!r} of the recipe is [{part.inputs[port].value}], but {edge!r} is {info.shape}"
            state.fail(spec, message, tree.mark, path_of(spec, port))
            return None
        wired[port] = edge
    if missing := [name for name in part.inputs if name not in wired]:
        message = f"the recipe needs an edge at {', '.join(map(repr, missing))}"
        state.fail(spec, message, spec.inputs.mark, f"{spec.path}.in")
        return None
    return wired


def _fits(axes: tuple[Axis, ...], dims: tuple[Dim, ...]) -> bool:
    """Whether an edge can stand for an input: a symbol takes any dimension, a number that one."""
    return len(axes) == len(dims) and all(
        axis.symbol is not None or number(dim) == int(axis.text) for axis, dim in zip(axes, dims, strict=True)
    )


def _renamed(tree: Tree | None, rename: Callable[[str], str]) -> Tree | None:
    if tree is None:
        return None
    if isinstance(tree.value, str):
        return Tree(rename(tree.value), tree.mark)
    return Tree({port: Tree(rename(edge.value), edge.mark) for port, edge in tree.value.items()}, tree.mark, tree.keys)
