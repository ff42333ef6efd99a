"""A recipe whose every shape is known: what resolving gives and building takes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError, Mark, near
from . import adapter_spec, digest
from .infer import EdgeInfo
from .registry import Entry
from .rules import LengthRule


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
    """A resolved recipe. `recipe` is the same one, self-contained and without bases, to store with a model.

    `adapters` are what `agblocks.adapt` attaches unless told; they are no part of the model, nor of its digest.
    """

    name: str
    inputs: Mapping[str, EdgeInfo]
    nodes: Mapping[str, ResolvedNode]  # in the order they run
    edges: Mapping[str, EdgeInfo]  # inputs and every output of every node
    names: Mapping[str, str]  # further names of edges: composites and their ports
    heads: Mapping[str, float]  # weights of their losses
    keep: tuple[str, ...]
    pruned: tuple[str, ...]
    recipe: Mapping[str, Any]
    adapters: tuple[adapter_spec.AdapterSpec, ...] = ()
    cut: tuple[str, ...] = ()  # edges that are inputs here, instead of being computed

    def __deepcopy__(self, memo: dict[int, Any]) -> Resolved:
        return self  # nothing in it changes

    @property
    def digest(self) -> str:
        """What the heads compute, whatever the nodes are called."""
        made = [self.edges[self.edge(name)].digest for name in (self.heads or self.keep)]
        return digest.of_recipe([*made, *(f"cut {self.edges[name].digest}" for name in self.cut)])

    @property
    def adapters_digest(self) -> str:
        """What the recipe's adapters are, by themselves."""
        return adapter_spec.digest(self.adapters)

    def edge(self, name: str) -> str:
        """The edge that a name stands for. Raises InputError with near names, or how to keep a pruned one."""
        found = self.names.get(name, name)
        if found in self.edges:
            return found
        if self.cut and name in self.pruned:
            raise InputError(
                f"{name!r} is not computed: this is what reads {', '.join(map(repr, self.cut))}, where a recipe was cut"
            )
        if name in self.pruned or any(name.startswith(f"{gone}.") for gone in self.dropped):
            raise InputError(
                f"{name!r} was dropped, as no head reads it; keep it by 'keep: [{name}]' in the recipe or "
                f"build(..., keep=[{name!r}])"
            )
        raise InputError(f"there is no output {name!r}; {near(name, self.outputs)}")

    @property
    def dropped(self) -> tuple[str, ...]:
        """Nodes and composites of which nothing is left."""
        return tuple(n for n in self.pruned if not any(edge.startswith(f"{n}.") for edge in self.edges))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Every name that the model can be asked for: heads first, then other edges."""
        rest = [name for name in (*self.names, *self.edges) if name not in self.inputs]
        return tuple(dict.fromkeys((*self.heads, *rest)))

    def info(self, name: str) -> EdgeInfo:
        """What is known of an edge, under any of its names."""
        return self.edges[self.edge(name)]

    def rule(self, outputs: Iterable[str] | None = None) -> LengthRule:
        """Which input lengths fit for these outputs (default: all heads)."""
        wanted = [self.info(name) for name in ((self.heads or self.keep) if outputs is None else outputs)]
        return LengthRule(c for edge in wanted for c in edge.conditions)

    def needed(self, outputs: Iterable[str]) -> list[ResolvedNode]:
        """The nodes that these outputs need, in the order they run."""
        return reached(self.nodes.values(), {self.edge(name) for name in outputs})


def reached(
    nodes: Iterable[ResolvedNode], wanted: set[str], given: Collection[str] = frozenset()
) -> list[ResolvedNode]:
    """Of nodes in running order, those that the wanted edges need. Adds to `wanted` every edge that they read.

    `given` are edges that are there already.
    """
    found = []
    for node in reversed(list(nodes)):
        if wanted.intersection(node.outputs).difference(given):
            wanted.update(node.inputs.values())
            found.append(node)
    return found[::-1]
