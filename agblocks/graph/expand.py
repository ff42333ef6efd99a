"""Nodes in topological order; composites and nested recipes expand on the way, as they see their inputs' shapes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import Any

from ..errors import Mark, Misfit, near
from .apply import is_wiring, split_setting, with_setting
from .infer import bind
from .nested import open_nested
from .nodes import MOST_NODES, Edge, Member, Nodes, Pyramid
from .patch import Inner, nested_source
from .place import check_remark, place, report
from .registry import Entry
from .schema import NodeSpec, Verb
from .source import Tree, from_python
from .state import State
from .wire import arguments_of, entry_of, wiring_of

DEEPEST = 8  # composites and recipes inside each other


def reads(name: str, specs: Mapping[str, NodeSpec], inner: Inner) -> list[str]:
    """The nodes among `specs` that one reads, verbs on its inside included."""
    below = inner.of(name)
    trees = [specs[name].inputs, *(spec.inputs for spec in below.replace.values())]
    trees += [tree for key, (tree, _) in below.set.items() if is_wiring(key)]
    refs = [ref for tree in trees if tree is not None for ref in _refs(tree)]
    owners = (_owner(ref, specs) for ref in refs)
    return list(dict.fromkeys(owner for owner in owners if owner is not None and owner != name))


def process(state: State, specs: Mapping[str, NodeSpec], inner: Inner, wanted: Iterable[str], depth: int = 0) -> None:
    """Resolve nodes in topological order, as close to the written one as that allows.

    Nodes that are not wanted are dropped, but their block and arguments are still checked.
    """
    wanted = set(wanted)
    graph = {name: reads(name, specs, inner) for name in specs}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = error.args[1][::-1]
        spec = specs[cycle[0]]
        state.findings.find(f"nodes read each other in a circle: {' -> '.join(cycle)}", spec.mark, spec.path)
        state.broken.update(specs)
        return
    for name in _ordered(graph):
        if name in wanted:
            _node(state, specs[name], inner, depth)
        else:
            _alone(state, specs[name])


def _alone(state: State, spec: NodeSpec) -> None:
    """A node that nothing reads is dropped, but its block and arguments, or the recipe it names, are checked."""
    if spec.recipe is None:
        entry = entry_of(state, spec)
        if entry is not None:
            arguments_of(state, entry, spec)
        return
    try:
        nested_source(spec, spec.origin or state.source)
    except LookupError as error:
        state.fail(spec, str(error), spec.recipe.mark, f"{spec.path}.recipe")


def _node(state: State, spec: NodeSpec, inner: Inner, depth: int) -> None:
    if depth > DEEPEST:
        state.fail(spec, f"composites or recipes more than {DEEPEST} deep inside each other")
        return
    if spec.recipe is not None:
        _nested(state, spec, inner, depth)
        return
    entry = entry_of(state, spec)
    args = arguments_of(state, entry, spec) if entry is not None else None
    wiring = wiring_of(state, entry, spec) if entry is not None else None
    if entry is None or args is None or wiring is None:
        state.broken.add(spec.name)
    elif entry.kind == "composite":
        _composite(state, entry, args, wiring, spec, inner, depth)
    else:
        place(state, entry, args, wiring, spec)


def _composite(
    state: State, entry: Entry, args: dict[str, Any], wiring: dict[str, str], spec: NodeSpec, inner: Inner, depth: int
) -> None:
    edges: dict[str, Edge | Pyramid | None] = {}
    for port in entry.signature.inputs:
        source = wiring.get(port.name)
        if source is None:
            edges[port.name] = None
        elif port.pyramid:
            edges[port.name] = state.pyramid(source)
        else:
            edges[port.name] = Edge(source, state.edges[source].axes)
    plain = {port: state.edges[edge] for port, edge in wiring.items() if isinstance(edges[port], Edge)}
    bound = bind(entry, args, plain, wiring, spec.name)
    if bound.wrong:
        report(state, entry, args, wiring, spec, bound)
        return
    try:
        nodes: Nodes = entry.target(**edges, **args)
    except Misfit as error:
        state.fail(spec, f"{entry.name!r}: {error}")
        return
    _inside(state, spec, {m.name: m for m in (_member(m, spec) for m in nodes.members.values())}, inner, depth)
    ports = {port: _absolute(edge, spec.name) for port, edge in nodes.ports.items()}
    state.show(spec, ports, [_absolute(edge, spec.name) for edge in nodes.stages])
    check_remark(state, spec)


def _nested(state: State, spec: NodeSpec, inner: Inner, depth: int) -> None:
    assert spec.recipe is not None
    if spec.head:
        message = "a head is a block with a loss, not a recipe; nest the recipe under 'nodes'"
        state.fail(spec, message, spec.recipe.mark, f"{spec.path}.recipe")
        return
    part = open_nested(state, spec)
    if part is None:
        return
    for name in (*inner.replace, *inner.remove):  # an outer verb stands over the nested recipe's own
        part.inner.forget(name)
        part.inner.done(name)
    theirs = set(part.inner.names())
    verbs = Inner(
        {**part.inner.replace, **inner.replace}, {**part.inner.remove, **inner.remove}, {**part.inner.set, **inner.set}
    )
    outside, state.source = state.source, part.source
    _inside(state, spec, part.specs, verbs, depth)
    state.source = outside
    left = set(verbs.names())
    for name in set(inner.names()) - left:
        inner.done(name)
    unanswered(state, verbs.only(theirs & left), [spec.name.partition(".")[0]])
    prefix = f"{spec.name}."
    stages = [edge for name, edges in state.stages.items() if name.startswith(prefix) for edge in edges]
    ports = {"out": f"{prefix}{part.heads[0]}"} if len(part.heads) == 1 else {}
    state.show(spec, ports, stages)
    check_remark(state, spec)


def _inside(state: State, spec: NodeSpec, specs: dict[str, NodeSpec], inner: Inner, depth: int) -> None:
    """Apply the verbs that wait for these nodes, then resolve them."""
    if len(specs) > MOST_NODES:
        state.fail(spec, f"more than {MOST_NODES} nodes, which no model here needs")
        return
    mine = inner.of(spec.name)
    for name, new in mine.replace.items():
        if name in specs:
            old = specs[name]
            specs[name] = replace(new, inputs=new.inputs if new.inputs is not None else old.inputs, head=old.head)
            state.touched[name] = new.touched[0]
            inner.done(name)
    for name, verb in mine.remove.items():
        if specs.pop(name, None) is not None:
            state.removed[name] = verb
            inner.done(name)
    for target, (value, verb) in mine.set.items():
        owner, rest = split_setting(target)
        if owner in specs:
            specs[owner] = with_setting(specs[owner], rest, value, verb, state.findings)
            state.touched[owner] = verb
            inner.done(target)
    process(state, specs, inner, specs, depth + 1)


def unanswered(state: State, inner: Inner, wanted: Iterable[str]) -> None:
    """Findings for verbs that no inner node answered to."""
    for name in inner.names():
        owner = split_setting(name)[0] if name in inner.set else name
        top = owner.partition(".")[0]
        if top not in wanted or state.is_broken(top):
            continue
        verb: Verb | None = inner.remove.get(name)
        if verb is None:
            verb = inner.replace[name].touched[0] if name in inner.replace else inner.set[name][1]
        word = {"replaced": "replace", "removed": "remove"}.get(verb.word, verb.word)
        inside = [node for node in state.nodes if node.startswith(f"{top}.")]
        state.findings.find(f"there is no node {owner!r}; {near(owner, inside)}", verb.mark, f"{word}.{name}")


def _member(member: Member, spec: NodeSpec) -> NodeSpec:
    """A composite's node as a recipe would write it, marked by the argument that asked for it."""
    asked = Tree(spec.args, spec.mark, spec.arg_marks).find(member.place) if member.place else None
    mark = asked.mark if asked is not None else spec.block.mark if spec.block else spec.mark
    given = asked.find(("args",)) if asked is not None else None
    args = {}
    for name, value in member.args.items():
        own = given.value.get(name) if given is not None and given.is_map else None
        args[name] = own if own is not None and own.plain() == value else _marked(from_python(value), mark)
    marks = {name: given.keys[name] if given and name in given.keys else tree.mark for name, tree in args.items()}
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in member.place)
    wiring = {port: Tree(_absolute(edge, spec.name), mark) for port, edge in member.inputs.items()}
    return NodeSpec(
        name=f"{spec.name}.{member.name}",
        head=False,
        block=Tree(member.block, asked.find(("block",)).mark if asked is not None else mark),
        inputs=Tree(wiring, mark),
        args=args,
        arg_marks={name: m for name, m in marks.items() if m is not None},
        mark=mark,
        path=f"{spec.path}.args{place}" if place else f"{spec.path} ({member.name})",
        touched=spec.touched,
    )


def _refs(tree: Tree) -> list[str]:
    edges = tree.value.values() if tree.is_map else [tree]
    return [edge.value for edge in edges if isinstance(edge.value, str)]


def _owner(ref: str, specs: Mapping[str, NodeSpec]) -> str | None:
    """The node among these whose edge a reference is: the longest name that begins it."""
    parts = ref.split(".")
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((name for name in names if name in specs), None)


def _ordered(graph: Mapping[str, list[str]]) -> list[str]:
    """A topological order as close to the given one as dependencies allow."""
    done: dict[str, None] = {}
    stack = [(name, False) for name in reversed(list(graph))]
    while stack:
        name, ready = stack.pop()
        if ready:
            done[name] = None
        elif name not in done:
            stack.append((name, True))
            stack.extend((before, False) for before in graph[name] if before not in done)
    return list(done)


def _absolute(edge: Edge, composite: str) -> str:
    return f"{composite}{edge.name}" if edge.name.startswith(".") else edge.name


def _marked(tree: Tree, mark: Mark | None) -> Tree:
    tree.mark = mark
    for child in tree.value.values() if tree.is_map else tree.value if tree.is_list else ():
        _marked(child, mark)
    return tree
