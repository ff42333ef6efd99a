"""One node against what is known: its block, its arguments, and the edges at its ports."""

from __future__ import annotations

from typing import Any

from ..errors import near
from .arguments import validate
from .registry import Entry, lookup
from .schema import NodeSpec
from .source import Tree
from .state import State


def entry_of(state: State, spec: NodeSpec) -> Entry | None:
    """The entry a node names; None with a finding."""
    assert spec.block is not None
    where = spec.block.mark, f"{spec.path}.block"
    try:
        entry = lookup(spec.block.value)
    except KeyError as error:
        state.fail(spec, str(error.args[0]), *where)
        return None
    if spec.head and entry.kind != "head":
        hint = "to ask a model for an edge no head is needed: outputs=[...], and 'keep' where nothing reads it"
        state.fail(spec, f"{entry.name!r} is no head: it has no loss", *where, hint)
        return None
    return entry


def arguments_of(state: State, entry: Entry, spec: NodeSpec) -> dict[str, Any] | None:
    """A node's arguments, checked and with defaults; None with findings, each at its argument."""
    args, complaints = validate(entry, spec.args)
    tree = Tree(spec.args, spec.mark, spec.arg_marks)
    for path, message in complaints:
        unknown = len(path) == 1 and path[0] not in entry.annotations
        mark = tree.key_mark(str(path[0])) if unknown else tree.find(path).mark
        dotted = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        state.fail(spec, message, mark, f"{spec.path}.args{dotted}")
    return None if complaints else args


def wiring_of(state: State, entry: Entry, spec: NodeSpec) -> dict[str, str] | None:
    """Port -> edge (for a pyramid: the composite's name), all of them known; None with findings."""
    ports = {port.name: port for port in entry.signature.inputs}
    given = given_inputs(state, spec, next(iter(ports), ""))
    if given is None or spec.inputs is None:
        return None
    wired: dict[str, str] = {}
    good = True
    for port, tree in given.items():
        if port not in ports:
            mark = spec.inputs.key_mark(port)
            state.fail(spec, f"{entry.name!r} has no input {port!r}; {near(port, ports)}", mark, path_of(spec, port))
            good = False
            continue
        edge = reference(state, tree, ports[port].pyramid, spec, path_of(spec, port))
        if edge is None:
            state.broken.add(spec.name)
            good = False
        else:
            wired[port] = edge
    for needed in ports.values():
        if needed.name not in given and not needed.optional:
            need = ", ".join(f"{p.name}: ..." for p in ports.values() if not p.optional)
            message = f"{entry.name!r} needs an edge at {needed.name!r} {needed.shape}"
            state.fail(spec, message, spec.inputs.mark, f"{spec.path}.in", f"in: {{{need}}}")
            good = False
    return wired if good else None


def given_inputs(state: State, spec: NodeSpec, first: str) -> dict[str, Tree] | None:
    """A node's wiring by port; a lone edge is at the first one. None with a finding where there is no wiring."""
    if spec.inputs is None:
        state.fail(spec, "a node says what it reads: 'in: edge' or 'in: {port: edge}'")
        return None
    given = spec.inputs.value if spec.inputs.is_map else {"": spec.inputs}
    return {port or first: tree for port, tree in given.items()}


def path_of(spec: NodeSpec, port: str) -> str:
    """Where the recipe says what is at a port."""
    return f"{spec.path}.in.{port}" if spec.inputs is not None and spec.inputs.is_map else f"{spec.path}.in"


def reference(state: State, tree: Tree, pyramid: bool, spec: NodeSpec, path: str) -> str | None:
    """The edge that a wiring names; None, with a finding where it is not the echo of an earlier one."""
    name: str = tree.value
    if pyramid:
        if name in state.stages:
            return name
        if not state.is_broken(name):
            state.fail(spec, f"{name!r} has no pyramid of stages; {near(name, state.stages)}", tree.mark, path)
        return None
    edge = state.names.get(name, name)
    if edge in state.edges:
        return edge
    for gone, verb in state.removed.items():
        if name == gone or name.startswith(f"{gone}."):
            state.fail(spec, f"{name!r} was {verb}, but is read here", tree.mark, path)
            return None
    if not state.is_broken(name):
        state.fail(spec, f"there is no edge {name!r}; {near(name, state.known())}", tree.mark, path)
    return None
