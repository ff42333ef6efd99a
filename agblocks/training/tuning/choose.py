"""Which parameters a term (`Tune`) names in a model."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import lru_cache

from torch import nn

from ...errors import near
from ...graph.model import GraphModel
from ..errors import RunError
from .terms import FULL, HEAD, NOT

_NUMBERED = re.compile(r"(layer|stage)(\d+)")


def graph_of(model: nn.Module) -> GraphModel:
    """The recipe's model: the module itself, or the one that it wraps. Errors: `RunError` if there is none."""
    for module in model.modules():
        if isinstance(module, GraphModel):
            return module
    raise RunError(f"a {type(model).__name__} holds no model of a recipe: it trains as it is, by tune=full alone")


def chosen(graph: GraphModel, terms: Iterable[str], said: str = "tune", heads: bool = True) -> list[nn.Parameter]:
    """The parameters that the terms name, each once, in the model's order. Errors: `RunError`, what would fit.

    said: whose terms, for messages. heads: whether `last:N` and `from:NAME` add the heads.
    """
    terms = tuple(terms)
    added = [term for term in terms if not term.startswith(NOT)]
    wanted: set[int] = set() if added else set(map(id, graph.parameters()))
    for term in added:
        wanted |= _named(graph, term, said, heads)
    for term in terms:
        if term.startswith(NOT):
            wanted -= _named(graph, term.removeprefix(NOT), said, False)
    return [p for p in graph.parameters() if id(p) in wanted]


def _named(graph: GraphModel, term: str, said: str, heads: bool) -> set[int]:
    kind, _, name = term.partition(":")
    added = list(graph.resolved.heads) if heads else []
    try:
        if term == FULL:
            return set(map(id, graph.parameters()))
        if term == HEAD:
            return _under(graph, _heads(graph))
        if kind == "last":
            return _under(graph, [*last(graph, int(name)), *added])
        if kind == "from":
            return _under(graph, [*following(graph, name), *added])
        if kind == "to":
            return _under(graph, preceding(graph, name))
        return _fitting(graph, term)
    except RunError as error:
        raise RunError(f"{said} {term}: {error}") from None


def _heads(graph: GraphModel) -> list[str]:
    if not graph.resolved.heads:
        raise RunError(f"the model {graph.resolved.name!r} has no heads")
    return list(graph.resolved.heads)


def last(graph: GraphModel, count: int) -> list[str]:
    """The last layers of the tower, or stages of an encoder, by the numbers in their names; all nodes of each.

    Errors: `RunError` if there are fewer, none, or towers to choose from.
    """
    found: dict[tuple[str, str], dict[int, list[str]]] = {}
    for node in graph.resolved.nodes:
        if node not in graph.resolved.heads:
            parts = node.split(".")
            for i, part in enumerate(parts):
                if numbered := _NUMBERED.fullmatch(part):
                    word, number = numbered[1], int(numbered[2])
                    found.setdefault((word, ".".join(parts[:i])), {}).setdefault(number, []).append(node)
                    break
    tower = [key for key in found if key[1].partition(".")[0] == "tower"]
    whole = not tower and any(node.partition(".")[0] == "tower" for node in graph.resolved.nodes)
    options = tower or [key for key in found if key[0] == "layer"] or list(found)
    if whole or not options:
        what = "tower is one node" if whole else "nodes are numbered neither layer1, layer2, ... nor stage1, ..."
        raise RunError(f"the model's {what}; name what trains: from:NAME, or patterns of names")
    if len(options) > 1:
        names = ", ".join(f"{where}.{word}*" for word, where in options)
        raise RunError(f"last of which? The model has {names}; name them: from:NAME, or patterns")
    (word, where), numbers = options[0], found[options[0]]
    if count > len(numbers):
        raise RunError(f"{where or graph.resolved.name} has {len(numbers)} {word}s")
    return [node for number in sorted(numbers)[-count:] for node in numbers[number]]


def following(graph: GraphModel, name: str) -> list[str]:
    """The nodes of that name or under it, and all that read them. Errors: `RunError` with near names."""
    nodes = graph.resolved.nodes
    found = _of_name(graph, name)
    edges: set[str] = set()
    for node in nodes.values():  # in the order they run
        if node.name in found or edges.intersection(node.inputs.values()):
            found.add(node.name)
            edges.update(node.outputs)
    return [node for node in nodes if node in found]


def preceding(graph: GraphModel, name: str) -> list[str]:
    """The nodes of that name or under it, and all that they read. Errors: `RunError` with near names."""
    nodes = graph.resolved.nodes
    found = _of_name(graph, name)
    edges: set[str] = set()
    for node in reversed([*nodes.values()]):
        if node.name in found or edges.intersection(node.outputs):
            found.add(node.name)
            edges.update(node.inputs.values())
    return [node for node in nodes if node in found]


def _of_name(graph: GraphModel, name: str) -> set[str]:
    nodes = graph.resolved.nodes
    found = {node for node in nodes if node == name or node.startswith(f"{name}.")}
    if not found:
        known = {".".join(node.split(".")[: n + 1]) for node in nodes for n in range(node.count(".") + 1)}
        pruned = " (it was dropped, as no head reads it)" if name in graph.resolved.pruned else ""
        raise RunError(f"the model has no such node{pruned}; {near(name, known)}")
    return found


def _under(graph: GraphModel, nodes: Iterable[str]) -> set[int]:
    return {id(p) for node in nodes for p in graph.get_submodule(node).parameters()}


def _fitting(graph: GraphModel, pattern: str) -> set[int]:
    found: set[int] = set()
    names = {name for name, _ in graph.named_modules(remove_duplicate=False) if name}
    parameters = dict(graph.named_parameters(remove_duplicate=False))
    fitting = {name for name in (*names, *parameters) if matches(pattern, name)}
    for name in fitting:
        found.update([id(parameters[name])] if name in parameters else map(id, graph.get_submodule(name).parameters()))
    if fitting and not found:
        raise RunError(f"{sorted(fitting)[0]} has no parameters")
    if not found:
        known = {name for name in (*names, *parameters) if name.count(".") <= pattern.count(".")}
        raise RunError(f"no name fits; {near(pattern, {FULL, HEAD, *known})}")
    return found


def matches(pattern: str, name: str) -> bool:
    """Whether a dotted name fits a pattern, whole: `*` within one part, `**` for any number of parts, none too."""
    return _fits(tuple(pattern.split(".")), tuple(name.split(".")))


@lru_cache(maxsize=4096)
def _fits(pattern: tuple[str, ...], name: tuple[str, ...]) -> bool:
    if not pattern:
        return not name
    if pattern[0] == "**":
        return any(_fits(pattern[1:], name[i:]) for i in range(len(name) + 1))
    return bool(name) and fnmatch.fnmatchcase(name[0], pattern[0]) and _fits(pattern[1:], name[1:])
