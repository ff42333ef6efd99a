"""Enformer's convolutional encoder at any width and depth."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, MultipleOf

from agblocks.graph import Edge, Misfit, Nodes, composite
from agblocks.graph.types import Odd, Positive
from agblocks.layers.widths import geometric_widths

Width = Annotated[int, Ge(2), Le(65536), MultipleOf(2)]
Stages = Annotated[int, Ge(2), Le(32)]


@composite("encoder.enformer", "dna: B 4 L")
def enformer(
    dna: Edge,
    *,
    channels: Width = 1536,
    divisible_by: Positive = 128,
    stages: Stages = 7,
    width: Odd = 15,
    kernel: Odd = 5,
) -> Nodes:
    """A wide convolution, then norm-activation-convolutions, each with a residual pointwise one, and attention pools.

    The first stage has half of `channels`; from there widths grow geometrically to `channels`, rounded to multiples of
    `divisible_by`. Stage i has stride 2 ** (i - 1).
    Shapes: dna (batch, 4, L) -> (batch, channels, ceil(L / 2 ** stages)).
    Source: Enformer, Avsec et al. 2021: 50,877,952 parameters by default; a position sees 646 bp.
    """
    try:
        widths = geometric_widths(channels // 2, channels, stages - 1, divisible_by)
    except ValueError as error:
        raise Misfit(f"{error} ('divisible_by')") from None
    nodes = Nodes()
    x = dna
    for index, size in enumerate([channels // 2, *widths]):
        x = nodes.add(
            f"stage{index + 1}", "encoder.stage", {"x": x}, channels=size, kernel=kernel if index else width,
            pool="attention" if index else "none", first=index == 0, pointwise=True,
        )  # fmt: skip
        nodes.stage(x)
    nodes.out(nodes.add("pool", "pool.attention", {"x": x}, pool=2))
    return nodes
