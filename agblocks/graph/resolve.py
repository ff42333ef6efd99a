"""A patched recipe resolved: composites expanded, every shape known, unread nodes dropped. No tensor is made.

Expanding and inferring advance together in topological order, because a composite sees the shapes of its inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from fractions import Fraction
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from ..errors import InputError, Mark, Misfit, RecipeError, near
from . import digest
from .arguments import validate
from .dims import Dim, symbol
from .find import Source, find_from
from .infer import Bound, EdgeInfo, below_of, bind, fits_remark, outputs
from .nodes import Edge, Nodes, Pyramid, stride_of
from .patch import Inner, Patched, load, patched, with_setting
from .reach import Field
from .registry import Entry, lookup
from .rules import LengthRule
from .schema import Findings, NodeSpec, Verb, input_axes
from .signature import parse_axes
from .source import Tree, from_python

MOST_NODES = 2_000
DEEPEST = 8  # composites and recipes inside each other


@dataclass(frozen=True)
class ResolvedNode:
    """One block of the model: what it is, what it reads, and where the recipe says so."""

    name: str
    entry: Entry
    args: Mapping[str, Any]
    dims: Mapping[str, int | None]
    inputs: Mapping[str, str]  # port -> edge
    outputs: tuple[str, ...]  # edges, in the order of the signature's ports
    mark: Mark | None = None
    path: str = ""


@dataclass(frozen=True)
class Resolved:
    """A recipe whose every shape is known. `recipe` is the same, self-contained and without bases, to store."""

    name: str
    inputs: Mapping[str, EdgeInfo]
    nodes: Mapping[str, ResolvedNode]  # in the order they run
    edges: Mapping[str, EdgeInfo]  # inputs and every output of every node
    names: Mapping[str, str]  # further names of edges: composites and their ports
    heads: Mapping[str, float]  # weights of their losses
    keep: tuple[str, ...]
    pruned: tuple[str, ...]
    recipe: Mapping[str, Any]

    def __deepcopy__(self, memo: dict[int, Any]) -> Resolved:
        return self  # nothing in it changes

    @property
    def digest(self) -> str:
        return digest.of_recipe(self.edges[self.edge(head)].digest for head in self.heads)

    def edge(self, name: str) -> str:
        """The edge that a name stands for. Raises InputError with near names, or how to keep a pruned one."""
        found = self.names.get(name, name)
        if found in self.edges:
            return found
        for gone in self.pruned:
            if name == gone or name.startswith(f"{gone}."):
                raise InputError(
                    f"{name!r} was dropped, as no head reads it; keep it by 'keep: [{name}]' in the recipe or "
                    f"build(..., keep=[{name!r}])"
                )
        raise InputError(f"there is no output {name!r}; {near(name, self.outputs)}")

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every name that the model can be asked for: heads first, then other edges."""
        rest = [name for name in (*self.names, *self.edges) if name not in self.inputs]
        return tuple(dict.fromkeys((*self.heads, *rest)))

    def info(self, name: str) -> EdgeInfo:
        return self.edges[self.edge(name)]

    def rule(self, outputs: Iterable[str] | None = None) -> LengthRule:
        """Which input lengths fit for these outputs (default: all heads)."""
        wanted = [self.info(name) for name in (self.heads if outputs is None else outputs)]
        return LengthRule(c for edge in wanted for c in edge.conditions)

    def needed(self, outputs: Iterable[str]) -> list[ResolvedNode]:
        """The nodes that these outputs need, in the order they run."""
        wanted = {self.edge(name) for name in outputs}
        found = []
        for node in reversed(self.nodes.values()):
            if wanted.intersection(node.outputs):
                wanted.update(node.inputs.values())
                found.append(node)
        return found[::-1]


def resolve(
    recipe: str | Path | Mapping[str, Any], *overrides: str, keep: Iterable[str] = ()
) -> Resolved:
    """Read, patch, expand, infer and prune a recipe. Raises RecipeError with everything that is wrong.

    `recipe` is a path, a shipped name, a text or a dict; an override is 'node.argument=value'; `keep` are patterns of
    edges to keep although no head reads them.
    """
    layered = load(recipe, overrides)
    layered.keep.extend(Tree(pattern) for pattern in keep)
    return _Resolver(layered).run()


