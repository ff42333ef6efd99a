"""The promises that hold for every recipe, each a function that raises `Broken`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from ..errors import InputError
from ..graph.build import build
from ..graph.model import GraphModel
from ..graph.resolve import Resolved, resolve
from .case import dna
from .compare import apart, device_for
from .contract import Broken

Recipe = Mapping[str, Any]


def idempotent(recipe: Recipe) -> None:
    """Resolving what `resolved.recipe` stores gives the same nodes, shapes and digests."""
    first = resolve(recipe)
    second = resolve(first.recipe)
    for what, one, two in zip(("nodes", "edges", "heads", "digest"), _facts(first), _facts(second), strict=True):
        if one != two:
            raise Broken(f"resolving again changes the {what}: {_difference(one, two)}")


def key_order(recipe: Recipe) -> None:
    """The order of keys changes no digest and no shape."""
    first, second = resolve(recipe), resolve(_reversed(recipe))
    one, two = ({name: (i.digest, i.shape) for name, i in r.edges.items()} for r in (first, second))
    if one != two or first.digest != second.digest:
        raise Broken(f"the order of keys matters: {_difference(one, two)}")


def names(recipe: Recipe) -> None:
    """Other names for the nodes change no digest."""
    first = resolve(recipe)
    second = resolve(renamed(recipe))
    one = sorted(info.digest for info in first.edges.values())
    two = sorted(info.digest for info in second.edges.values())
    if one != two or first.digest != second.digest:
        raise Broken("other names for the nodes give other digests")


def pruning(recipe: Recipe) -> None:
    """What no head and no `keep` reads is dropped, and nothing else; a dropped name says how to keep it."""
    resolved = resolve(recipe)
    whole = resolve(recipe, keep=["*"])
    wanted = {resolved.edge(name) for name in (*resolved.heads, *resolved.keep)}
    needed = _before(whole, wanted)
    if set(resolved.nodes) != needed:
        raise Broken(f"built but not read, or read but not built: {sorted(set(resolved.nodes) ^ needed)}")
    for name in set(whole.nodes) - needed:
        try:
            resolved.edge(name)
        except InputError as error:
            if "keep" not in str(error):
                raise Broken(f"asking for the dropped {name!r} does not say how to keep it: {error}") from None
        else:
            raise Broken(f"{name!r} is dropped, but has an edge")


def shapes(recipe: Recipe) -> None:
    """Every edge has the resolved shape, at several admitted lengths, with optional inputs and without."""
    resolved = resolve(recipe)
    model, device = _built(resolved)
    for values in _lengths(resolved, 3):
        given = _inputs(resolved, values, device)
        firm = {name: value for name, value in given.items() if not resolved.inputs[name].optional}
        for inputs in (given, firm) if len(firm) < len(given) else (given,):
            for name, value in model(**inputs, outputs=resolved.outputs).items():
                axes = resolved.info(name).axes
                wanted = tuple(d if isinstance(d, int) else d.at(values) for d in axes)
                if tuple(value.shape) != wanted:
                    raise Broken(f"{name!r} should be {list(wanted)} at {values}, but is {list(value.shape)}")


def length_rule(recipe: Recipe) -> None:
    """The model runs at every length its rule admits, and refuses every other one by the rule."""
    resolved = resolve(recipe)
    model, device = _built(resolved)
    asked = tuple(resolved.heads) or resolved.keep
    rule = resolved.rule(asked)
    symbols = {s for n in _inputs_of(resolved, asked) for s in _open(resolved, n)}
    if "L" not in symbols:
        return
    first = list(islice(rule.lengths("L"), 3))
    for length in sorted({*range(1, min(first[-1], 24) + 1), *first, *(n + 1 for n in first), *(n - 1 for n in first)}):
        if length < 1:
            continue
        admitted = rule.admits({"L": length})
        try:
            model(**_inputs(resolved, {"B": 2, "L": length}, device), outputs=asked)
        except InputError as error:
            if admitted:
                raise Broken(f"L = {length} is admitted, but refused: {error}") from None
            if str(rule) not in str(error):
                raise Broken(f"L = {length} is refused without the rule: {error}") from None
        else:
            if not admitted:
                raise Broken(f"L = {length} is accepted, though {rule}")


def cut(recipe: Recipe) -> None:
    """A model cut at an edge computes what the whole model with the same weights gives for that edge."""
    resolved = resolve(recipe)
    whole = build(resolved, seed=1).eval()
    state = whole.state_dict()
    heads = {name: {k: v for k, v in spec.items() if k != "weight"} for name, spec in recipe.get("heads", {}).items()}
    plain = {**{k: v for k, v in recipe.items() if k != "heads"}, "nodes": {**recipe.get("nodes", {}), **heads}}
    for edge in _some(resolved):
        model = build({**plain, "keep": [edge]}, seed=2).eval()
        if model.resolved.info(edge).digest != resolved.info(edge).digest:
            raise Broken(f"{edge!r} has another digest in the model cut there")
        for values in _lengths(model.resolved, 1, within=resolved.rule([edge]).admits):
            missing = [key for key in model.state_dict() if key not in state]
            if missing:
                raise Broken(f"the model cut at {edge!r} has parameters that the whole one lacks: {missing}")
            model.load_state_dict({key: state[key] for key in model.state_dict()})
            given = _inputs(resolved, values)
            with torch.no_grad():
                one = _ask(whole, given, edge)
                two = _ask(model, {k: v for k, v in given.items() if k in model.resolved.inputs}, edge)
            if message := apart(one, two, 1e-5):
                raise Broken(f"{edge!r} of the whole model and of the one cut there differ: {message}")


def economy(recipe: Recipe) -> None:
    """Asking for an edge runs the nodes before it, each once, and no other."""
    resolved = resolve(recipe)
    model, device = _built(resolved)
    calls: list[str] = []
    for name in resolved.nodes:
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: calls.append(name))
    for edge in _some(resolved):
        for values in _lengths(resolved, 1, [edge]):
            calls.clear()
            model(**_inputs(resolved, values, device), outputs=[edge])
            needed = _before(resolved, {edge})
            if sorted(calls) != sorted(needed):
                raise Broken(f"asking for {edge!r} runs {calls}, but needs {sorted(needed)}")


def renamed(recipe: Recipe) -> dict[str, Any]:
    """The same recipe with other names for its nodes and heads."""
    own = {name for section in ("nodes", "heads") for name in recipe.get(section, {})}

    def new(name: str) -> str:
        first, dot, rest = name.partition(".")
        return f"other_{first}{dot}{rest}" if first in own else name

    def node(spec: Mapping[str, Any]) -> dict[str, Any]:
        wiring = spec.get("in")
        if isinstance(wiring, str):
            return {**spec, "in": new(wiring)}
        return {**spec, "in": {p: new(e) for p, e in wiring.items()}} if wiring else dict(spec)

    made = dict(recipe)
    for section in ("nodes", "heads"):
        if section in made:
            made[section] = {new(name): node(spec) for name, spec in made[section].items()}
    if "keep" in made:
        made["keep"] = [new(name) for name in made["keep"]]
    return made


def _built(resolved: Resolved) -> tuple[GraphModel, str]:
    """The model on the meta device, or on the CPU where a block does not run there."""

    def once(device: str) -> None:
        model = build(resolved, device=device).eval()
        for values in _lengths(resolved, 1):
            model(**_inputs(resolved, values, device), outputs=resolved.outputs)

    device = device_for(once)
    return build(resolved, device=device).eval(), device


def _facts(resolved: Resolved) -> tuple[Any, ...]:
    nodes = [(n.name, n.entry.name, dict(n.args), dict(n.dims), dict(n.inputs)) for n in resolved.nodes.values()]
    edges = {name: (i.exact, i.integer, i.below, i.digest, i.conditions) for name, i in resolved.edges.items()}
    return nodes, edges, dict(resolved.heads), resolved.digest


def _difference(one: Any, two: Any) -> str:
    if isinstance(one, dict) and isinstance(two, dict):
        keys = [k for k in {**one, **two} if one.get(k) != two.get(k)]
        return ", ".join(f"{k}: {one.get(k)} and {two.get(k)}" for k in keys[:3])
    return f"{one} and {two}"


def _reversed(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {key: _reversed(value) for key, value in reversed(list(tree.items()))}
    return [_reversed(value) for value in tree] if isinstance(tree, list | tuple) else tree


def _before(resolved: Resolved, edges: Iterable[str]) -> set[str]:
    """The nodes before some edges, by a walk of its own."""
    makers = {edge: node for node in resolved.nodes.values() for edge in node.outputs}
    found: set[str] = set()
    queue = list(edges)
    while queue:
        node = makers.get(queue.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            queue.extend(node.inputs.values())
    return found


def _some(resolved: Resolved, most: int = 4) -> list[str]:
    edges = [edge for node in resolved.nodes.values() for edge in node.outputs]
    return edges[:: max(1, len(edges) // most)]


def _open(resolved: Resolved, name: str) -> Iterator[str]:
    for axis in resolved.inputs[name].axes:
        if not isinstance(axis, int):
            yield from (s for s in axis.symbols if s != "B")


def _inputs_of(resolved: Resolved, outputs: Iterable[str]) -> set[str]:
    read = {edge for node in resolved.needed(outputs) for edge in node.inputs.values()}
    return read.intersection(resolved.inputs)


def _lengths(
    resolved: Resolved,
    most: int,
    outputs: Iterable[str] | None = None,
    within: Callable[[Mapping[str, int]], bool] | None = None,
) -> list[dict[str, int]]:
    """Admitted lengths of the symbol L, with a batch of two."""
    rule = resolved.rule(resolved.outputs if outputs is None else outputs)
    found = [{"B": 2, "L": n} for n in islice(rule.lengths("L"), most)]
    return [v for v in found if rule.admits(v) and (within is None or within(v))]


def _inputs(resolved: Resolved, values: Mapping[str, int], device: str = "cpu") -> dict[str, Tensor]:
    made = {}
    for name, info in resolved.inputs.items():
        shape = [d if isinstance(d, int) else int(d.at(values)) for d in info.axes]
        if info.integer:
            first = torch.arange(shape[0]).view(-1, *(1,) * (len(shape) - 1))
            below = info.below or (2 if len(shape) == 1 else min(2, *values.values()))  # or below a length
            value = (first % below).expand(shape)
        elif len(shape) == 3 and shape[1] == 4:
            value = dna(shape[0], shape[2], 3)
        else:
            value = torch.randn(shape, generator=torch.Generator().manual_seed(3))
        made[name] = value.to(device)
    return made


def _ask(model: GraphModel, inputs: Mapping[str, Tensor], edge: str) -> Tensor:
    found: Tensor = model(**inputs, outputs=[edge])[edge]
    return found
