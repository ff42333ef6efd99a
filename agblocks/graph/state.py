"""What resolving knows so far, and what went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from ..errors import Mark
from .find import Source
from .forms import Findings
from .infer import EdgeInfo
from .nodes import Edge, Pyramid, stride_of
from .resolved import ResolvedNode
from .schema import NodeSpec, Verb
from .source import Tree


@dataclass
class State:
    """Edges, names, pyramids and nodes as they become known, and the findings. One resolving has one."""

    source: Source
    findings: Findings = field(default_factory=Findings)
    stated: Mapping[str, Tree] = field(default_factory=dict)  # the recipe's inputs as they are written
    edges: dict[str, EdgeInfo] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    stages: dict[str, list[str]] = field(default_factory=dict)  # composite -> its stage tracks
    nodes: dict[str, ResolvedNode] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)  # nodes that failed: what reads them is not reported again
    touched: dict[str, Verb] = field(default_factory=dict)  # inner nodes that a verb changed
    removed: dict[str, Verb] = field(default_factory=dict)
    opened: int = 0  # nested recipes so far

    def fail(self, spec: NodeSpec, message: str, mark: Mark | None = None, path: str = "", *notes: str) -> None:
        """A finding at a node, with the verbs that changed the node; the node counts as broken."""
        place = f"{spec.path} ({spec.mark})" if spec.mark else spec.path
        verbs = dict.fromkeys(str(v) for v in spec.touched if v.mark is None or v.mark != spec.mark)
        touched = [f"{place} was {', '.join(verbs)}"] if verbs else []
        self.findings.find(message, mark or spec.mark, path or spec.path, *notes, *touched)
        self.broken.add(spec.name)

    def is_broken(self, name: str) -> bool:
        """Whether a name is, lies inside, or holds a node that failed."""
        return any(name == b or name.startswith(f"{b}.") or b.startswith(f"{name}.") for b in self.broken)

    def known(self) -> list[str]:
        """Every name an edge has so far."""
        return [*self.names, *self.edges]

    def pyramid(self, name: str) -> Pyramid:
        """The tracks of a composite by stride; of several at one stride the last."""
        tracks: dict[Fraction, Edge] = {}
        for edge in self.stages[name]:
            stride = stride_of(self.edges[edge].axes)
            if stride is not None:
                tracks[stride] = Edge(edge, self.edges[edge].axes)
        return Pyramid(tracks, name)

    def show(self, spec: NodeSpec, ports: Mapping[str, str], stages: list[str]) -> None:
        """Give a composite's edges their outside names, and its pyramid its tracks."""
        for port, edge in ports.items():
            name = spec.name if port == "out" else f"{spec.name}.{port}"
            real = self.names.get(edge, edge)
            if real in self.edges:
                self.names[name] = real
            elif edge in self.removed:
                self.removed[name] = self.removed[edge]
            elif not self.is_broken(edge):
                self.fail(spec, f"{spec.name!r} shows {edge!r}, which is no edge of it")
        self.stages[spec.name] = [real for stage in stages if (real := self.names.get(stage, stage)) in self.edges]
