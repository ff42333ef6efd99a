"""LegNet's stages without pools: a convolutional core of one resolution."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Len

from agblocks.graph import Edge, Nodes, composite
from agblocks.graph.types import Odd, Positive
from agblocks.layers import Initial


@composite("tower.legnet", "x: B C L")
def legnet(
    x: Edge,
    *,
    channels: Annotated[list[Positive], Len(1, 64)] = [128, 128, 64, 64, 64, 64],  # noqa: B006
    kernel: Odd = 7,
    expand: Positive = 4,
    group: Positive = 2,
    initial: Initial = "fan_out",
) -> Nodes:
    """A squeeze-excite bottleneck and a mixing convolution for each of `channels`, all at the resolution of `x`.

    Shapes: x (batch, C, length) -> (batch, channels[-1], length). Nodes: `stage1` ...
    Source: Autosome's core in the DREAM nets: kernel 7, expanded width by the channels that come out, two channels a
    group, a squeeze to a quarter of those that go in, the input in front of the bottleneck where both are joined.
    """
    nodes = Nodes()
    for index, width in enumerate(channels):
        x = nodes.add(
            f"stage{index + 1}", "conv.legnet", {"x": x},
            channels=width, kernel=kernel, expand=expand, expand_from="out", group=group, squeeze_from="in",
            input_first=True, initial=initial,
        )  # fmt: skip
    nodes.out(x)
    return nodes