class _Resolver:
    """The state of one resolving: what is known of edges so far, and what went wrong."""

    def __init__(self, layered: Patched):
        self.layered = layered
        self.findings = Findings()
        self.edges: dict[str, EdgeInfo] = {}
        self.names: dict[str, str] = {}
        self.pyramids: dict[str, list[str]] = {}
        self.nodes: dict[str, ResolvedNode] = {}
        self.broken: set[str] = set()  # nodes that failed: what reads them is not reported again
        self.touched: dict[str, Verb] = {}
        self.removed: dict[str, Verb] = dict(layered.removed)

    def run(self) -> Resolved:
        layered, findings = self.layered, self.findings
        for name, tree in layered.inputs.items():
            axes = input_axes(tree)
            assert not isinstance(axes, str)
            self.add_input(name, tuple(_input_dim(axis.text, i) for i, axis in enumerate(axes)))
        heads = {name: _weight(spec) for name, spec in layered.nodes.items() if spec.head}
        if not heads and not layered.keep:
            findings.find("there is no head and nothing to keep, so nothing to compute", None, "heads")
        specs = dict(layered.nodes)
        inner = layered.inner.copy()
        wanted = self.wanted(specs)
        self.process(specs, inner, wanted, 0)
        for name in inner.names():
            if name.partition(".")[0] in wanted and not self.is_broken(name.partition(".")[0]):
                self.unknown_inner(name, inner)
        keep = self.kept(specs)
        if findings:
            raise RecipeError(findings)
        return self.prune(heads, keep)

    def add_input(self, name: str, axes: tuple[Dim, ...]) -> None:
        self.edges[name] = EdgeInfo(
            axes=axes,
            integer=len(axes) == 1,
            field=Field() if len(axes) > 1 else None,
            digest=digest.of_input(name, axes),
        )

    # What is read at all

    def wanted(self, specs: Mapping[str, NodeSpec]) -> set[str]:
        """The top-level nodes that a head or `keep` reads, directly or not."""
        patterns = [tree.value.partition(".")[0] for tree in self.layered.keep]
        queue = [n for n, s in specs.items() if s.head or any(fnmatchcase(n, p) for p in patterns)]
        found: set[str] = set()
        while queue:
            name = queue.pop()
            if name not in found:
                found.add(name)
                queue.extend(self.reads(name, specs, self.layered.inner))
        return found

    def reads(self, name: str, specs: Mapping[str, NodeSpec], inner: Inner) -> list[str]:
        """The nodes among `specs` that a node reads, verbs on its inside included."""
        trees = [specs[name].inputs]
        below = inner.of(name)
        trees += [spec.inputs for spec in below.replace.values()]
        trees += [tree for key, (tree, _) in below.set.items() if ".in" in key]
        refs = [ref for tree in trees if tree is not None for ref in _refs(tree)]
        return list(dict.fromkeys(o for ref in refs if (o := _owner(ref, specs)) is not None and o != name))

    # Nodes in order

    def process(self, specs: dict[str, NodeSpec], inner: Inner, wanted: Iterable[str], depth: int) -> None:
        """Resolve nodes in topological order; those not wanted are only checked by themselves."""
        wanted = set(wanted)
        graph = {name: [r for r in self.reads(name, specs, inner)] for name in specs}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            cycle = error.args[1][::-1]
            spec = specs[cycle[0]]
            self.findings.find(f"nodes read each other in a circle: {' -> '.join(cycle)}", spec.mark, spec.path)
            self.broken.update(specs)
            return
        rank = {name: i for i, name in enumerate(specs)}
        for name in _stable(order, graph, rank):
            if name in wanted:
                self.node(specs[name], inner, depth)
            else:
                self.check_alone(specs[name])

    def check_alone(self, spec: NodeSpec) -> None:
        """A node that nothing reads is dropped, but its block and arguments are still checked."""
        entry = self.entry(spec)
        if entry is not None:
            self.arguments(entry, spec, quiet=False)

    def node(self, spec: NodeSpec, inner: Inner, depth: int) -> None:
        if depth > DEEPEST:
            self.fail(spec, f"composites or recipes more than {DEEPEST} deep inside each other")
            return
        if spec.recipe is not None:
            self.nested(spec, inner, depth)
            return
        entry = self.entry(spec)
        args = self.arguments(entry, spec) if entry is not None else None
        if entry is None or args is None:
            self.broken.add(spec.name)
            return
        wiring = self.wiring(entry, spec)
        if wiring is None:
            self.broken.add(spec.name)
        elif entry.kind == "composite":
            self.composite(entry, args, wiring, spec, inner, depth)
        else:
            self.block(entry, args, wiring, spec)

    def fail(self, spec: NodeSpec, message: str, mark: Mark | None = None, path: str = "", *notes: str) -> None:
        touched = [f"{spec.path} ({spec.mark}) was {verb}" for verb in spec.touched if verb.mark != spec.mark]
        self.findings.find(message, mark or spec.mark, path or spec.path, *notes, *dict.fromkeys(touched))
        self.broken.add(spec.name)

    def entry(self, spec: NodeSpec) -> Entry | None:
        if spec.block is None:
            return None
        try:
            entry = lookup(spec.block.value)
        except KeyError as error:
            self.fail(spec, str(error.args[0]), spec.block.mark, f"{spec.path}.block")
            return None
        if spec.head and entry.kind != "head":
            self.fail(spec, f"{entry.name!r} is no head: it has no loss", spec.block.mark, f"{spec.path}.block",
                      "to ask the model for an edge, no head is needed: outputs=[...], and 'keep' where none reads it")
            return None
        return entry

    def arguments(self, entry: Entry, spec: NodeSpec, quiet: bool = False) -> dict[str, Any] | None:
        args, complaints = validate(entry, spec.args)
        verbs = {str(v.mark): v for v in spec.touched}
        for path, message in complaints:
            tree = Tree(spec.args, spec.mark, spec.arg_marks)
            found = tree.find(path)
            mark = tree.keys.get(str(path[0]), found.mark) if len(path) == 1 and "no argument" in message else found.mark
            dotted = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path)
            by_verb = path and str(spec.arg_marks.get(str(path[0]))) in verbs | {}
            note = [f"it sets {spec.path}.args{dotted}"] if by_verb and path else []
            self.findings.find(message, mark or spec.mark, f"{spec.path}.args{dotted}", *note)
            self.broken.add(spec.name)
        return None if complaints else args

    def wiring(self, entry: Entry, spec: NodeSpec) -> dict[str, str] | None:
        """Port -> edge name (for a pyramid: the composite's name), all known; None where something is wrong."""
        ports = {port.name: port for port in entry.signature.inputs}
        if spec.inputs is None:
            self.fail(spec, "a node says what it reads: 'in: edge' or 'in: {port: edge}'")
            return None
        given: dict[str, Tree] = spec.inputs.value if spec.inputs.is_map else {"": spec.inputs}
        given = {port or entry.signature.inputs[0].name: tree for port, tree in given.items()}
        wired: dict[str, str] = {}
        good = True
        for port, tree in given.items():
            path = f"{spec.path}.in.{port}" if spec.inputs.is_map else f"{spec.path}.in"
            if port not in ports:
                mark = spec.inputs.keys.get(port, tree.mark)
                self.fail(spec, f"{entry.name!r} has no input {port!r}; {near(port, ports)}", mark, path)
                good = False
                continue
            edge = self.reference(tree, ports[port].pyramid, spec, path)
            if edge is None:
                good = False
            else:
                wired[port] = edge
        for port in ports.values():
            if port.name not in given and not port.optional:
                mark = spec.inputs.mark
                self.fail(spec, f"{entry.name!r} needs an edge at {port.name!r} {port.shape}", mark, f"{spec.path}.in",
                          f"in: {{{', '.join(f'{p.name}: ...' for p in ports.values() if not p.optional)}}}")
                good = False
        return wired if good else None

    def reference(self, tree: Tree, pyramid: bool, spec: NodeSpec, path: str) -> str | None:
        """The edge that a wiring names; None, with a finding where it is not an echo of an earlier one."""
        name: str = tree.value
        if pyramid:
            if name in self.pyramids:
                return name
            if not self.is_broken(name):
                self.fail(spec, f"{name!r} has no pyramid of stages; {near(name, self.pyramids)}", tree.mark, path)
            return None
        edge = self.names.get(name, name)
        if edge in self.edges:
            return edge
        if self.is_broken(name):
            return None
        for gone, verb in self.removed.items():
            if name == gone or name.startswith(f"{gone}."):
                self.fail(spec, f"{name!r} was {verb}, but is read here", tree.mark, path)
                return None
        self.fail(spec, f"there is no edge {name!r}; {near(name, self.known())}", tree.mark, path)
        return None

    def is_broken(self, name: str) -> bool:
        return any(name == b or name.startswith(f"{b}.") or b.startswith(f"{name}.") for b in self.broken)

    def known(self) -> list[str]:
        return [*self.names, *self.edges]

    # Blocks

    def block(self, entry: Entry, args: dict[str, Any], wiring: dict[str, str], spec: NodeSpec) -> None:
        if len(self.nodes) >= MOST_NODES:
            self.fail(spec, f"more than {MOST_NODES} nodes, which no model here needs")
            return
        if spec.name in self.edges:
            self.fail(spec, f"{spec.name!r} names two edges")
            return
        wired = {port: self.edges[edge] for port, edge in wiring.items()}
        bound = bind(entry, args, wired, wiring, spec.name)
        made = outputs(entry, bound, wired, spec.name) if not bound.wrong else {}
        if bound.wrong:
            self.report(entry, args, wiring, spec, bound)
            return
        for port in entry.signature.inputs:
            if port.name in wiring and port.integer:
                self.narrow(wiring[port.name], below_of(port, bound))
        dims = {name: bound.values.get(name) for name in entry.dims}
        digests = {port: edge.digest for port, edge in wired.items()}
        names = []
        for index, (port_name, info) in enumerate(made.items()):
            name = spec.name if index == 0 else f"{spec.name}.{port_name}"
            names.append(name)
            self.edges[name] = replace(info, digest=digest.of_node(entry.name, args, dims, digests, port_name))
        self.nodes[spec.name] = ResolvedNode(
            spec.name, entry, args, dims, wiring, tuple(names), spec.mark, spec.path  # type: ignore[arg-type]
        )
        self.check_remark(spec)

    def narrow(self, edge: str, below: int | None) -> None:
        """Lower the bound of an edge of whole numbers to what a reader takes."""
        info = self.edges[edge]
        if below is not None and (info.below is None or below < info.below):
            self.edges[edge] = replace(info, below=below)

    def report(self, entry: Entry, args: dict[str, Any], wiring: dict[str, str], spec: NodeSpec, bound: Bound) -> None:
        """Findings for ports that do not fit, each with what would."""
        assert spec.inputs is not None
        for wrong in bound.wrong:
            port = next((p for p in entry.signature.inputs if p.name == wrong.port), None)
            if port is None:
                self.fail(spec, f"{entry.name!r}: {wrong.message}")
                continue
            edge = wiring[port.name]
            tree = spec.inputs.value.get(port.name, spec.inputs.value.get("")) if spec.inputs.is_map else spec.inputs
            path = f"{spec.path}.in.{port.name}" if spec.inputs.is_map else f"{spec.path}.in"
            notes = [f"{edge} is {self.edges[edge].shape}; {entry.name!r} wants {port.shape}"]
            fits = self.that_fit(entry, args, wiring, port.name)
            notes.append(f"outputs that would fit: {', '.join(fits)}" if fits else "no output so far would fit")
            if verb := self.touched.get(edge):
                notes.append(f"{edge!r} was {verb}")
            self.fail(spec, wrong.message, tree.mark, path, *notes)

    def that_fit(self, entry: Entry, args: dict[str, Any], wiring: dict[str, str], port: str) -> list[str]:
        """Edges which at this port would leave nothing wrong there."""
        fits = []
        for name in self.edges:
            trial = {**wiring, port: name}
            found = bind(entry, args, {p: self.edges[e] for p, e in trial.items()}, trial, "")
            if not any(wrong.port == port for wrong in found.wrong):
                fits.append(name)
        return fits[-6:]

    def check_remark(self, spec: NodeSpec) -> None:
        if spec.shape is None or spec.name in self.broken:
            return
        info = self.edges[self.names.get(spec.name, spec.name)]
        try:
            good = fits_remark(parse_axes(spec.shape.value), info)
        except ValueError as error:
            self.fail(spec, str(error), spec.shape.mark, f"{spec.path}.shape")
            return
        if not good:
            self.fail(spec, f"{spec.name!r} is {info.shape}, not [{spec.shape.value}]", spec.shape.mark, f"{spec.path}.shape")

    # Composites and nested recipes

    def composite(
        self, entry: Entry, args: dict[str, Any], wiring: dict[str, str], spec: NodeSpec, inner: Inner, depth: int
    ) -> None:
        edges: dict[str, Edge | Pyramid | None] = {}
        for port in entry.signature.inputs:
            source = wiring.get(port.name)
            if source is None:
                edges[port.name] = None
            elif port.pyramid:
                edges[port.name] = self.pyramid(source)
            else:
                edges[port.name] = Edge(source, self.edges[source].axes)
        plain = {port: self.edges[edge] for port, edge in wiring.items() if edge in self.edges}
        bound = bind(entry, args, plain, wiring, spec.name)
        if bound.wrong:
            self.report(entry, args, wiring, spec, bound)
            return
        try:
            nodes: Nodes = entry.target(**edges, **args)
        except Misfit as error:
            self.fail(spec, f"{entry.name!r}: {error}")
            return
        specs = {f"{spec.name}.{m.name}": self.member(m, spec) for m in nodes.members.values()}
        self.inside(spec, specs, inner, depth)
        shown = {port: _absolute(edge, spec.name) for port, edge in nodes.ports.items()}
        self.show(spec, shown, [_absolute(edge, spec.name) for edge in nodes.stages])

    def member(self, member: Any, spec: NodeSpec) -> NodeSpec:
        """A composite's node as a recipe would write it, marked by the argument that asked for it."""
        whole = Tree(spec.args, spec.mark, spec.arg_marks)
        found = whole.find(member.place) if member.place else Tree({}, spec.block.mark if spec.block else spec.mark)
        given = found.value.get("args") if found.is_map and member.place else None
        args = {}
        for name, value in member.args.items():
            own = given.value.get(name) if given is not None and given.is_map else None
            args[name] = own if own is not None and own.plain() == value else _marked(from_python(value), found.mark)
        wiring = {port: Tree(_absolute(edge, spec.name), found.mark) for port, edge in member.inputs.items()}
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in member.place)
        return NodeSpec(
            name=f"{spec.name}.{member.name}",
            head=False,
            block=Tree(member.block, found.find(("block",)).mark),
            inputs=Tree(wiring, found.mark),
            args=args,
            arg_marks={name: tree.mark for name, tree in args.items() if tree.mark},
            mark=found.mark,
            path=f"{spec.path}.args{place}" if place else f"{spec.path} ({member.name})",
        )

    def inside(self, spec: NodeSpec, specs: dict[str, NodeSpec], inner: Inner, depth: int) -> None:
        """Apply the verbs that wait for these nodes, then resolve them."""
        if len(specs) > MOST_NODES:
            self.fail(spec, f"more than {MOST_NODES} nodes, which no model here needs")
            return
        mine = inner.of(spec.name)
        for name, new in mine.replace.items():
            if name in specs:
                old = specs[name]
                self.touched[name] = new.touched[0]
                specs[name] = replace(new, inputs=new.inputs if new.inputs is not None else old.inputs, head=old.head)
                del inner.replace[name]
        for name, verb in mine.remove.items():
            if specs.pop(name, None) is not None:
                self.removed[name] = verb
                del inner.remove[name]
        for target, (value, verb) in mine.set.items():
            owner, rest = _target(target)
            if owner in specs:
                specs[owner] = with_setting(specs[owner], rest, value, verb, self.findings)
                self.touched[owner] = verb
                del inner.set[target]
        self.process(specs, inner, specs, depth + 1)

    def unknown_inner(self, name: str, inner: Inner) -> None:
        """A verb that no node answered to."""
        verb = inner.replace[name].touched[0] if name in inner.replace else inner.remove.get(name) or inner.set[name][1]
        owner = name if name not in inner.set else _target(name)[0]
        word = {"replaced": "replace", "removed": "remove"}.get(verb.word, verb.word)
        top = owner.partition(".")[0]
        inside = [n for n in self.nodes if n.startswith(f"{top}.")]
        self.findings.find(f"there is no node {owner!r}; {near(owner, inside)}", verb.mark, f"{word}.{name}")

    def show(self, spec: NodeSpec, ports: Mapping[str, str], stages: Iterable[str]) -> None:
        """Give a composite's edges their outside names, and its pyramid its tracks."""
        for port, edge in ports.items():
            name = spec.name if port == "out" else f"{spec.name}.{port}"
            real = self.names.get(edge, edge)
            if real in self.edges:
                self.names[name] = real
            elif edge in self.removed:
                self.removed[name] = self.removed[edge]
            elif not self.is_broken(edge):
                self.fail(spec, f"{spec.name!r} shows {edge!r}, which is no edge; {near(edge, self.edges)}")
        self.pyramids[spec.name] = [real for s in stages if (real := self.names.get(s, s)) in self.edges]
        if spec.name in self.names:
            self.check_remark(spec)

    def pyramid(self, name: str) -> Pyramid:
        """The tracks of a composite by stride; of several at one stride the last."""
        tracks: dict[Fraction, Edge] = {}
        for edge in self.pyramids[name]:
            stride = stride_of(self.edges[edge].axes)
            if stride is not None:
                tracks[stride] = Edge(edge, self.edges[edge].axes)
        return Pyramid(tracks, name)

    def nested(self, spec: NodeSpec, inner: Inner, depth: int) -> None:
        """A recipe as a node: its inputs are the ports, its heads the outputs."""
        tree = spec.recipe
        assert tree is not None and self.layered.source is not None
        try:
            if tree.is_map:
                here = self.layered.source
                source = Source(tree, f"{here.label} ({spec.name})", here.file, here.root)
            else:
                source = find_from(tree.value, self.layered.source)
            part = patched(source, settings=spec.args)
        except LookupError as error:
            self.fail(spec, str(error), tree.mark, f"{spec.path}.recipe")
            return
        except RecipeError as error:
            self.findings.extend(error.problems)
            self.broken.add(spec.name)
            return
        wiring = self.nested_wiring(spec, part)
        if wiring is None:
            self.broken.add(spec.name)
            return
        prefix: Callable[[str], str] = lambda ref: wiring.get(ref) or f"{spec.name}.{ref}"  # noqa: E731
        specs = {
            f"{spec.name}.{name}": replace(
                s, name=f"{spec.name}.{name}", head=False, inputs=_mapped(s.inputs, prefix), path=f"{spec.path} ({s.path})"
            )
            for name, s in part.nodes.items()
        }
        within = Inner(
            {f"{spec.name}.{n}": replace(s, inputs=_mapped(s.inputs, prefix)) for n, s in part.inner.replace.items()},
            {f"{spec.name}.{n}": v for n, v in part.inner.remove.items()},
            {f"{spec.name}.{n}": (_mapped(t, prefix) if ".in" in n else t, v) for n, (t, v) in part.inner.set.items()},  # type: ignore[misc]
        )
        merged = Inner({**within.replace, **inner.replace}, {**within.remove, **inner.remove}, {**within.set, **inner.set})
        outer, self.layered = self.layered, replace(self.layered, source=source)
        try:
            self.inside(spec, specs, merged, depth)
        finally:
            self.layered = outer
        heads = [name for name, s in part.nodes.items() if s.head]
        for name in heads if len(heads) == 1 else ():
            self.names.setdefault(spec.name, self.names.get(f"{spec.name}.{name}", f"{spec.name}.{name}"))
        self.pyramids[spec.name] = [
            edge for name, edges in list(self.pyramids.items()) if name.startswith(f"{spec.name}.") for edge in edges
        ]
        if spec.name in self.names and self.names[spec.name] in self.edges:
            self.check_remark(spec)
        else:
            self.names.pop(spec.name, None)

    def nested_wiring(self, spec: NodeSpec, part: Patched) -> dict[str, str] | None:
        """Input of the nested recipe -> outer edge, shapes checked."""
        if spec.inputs is None:
            self.fail(spec, "a node says what it reads: 'in: edge' or 'in: {port: edge}'")
            return None
        given = spec.inputs.value if spec.inputs.is_map else {next(iter(part.inputs), ""): spec.inputs}
        wired: dict[str, str] = {}
        for port, tree in given.items():
            path = f"{spec.path}.in.{port}"
            if port not in part.inputs:
                self.fail(spec, f"the recipe has no input {port!r}; {near(port, part.inputs)}", tree.mark, path)
                return None
            edge = self.reference(tree, False, spec, path)
            if edge is None:
                return None
            wired[port] = edge
            axes = input_axes(part.inputs[port])
            info = self.edges[edge]
            fits = not isinstance(axes, str) and len(axes) == len(info.axes) and all(
                a.symbol is not None or a.evaluate({}, []) == d for a, d in zip(axes, info.axes, strict=True)
            )
            if not fits:
                message = f"input {port!r} is [{part.inputs[port].value}], but {edge!r} is {info.shape}"
                self.fail(spec, message, tree.mark, path)
                return None
        missing = [name for name in part.inputs if name not in wired]
        if missing:
            self.fail(spec, f"the recipe needs an edge at {', '.join(map(repr, missing))}", spec.inputs.mark, f"{spec.path}.in")
            return None
        return wired

    # What stays

    def kept(self, specs: Mapping[str, NodeSpec]) -> tuple[str, ...]:
        """The edges that `keep` names."""
        found: list[str] = []
        for index, tree in enumerate(self.layered.keep):
            names = [name for name in self.known() if fnmatchcase(name, tree.value)]
            if not names and not self.is_broken(tree.value.rstrip(".*")):
                self.findings.find(
                    f"nothing is named {tree.value!r}; {near(tree.value, self.known())}", tree.mark, f"keep[{index}]"
                )
            found += [self.names.get(name, name) for name in names]
        return tuple(dict.fromkeys(found))

    def prune(self, heads: dict[str, float], keep: tuple[str, ...]) -> Resolved:
        wanted = {*heads, *keep}
        nodes: dict[str, ResolvedNode] = {}
        for node in reversed(list(self.nodes.values())):
            if wanted.intersection(node.outputs):
                nodes[node.name] = node
                wanted.update(node.inputs.values())
        nodes = dict(reversed(nodes.items()))
        alive = {e for n in nodes.values() for e in (*n.outputs, *n.inputs.values())}
        inputs = {name: self.edges[name] for name in self.layered.inputs if name in alive or name in keep}
        edges = {name: info for name, info in self.edges.items() if name in inputs or name in alive}
        names = {name: edge for name, edge in self.names.items() if edge in edges}
        gone = [name for name in (*self.layered.nodes, *self.names, *self.edges) if name not in edges and name not in names]
        pruned = tuple(n for n in dict.fromkeys(gone) if not any(e.startswith(f"{n}.") for e in edges))
        return Resolved(
            name=self.layered.name, inputs=inputs, nodes=nodes, edges=edges, names=names, heads=heads,
            keep=keep, pruned=pruned, recipe=self.layered.plain(),
        )


