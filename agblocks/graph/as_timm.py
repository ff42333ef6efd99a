"""What timm asks of a model: features, layer depths, gradient checkpointing."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

from ..errors import InputError, near
from .nodes import stride_of
from .resolved import Resolved


class AsTimm(nn.Module):
    """The side of a built model that timm's layer decay, schedules and feature extractors use."""

    resolved: Resolved
    _checkpointed: frozenset[str]

    def set_grad_checkpointing(self, enable: bool = True, nodes: Iterable[str] = ("*",)) -> None:
        """Keep only what nodes hand to each other for the backward pass, and work out their insides again there.

        `nodes` are patterns of node names, like `tower` or `tower.layer*`; others stay as they are. Gradients and
        running statistics are the same; memory falls to the edges and the largest node, and a training step takes about
        a third longer. Raises InputError for a pattern that fits no node.
        """
        names = list(self.resolved.nodes)
        chosen: set[str] = set()
        for pattern in [nodes] if isinstance(nodes, str) else nodes:
            fitting = {*fnmatch.filter(names, pattern), *fnmatch.filter(names, f"{pattern}.*")}
            if not fitting:
                raise InputError(f"no node fits {pattern!r}; {near(pattern, names)}")
            chosen.update(fitting)
        kept = set(self._checkpointed)
        self._checkpointed = frozenset(kept | chosen if enable else kept - chosen)

    @property
    def feature_info(self) -> list[dict[str, Any]]:
        """Every track of the model, as timm lists features: channels, reduction (its stride) and module."""
        found = []
        for node in self.resolved.nodes.values():
            info = self.resolved.edges[node.outputs[0]]
            stride = stride_of(info.axes)
            if stride is not None and node.name not in self.resolved.heads:
                reduction = int(stride) if stride.denominator == 1 else float(stride)
                found.append({"num_chs": info.axes[1], "reduction": reduction, "module": node.name})
        return found

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """For timm's layer decay: a parameter's layer, by how many nodes with parameters lie before its node.

        Nodes side by side share a layer. `coarse` gives one layer a top-level name.
        """
        depth = self._depths()
        if coarse:
            tops: dict[str, int] = {}
            for name in depth:
                tops.setdefault(name.partition(".")[0], len(tops))
            depth = {name: tops[name.partition(".")[0]] for name in depth}
        names = sorted(depth, key=len, reverse=True)

        def layer(parameter: str) -> int:
            return next(depth[name] for name in names if parameter == name or parameter.startswith(f"{name}."))

        return layer

    def _depths(self) -> dict[str, int]:
        depth: dict[str, int] = {}
        reached: dict[str, int] = {}
        for node in self.resolved.nodes.values():
            here = max((reached.get(edge, 0) for edge in node.inputs.values()), default=0)
            weighs = any(True for _ in self.get_submodule(node.name).parameters())
            depth[node.name] = here
            for edge in node.outputs:
                reached[edge] = here + weighs
        return depth

    def no_weight_decay(self) -> set[str]:
        """For timm: parameters that no optimiser should decay beyond the one-dimensional ones. None here."""
        return set()
