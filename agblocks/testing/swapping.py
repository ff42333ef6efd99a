"""An encoder, a tower, a decoder and heads put together the obvious way, whether they fit or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

from ..errors import Misfit, RecipeError
from ..graph.dims import symbol
from ..graph.nodes import Edge, Nodes, Pyramid
from ..graph.registry import REQUIRED, Entry, entries, lookup
from ..graph.resolve import Resolved, resolve

FAMILIES = ("encoder", "tower", "decoder", "head")
STAGES = [{"block": "conv.stem"}, {"block": "conv.down"}, {"block": "conv.down"}]
TYPICAL = {
    "channels": 768, "tracks": 128, "target_length": 896, "length": 230, "crop": 16, "stages": STAGES,
}  # fmt: skip


def typical(entry: Entry) -> dict[str, Any]:
    """Values for the arguments that a recipe has to say; the others keep their defaults."""
    needed = [name for name, default in entry.defaults.items() if default is REQUIRED]
    return {name: TYPICAL.get(name, 8) for name in needed}


@cache
def parts(family: str) -> tuple[str, ...]:
    """The names of a family that agblocks registers, those aside of which others of the family are made."""
    named = [e for e in entries().values() if e.name.startswith(f"{family}.") and _own(e)]
    inner = {block for entry in named if entry.kind == "composite" for block in _inside(entry)}
    return tuple(sorted(entry.name for entry in named if entry.name not in inner))


@dataclass(frozen=True)
class Parts:
    """What a model is put together from; a tower or a decoder may be missing. `args` are by node: `encoder`, ...

    A node reads what stands before it: the tower the encoder, the decoder the tower and the encoder's pyramid, heads
    (`head1`, ...) the last track, or the tower's pair map where they want one. Labels are inputs of their own names.
    """

    encoder: str
    tower: str | None = None
    decoder: str | None = None
    heads: tuple[str, ...] = ()
    args: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    length: str = "L"

    @property
    def trunk(self) -> dict[str, str]:
        """Block by node, in order, heads aside."""
        named = {"encoder": self.encoder, "tower": self.tower, "decoder": self.decoder}
        return {name: block for name, block in named.items() if block is not None}

    def recipe(self) -> dict[str, Any]:
        """The recipe; without heads, it keeps the last node."""
        inputs = {"dna": f"B 4 {self.length}"}
        made: dict[str, Any] = {"recipe": 1, "inputs": inputs, "nodes": {}}
        last = "dna"
        for name, block in self.trunk.items():
            made["nodes"][name] = self._node(name, block, last, inputs, None)
            last = name
        if not self.heads:
            return {**made, "keep": [last]}
        pair = _pair_map(made)
        named = {f"head{number}": block for number, block in enumerate(self.heads, 1)}
        made["heads"] = {name: self._node(name, block, last, inputs, pair) for name, block in named.items()}
        return made

    def _node(self, name: str, block: str, last: str, inputs: dict[str, str], pair: str | None) -> dict[str, Any]:
        entry, wiring = lookup(block), {}
        for port in entry.signature.inputs:
            if port.pyramid:
                wiring[port.name] = "encoder"
            elif port.optional:
                continue
            elif len(port.axes) == 1:
                inputs[port.name] = "B"
                wiring[port.name] = port.name
            else:
                wiring[port.name] = pair if pair is not None and port.kind == "pair map" else last
        node: dict[str, Any] = {"block": block, "in": wiring}
        if args := self.args.get(name, typical(entry)):
            node["args"] = dict(args)
        return node

    def fit(self) -> Resolved | RecipeError:
        """What resolving says of these parts."""
        try:
            return resolve(self.recipe())
        except RecipeError as error:
            return error


def _pair_map(recipe: Mapping[str, Any]) -> str | None:
    """The name of the tower's pair map, where it shows one."""
    if "tower" not in recipe["nodes"]:
        return None
    try:
        nodes = {name: node for name, node in recipe["nodes"].items() if name != "decoder"}
        resolved = resolve({**recipe, "nodes": nodes, "keep": ["tower", "tower.*"]})
    except RecipeError:
        return None
    shown = [name for name in ("tower", "tower.pair") if name in resolved.outputs]
    return next((name for name in shown if len(resolved.info(name).axes) == 4), None)


def _inside(entry: Entry) -> set[str]:
    """The blocks and composites that a composite is made of."""
    batch, length = symbol("B"), symbol("L")

    def track(stride: int, channels: int) -> Edge:
        return Edge(f"at{stride}", (batch, channels, length.exactly(stride)))

    given: list[Edge | Pyramid] = []
    for port in entry.signature.inputs:
        if port.pyramid:
            given.append(Pyramid({Fraction(2**i): track(2**i, 64) for i in range(7)}))
        else:
            given.append(track(1, 4) if entry.name.startswith("encoder.") else track(128, 1536))
    try:
        nodes: Nodes = entry.target(*given, **{**entry.defaults, **typical(entry)})
    except Misfit:
        return set()
    return {member.block for member in nodes.members.values()}


def _own(entry: Entry) -> bool:
    return str(entry.target.__module__).startswith("agblocks.")