def _input_dim(axis: str, index: int) -> Dim:
    """Channels are numbers, everything else a symbol, a stated length too."""
    return int(axis) if axis.isdigit() and index == 1 else symbol(axis)


def _weight(spec: NodeSpec) -> float:
    return float(spec.weight.value) if spec.weight is not None else 1.0


def _refs(tree: Tree) -> list[str]:
    return [tree.value] if isinstance(tree.value, str) else [edge.value for edge in tree.value.values()]


def _owner(ref: str, specs: Mapping[str, NodeSpec]) -> str | None:
    """The node among these whose edge a reference is: the longest name that begins it."""
    parts = ref.split(".")
    for end in range(len(parts), 0, -1):
        if (name := ".".join(parts[:end])) in specs:
            return name
    return None


def _stable(order: list[str], graph: Mapping[str, list[str]], rank: Mapping[str, int]) -> list[str]:
    """A topological order as close to the written one as dependencies allow."""
    done: set[str] = set()
    result: list[str] = []
    stack = [(name, False) for name in sorted(order, key=lambda n: -rank[n])]
    while stack:
        name, ready = stack.pop()
        if name in done:
            continue
        if ready:
            done.add(name)
            result.append(name)
        else:
            stack.append((name, True))
            stack.extend((dep, False) for dep in graph[name] if dep not in done)
    return result


def _absolute(edge: Edge, composite: str) -> str:
    return f"{composite}{edge.name}" if edge.name.startswith(".") else edge.name


def _target(target: str) -> tuple[str, str]:
    parts = target.split(".")
    cut = -2 if len(parts) > 2 and parts[-2] == "in" else -1
    return ".".join(parts[:cut]), ".".join(parts[cut:])


def _mapped(tree: Tree | None, rename: Callable[[str], str]) -> Tree | None:
    if tree is None:
        return None
    if isinstance(tree.value, str):
        return Tree(rename(tree.value), tree.mark)
    return Tree({port: Tree(rename(e.value), e.mark) for port, e in tree.value.items()}, tree.mark, tree.keys)


def _marked(tree: Tree, mark: Mark | None) -> Tree:
    tree.mark = mark
    children = tree.value.values() if tree.is_map else tree.value if tree.is_list else ()
    for child in children:
        _marked(child, mark)
    return tree
