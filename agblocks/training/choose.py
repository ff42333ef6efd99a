"""Which parameters a term of a policy (`Tune`) names in a model."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import lru_cache

from torch import nn

from ..errors import near
from ..graph.model import GraphModel
from .errors import RunError
from .tune import FULL, HEAD

_NUMBERED = re.compile(r"(layer|stage)(\d+)")


def graph_of(model: nn.Module) -> GraphModel:
    """The recipe's model: the module itself, or the one that it wraps. Errors: `RunError` if there is none."""
    for module in model.modules():
        if isinstance(module, GraphModel):
            return module
    raise RunError(f"a {type(model).__name__} holds no model of a recipe: it trains as it is, by tune=full alone")


def chosen(graph: GraphModel, terms: Iterable[str]) -> list[nn.Parameter]:
    """The parameters that the terms name, each once, in the model's order. Errors: `RunError`, what would fit."""
    wanted: set[int] = set()
    for term in terms:
        kind, _, name = term.partition(":")
        if term == FULL:
            wanted.update(map(id, graph.parameters()))
        elif term == HEAD:
            wanted.update(_under(graph, _heads(graph, term)))
        elif kind == "last":
            wanted.update(_under(graph, [*last(graph, int(name)), *graph.resolved.heads]))
        elif kind == "from":
            wanted.update(_under(graph, [*following(graph, name), *graph.resolved.heads]))
        else:
            wanted.update(_fitting(graph, term))
    return [p for p in graph.parameters() if id(p) in wanted]


def _heads(graph: GraphModel, term: str) -> list[str]:
    if not graph.resolved.heads:
        raise RunError(f"tune {term}: the model {graph.resolved.name!r} has no heads")
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
        raise RunError(f"tune last:{count}: the model's {what}; name what trains: from:NAME, or patterns of names")
    if len(options) > 1:
        names = ", ".join(f"{where}.{word}*" for word, where in options)
        raise RunError(f"tune last:{count}: last of which? The model has {names}; name them: from:NAME, or patterns")
    (word, where), numbers = options[0], found[options[0]]
    if count > len(numbers):
        raise RunError(f"tune last:{count}: {where or graph.resolved.name} has {len(numbers)} {word}s")
    return [node for number in sorted(numbers)[-count:] for node in numbers[number]]


def following(graph: GraphModel, name: str) -> list[str]:
    """The nodes of that name or under it, and all that read them. Errors: `RunError` with near names."""
    nodes = graph.resolved.nodes
    found = {node for node in nodes if node == name or node.startswith(f"{name}.")}
    if not found:
        known = {".".join(node.split(".")[: n + 1]) for node in nodes for n in range(node.count(".") + 1)}
        pruned = " (it was dropped, as no head reads it)" if name in graph.resolved.pruned else ""
        raise RunError(f"tune from:{name}: the model has no such node{pruned}; {near(name, known)}")
    edges: set[str] = set()
    for node in nodes.values():  # in the order they run
        if node.name in found or edges.intersection(node.inputs.values()):
            found.add(node.name)
            edges.update(node.outputs)
    return [node for node in nodes if node in found]


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
        raise RunError(f"tune {pattern}: {sorted(fitting)[0]} has no parameters")
    if not found:
        known = {name for name in (*names, *parameters) if name.count(".") <= pattern.count(".")}
        raise RunError(f"tune {pattern}: no name fits; {near(pattern, {FULL, HEAD, *known})}")
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
