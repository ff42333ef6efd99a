"""MPRALegNet's encoder at any width and depth."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Len

from agblocks.graph import Edge, Nodes, composite
from agblocks.graph.types import Odd, Positive, Probability
from agblocks.layers import GroupedNorm, Initial, Norm


@composite("encoder.legnet", "x: B C L")
def legnet(
    x: Edge,
    *,
    stem: Positive = 64,
    stem_kernel: Odd = 11,
    channels: Annotated[list[Positive], Len(1, 16)] = [80, 96, 112, 128],  # noqa: B006
    kernel: Odd = 9,
    expand: Positive = 4,
    stem_norm: Norm = "batch",
    norm: GroupedNorm = "batch",
    dropout: Probability = 0.0,
    drop_path: Probability = 0.0,
    initial: Initial = "fan_out",
) -> Nodes:
    """A stem, then a squeeze-excite stage for each of `channels`, a max-pool after each.

    Shapes: x (batch, C, L) -> (batch, channels[-1], L / 2 ** stages, rounded down at each pool). Stage i has stride
    2 ** (i - 1); stem and first stage share stride 1, and the pyramid has the later one.
    Source: MPRALegNet (kernels 11 and 9; 5 and 3 in its other published configuration).
    """
    nodes = Nodes()
    x = nodes.add("stem", "conv.stem", {"x": x}, channels=stem, kernel=stem_kernel, norm=stem_norm, initial=initial)
    for index, width in enumerate(channels):
        x = nodes.add(
            f"stage{index + 1}",
            "conv.legnet",
            {"x": x},
            place=(),
            channels=width,
            kernel=kernel,
            pool=2 if index else 1,
            expand=expand,
            norm=norm,
            dropout=dropout,
            drop_path=drop_path,
            initial=initial,
        )
        nodes.stage(x)
    nodes.out(nodes.add("pool", "pool.max_floor", {"x": x}, pool=2))
    return nodes
