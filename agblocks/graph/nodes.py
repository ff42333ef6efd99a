"""What a composite works with: edges coming in, nodes going out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from ..errors import Misfit, near
from .dims import Dim, Length

MOST_NODES = 2_000


@dataclass(frozen=True)
class Edge:
    """A value between nodes. Its shape is known where it enters a composite, not where `Nodes.add` made it."""

    name: str
    axes: tuple[Dim, ...] | None = None

    @property
    def shape(self) -> tuple[Dim, ...]:
        if self.axes is None:
            raise Misfit(f"the shape of {self.name!r} is not known while its composite expands")
        return self.axes

    @property
    def channels(self) -> int:
        channels = self.shape[1] if len(self.shape) > 1 else None
        if not isinstance(channels, int):
            raise Misfit(f"{self.name!r} has no channels")
        return channels

    @property
    def stride(self) -> Fraction:
        """Input positions per position of this track."""
        found = stride_of(self.shape)
        if found is None:
            raise Misfit(f"{self.name!r} has no stride: it is no track over the input's positions")
        return found


def stride_of(axes: tuple[Dim, ...]) -> Fraction | None:
    """Input positions per position of a track; None for what has no positions."""
    length = axes[2] if len(axes) == 3 else None
    if not isinstance(length, Length) or len(length.slopes) != 1:
        return None
    (slope,) = length.slopes.values()
    return 1 / slope if slope > 0 else None


class Pyramid(Mapping[Fraction, Edge]):
    """A composite's stage tracks by stride: what a U-Net decoder takes its skips from."""

    def __init__(self, tracks: Mapping[Fraction, Edge], source: str = ""):
        self._tracks = dict(sorted(tracks.items()))
        self.source = source

    def __getitem__(self, stride: Fraction | int) -> Edge:
        try:
            return self._tracks[Fraction(stride)]
        except KeyError:
            there = ", ".join(map(str, self._tracks)) or "none"
            raise Misfit(f"{self.source!r} has no stage at stride {stride}; it has strides {there}") from None

    def __contains__(self, stride: object) -> bool:
        return stride in self._tracks

    def __iter__(self) -> Iterator[Fraction]:
        return iter(self._tracks)

    def __len__(self) -> int:
        return len(self._tracks)


@dataclass(frozen=True)
class Member:
    """One node inside a composite. `place` is the path in the composite's arguments that asked for it."""

    name: str
    block: str
    inputs: Mapping[str, Edge]
    args: Mapping[str, Any]
    place: tuple[str | int, ...] = ()


@dataclass
class Nodes:
    """The nodes a composite stands for, in order, and which of their edges it shows outside."""

    members: dict[str, Member] = field(default_factory=dict)
    stages: list[Edge] = field(default_factory=list)
    ports: dict[str, Edge] = field(default_factory=dict)

    def add(
        self,
        name: str,
        block: str,
        inputs: Mapping[str, Edge | None],
        *,
        place: tuple[str | int, ...] = (),
        arguments: Mapping[str, Any] | None = None,
        **args: Any,
    ) -> Edge:
        """Add a node and return its edge. Inputs that are None are left out. `edge(node, port)` names its ports."""
        if len(self.members) >= MOST_NODES:
            raise Misfit(f"more than {MOST_NODES} nodes, which no model here needs")
        if name in self.members:
            raise Misfit(f"two nodes of the composite are named {name!r}")
        wired = {port: edge for port, edge in inputs.items() if edge is not None}
        self.members[name] = Member(name, block, wired, {**(arguments or {}), **args}, place)
        return Edge(f".{name}")

    def edge(self, node: Edge, port: str) -> Edge:
        """A further output of an added node: `nodes.edge(tower, "pair")`."""
        if node.name[1:] not in self.members:
            raise Misfit(f"{node.name!r} is no node of this composite; {near(node.name, self.members)}")
        return Edge(f"{node.name}.{port}")

    def stage(self, track: Edge) -> None:
        """Show an edge as a track of the composite's pyramid; its stride is read once shapes are known."""
        self.stages.append(track)

    def out(self, edge: Edge) -> None:
        """The composite's own edge."""
        self.port("out", edge)

    def port(self, name: str, edge: Edge) -> None:
        """A further edge of the composite, `<composite>.<name>`."""
        if name in self.ports or name in self.members:
            raise Misfit(f"{name!r} names two edges of the composite")
        self.ports[name] = edge
