"""Put a block into the graph: its shapes inferred, its edges digested; or say why it does not fit and what would."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import Misfit
from . import digest
from .dims import number, symbol
from .infer import Bound, EdgeInfo, below_of, bind, dims_of, fits_remark, outputs
from .nodes import MOST_NODES
from .registry import Entry, entries
from .resolved import ResolvedNode
from .schema import NodeSpec, input_port
from .signature import Port, Unbound, parse_axes
from .state import State
from .wire import path_of

LONGEST = 1 << 24  # positions


def place(state: State, entry: Entry, args: Mapping[str, Any], wiring: Mapping[str, str], spec: NodeSpec) -> None:
    """Add a node and its edges to the state, or findings."""
    if len(state.nodes) >= MOST_NODES:
        state.fail(spec, f"more than {MOST_NODES} nodes, which no model here needs")
        return
    if spec.name in state.edges:
        state.fail(spec, f"{spec.name!r} names two edges")
        return
    wired = {port: state.edges[edge] for port, edge in wiring.items()}
    bound = bind(entry, args, wired, wiring, spec.name)
    made = outputs(entry, bound, wired, spec.name) if not bound.wrong else {}
    if bound.wrong:
        report(state, entry, args, wiring, spec, bound)
        return
    for port in entry.signature.inputs:
        if port.name in wiring and port.integer:
            _narrow(state, wiring[port.name], below_of(port, bound))
    dims = dims_of(entry, bound)
    try:
        entry.target.check(**dims, **args)
    except Misfit as error:
        state.fail(spec, f"{entry.name!r}: {error}")
        return
    digests = {port: edge.digest for port, edge in wired.items()}
    names = []
    for index, (port_name, info) in enumerate(made.items()):
        name = spec.name if index == 0 else f"{spec.name}.{port_name}"
        names.append(name)
        state.edges[name] = replace(info, digest=digest.of_node(entry.name, args, dims, digests, port_name))
    state.nodes[spec.name] = ResolvedNode(spec.name, entry, args, dims, wiring, tuple(names), spec.mark, spec.path)
    check_remark(state, spec)


def report(
    state: State, entry: Entry, args: Mapping[str, Any], wiring: Mapping[str, str], spec: NodeSpec, bound: Bound
) -> None:
    """Findings for what does not fit, each with what would."""
    assert spec.inputs is not None
    for wrong in bound.wrong:
        port = next((p for p in entry.signature.inputs if p.name == wrong.port), None)
        if port is None:
            state.fail(spec, f"{entry.name!r}: {wrong.message}")
            continue
        edge = wiring[port.name]
        fits = that_fit(state, entry, args, wiring, port.name)
        if fits:
            said = f"outputs that would fit: {', '.join(fits)}"
        else:
            stated = restated(state, entry, args, wiring, port, bound)
            said = f"no output so far would fit{stated or at_length(port, bound, state.edges[edge]) or makers(port)}"
        notes = [f"{edge} is {state.edges[edge].shape}; {entry.name!r} wants {port.shape}", said]
        if verb := state.touched.get(edge):
            notes.append(f"{edge!r} was {verb}")
        tree = spec.inputs.find((port.name,)) if spec.inputs.is_map else spec.inputs
        state.fail(spec, wrong.message, tree.mark, path_of(spec, port.name), *notes)


def that_fit(
    state: State, entry: Entry, args: Mapping[str, Any], wiring: Mapping[str, str], port: str, most: int = 6
) -> list[str]:
    """Edges which at this port would leave nothing wrong there, the nearest last."""
    fits = []
    for name in reversed(state.edges):
        trial = {**wiring, port: name}
        found = bind(entry, args, {p: state.edges[e] for p, e in trial.items() if e in state.edges}, trial, "")
        if not any(wrong.port == port for wrong in found.wrong):
            fits.append(name)
        if len(fits) == most:
            break
    return fits[::-1]


def restated(
    state: State, entry: Entry, args: Mapping[str, Any], wiring: Mapping[str, str], port: Port, bound: Bound
) -> str:
    """What to state for an input of the recipe some of whose axes are other numbers than a port wants."""
    name = state.names.get(wiring[port.name], wiring[port.name])
    tree, edge = state.stated.get(name), state.edges[name]
    if tree is None or len(edge.axes) != len(port.axes):
        return ""
    stated = input_port(tree)
    assert not isinstance(stated, str)  # it is an edge, so it was read
    axes, words = list(edge.axes), [axis.text for axis in stated.axes]
    for i, (axis, dim) in enumerate(zip(port.axes, edge.axes, strict=True)):
        try:
            wanted = number(axis.evaluate(bound.values, []))
        except (ValueError, Unbound):
            continue
        if wanted is not None and number(dim) not in (None, wanted):
            axes[i], words[i] = wanted if isinstance(dim, int) else symbol(str(wanted)), str(wanted)
    wired = {p: state.edges[e] for p, e in wiring.items()} | {port.name: replace(edge, axes=tuple(axes))}
    if words == [axis.text for axis in stated.axes] or any(
        wrong.port == port.name for wrong in bind(entry, args, wired, wiring, "").wrong
    ):
        return ""
    shape = f"{' '.join(words)} < {stated.below}" if stated.below is not None else " ".join(words)
    place = f" (now '{tree.value}', at {tree.mark})" if tree.mark else f" (now '{tree.value}')"
    return f"; it would fit with inputs.{name}={shape}{place}"


def at_length(port: Port, bound: Bound, edge: EdgeInfo) -> str:
    """At which length of the input an edge would have the number of positions that a port wants."""
    for axis, dim in zip(port.axes, edge.axes, strict=False):
        try:
            wanted = number(axis.evaluate(bound.values, []))
        except (ValueError, Unbound):
            continue
        if wanted is None or isinstance(dim, int) or number(dim) is not None or len(dim.symbols) != 1:
            continue
        (symbol,) = dim.symbols
        length = bisect_left(range(LONGEST), wanted, key=lambda n: int(dim.at({symbol: n})))
        if length < LONGEST and dim.at({symbol: length}) == wanted:
            return f"; it would fit at {symbol} = {length}: state that length in the recipe's input"
        return f"; nor would '{edge.shape[1:-1]}' at any length"
    return ""


def makers(port: Port, most: int = 6) -> str:
    """Which blocks turn other edges into what a port takes, for where there is none yet."""
    found = [
        entry.name
        for entry in entries().values()
        if entry.kind == "block"
        and any((p.kind, p.integer) == (port.kind, port.integer) for p in entry.signature.outputs)
        and not any(p.kind == port.kind for p in entry.signature.inputs if not p.optional)
    ]
    return f"; a {port.kind} comes from {', '.join(sorted(found)[:most])}" if found else ""


def check_remark(state: State, spec: NodeSpec) -> None:
    """Check a recipe's `shape:` remark."""
    edge = state.names.get(spec.name, spec.name)
    if spec.shape is None or edge not in state.edges:
        return
    info = state.edges[edge]
    try:
        good = fits_remark(parse_axes(spec.shape.value), info)
    except ValueError as error:
        state.fail(spec, str(error), spec.shape.mark, f"{spec.path}.shape")
        return
    if not good:
        message = f"{spec.name!r} is {info.shape}, not [{spec.shape.value}]"
        state.fail(spec, message, spec.shape.mark, f"{spec.path}.shape")


def _narrow(state: State, edge: str, below: int | None) -> None:
    """Lower the bound of an edge of whole numbers to what a reader takes."""
    info = state.edges[edge]
    if below is not None and (info.below is None or below < info.below):
        state.edges[edge] = replace(info, below=below)
