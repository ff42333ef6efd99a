"""A resolved recipe cut at edges: what comes before them, and what reads them. Both are recipes again.

What is frozen lies before the cut and runs once; what trains lies behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import InputError
from .resolve import resolve
from .resolved import Resolved, ResolvedNode

T = TypeVar("T")


@dataclass(frozen=True)
class Cut:
    """Two recipes that follow each other: `prefix` computes `edges`, `suffix` has them as inputs, by the same names.

    Each node of the whole that a head or `keep` needs is in exactly one of them, under its name; so is each head. A
    suffix's edges keep the shapes they have in the whole, over the symbols of its inputs, and with them its length
    rules; every edge keeps its digest, so that weights, features and adapters stay bound to it.
    """

    prefix: Resolved
    suffix: Resolved
    edges: tuple[str, ...]

    def split(self, state: Mapping[str, T]) -> tuple[dict[str, T], dict[str, T]]:
        """A whole model's tensors (or anything else by parameter's name), those of the prefix and of the suffix."""
        parts: tuple[dict[str, T], dict[str, T]] = ({}, {})
        for name, value in state.items():
            for resolved, part in zip((self.prefix, self.suffix), parts, strict=True):
                if _owned(name, resolved):
                    part[name] = value
        return parts


def cut(resolved: Resolved, edges: Iterable[str]) -> Cut:
    """Cut a recipe below these edges: everything that they need is the prefix, everything else the suffix.

    Whatever the suffix reads of the prefix becomes an input of it, so `Cut.edges` may hold more than was asked for: of
    a U-Net cut at its sixth stage all tracks that skip past that. The recipe's own inputs (`organism`) are inputs of
    whichever part reads them, or of both. The recipe's adapters stay with the suffix.
    Errors: `InputError` for edges that there are not, with near names, or that were dropped, for inputs, and where
    nothing would be left below the cut.
    Use when: a part is frozen: the prefix runs once a sequence, `agblocks.build(suffix)` is what trains.
    """
    asked = dict.fromkeys(resolved.edge(name) for name in ([edges] if isinstance(edges, str) else edges))
    if not asked:
        raise InputError("a cut needs at least one edge")
    for name in asked:
        if name in resolved.inputs:
            raise InputError(f"{name!r} is an input: nothing comes before it")
    before = {node.name for node in resolved.needed(asked)}
    return _between(resolved, before, tuple(asked))


def boundary(resolved: Resolved, still: Iterable[str]) -> tuple[str, ...]:
    """The edges to cut at where these nodes are to run once; none where no node can.

    still: names of nodes (frozen ones). A node that reads one which is not among them can't lie before the cut, nor
    can a head.
    """
    before = set(still) - set(resolved.heads)
    made: set[str] = set()
    for node in resolved.nodes.values():  # in the order they run
        if node.name in before and all(edge in made or edge in resolved.inputs for edge in node.inputs.values()):
            made.update(node.outputs)
        else:
            before.discard(node.name)
    return _crossing(resolved, before)


def _crossing(resolved: Resolved, before: set[str]) -> tuple[str, ...]:
    made = [edge for name in before for edge in resolved.nodes[name].outputs]
    read = {e for node in resolved.nodes.values() if node.name not in before for e in node.inputs.values()}
    return tuple(edge for edge in resolved.edges if edge in read.intersection(made))


def _between(resolved: Resolved, before: set[str], asked: tuple[str, ...]) -> Cut:
    after = [node for node in resolved.nodes.values() if node.name not in before]
    heads = [head for head in resolved.heads if head not in before]
    made = {edge for name in before for edge in resolved.nodes[name].outputs}
    kept = [resolved.edge(name) for name in resolved.keep]
    if not heads and not [edge for edge in kept if edge not in made]:
        what = "heads" if resolved.heads else "edges that are kept"
        raise InputError(
            f"nothing is left below {', '.join(map(repr, asked))}: the recipe's {what} "
            f"({', '.join(resolved.heads or resolved.keep)}) all come before it"
        )
    crossing = _crossing(resolved, before)
    crossing = tuple(sorted(crossing, key=lambda edge: edge not in asked))
    own = [edge for edge in kept if edge in made and edge not in resolved.heads]
    prefix = _prefix(resolved, before, [*dict.fromkeys((*crossing, *asked, *own))])
    suffix = _suffix(resolved, after, heads, crossing, [edge for edge in kept if edge not in made])
    return Cut(prefix, suffix, crossing)


def _prefix(resolved: Resolved, before: set[str], keep: list[str]) -> Resolved:
    recipe = _without(resolved.recipe, "heads", "keep", "cut", "adapters")
    heads = {name: head for name, head in resolved.recipe.get("heads", {}).items() if name in before}
    read = {edge for name in before for edge in resolved.nodes[name].inputs.values()}
    made: dict[str, Any] = {**recipe, **({"heads": heads} if heads else {})}
    made["keep"] = [edge for edge in keep if edge not in heads]
    made["cut"] = [edge for edge in resolved.cut if edge in read]
    return resolve({key: value for key, value in made.items() if value != []})


def _suffix(
    resolved: Resolved, after: list[ResolvedNode], heads: list[str], crossing: tuple[str, ...], keep: list[str]
) -> Resolved:
    recipe = _without(resolved.recipe, "heads", "nodes", "keep", "cut")
    written = resolved.recipe.get("heads", {})
    read = {edge for node in after for edge in node.inputs.values()}
    # A head that something reads becomes a node: its shape is still needed, its loss is the prefix's.
    nodes = {
        **resolved.recipe.get("nodes", {}),
        **{name: _without(head, "weight") for name, head in written.items() if name not in heads},
    }
    made: dict[str, Any] = {**recipe, "nodes": nodes, "heads": {name: written[name] for name in heads}, "keep": keep}
    made["cut"] = [*(edge for edge in resolved.cut if edge in read), *crossing]
    return resolve({key: value for key, value in made.items() if value not in ({}, [])})


def _without(mapping: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in mapping.items() if key not in keys}


def _owned(name: str, resolved: Resolved) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:end]) in resolved.nodes for end in range(1, len(parts) + 1))
