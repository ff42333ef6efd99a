"""Borzoi's convolutional encoder at any width and depth."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

from agblocks.graph import Edge, Misfit, Nodes, composite
from agblocks.graph.types import Odd, Positive
from agblocks.layers import Activation, Eps
from agblocks.layers.widths import geometric_widths

Stages = Annotated[int, Ge(2), Le(32)]


@composite("encoder.borzoi", "dna: B 4 L")
def borzoi(
    dna: Edge,
    *,
    stem: Positive = 512,
    first: Positive = 608,
    channels: Positive = 1536,
    divisible_by: Positive = 32,
    stages: Stages = 7,
    width: Odd = 15,
    kernel: Odd = 5,
    activation: Activation = "gelu_tanh",
    eps: Eps = 1e-3,
) -> Nodes:
    """A wide convolution to `stem` channels, then norm-activation-convolutions between max-pools.

    After the stem, widths grow geometrically from `first` to `channels`, rounded to multiples of `divisible_by`. Pools
    leave a rest out, so the length is rounded down at each. Stage i has stride 2 ** (i - 1); Borzoi's decoder skips
    from `stage7` (64) and `stage6` (32).
    Shapes: dna (batch, 4, L) -> (batch, channels, L / 2 ** stages, rounded down at each pool).
    Source: Borzoi, Linder et al. 2025: 28,458,400 parameters by default; a position sees 646 bp.
    """
    try:
        widths = geometric_widths(first, channels, stages - 1, divisible_by)
    except ValueError as error:
        raise Misfit(f"{error} ('divisible_by')") from None
    nodes = Nodes()
    x = dna
    for index, size in enumerate([stem, *widths]):
        x = nodes.add(
            f"stage{index + 1}", "encoder.stage", {"x": x}, channels=size, kernel=kernel if index else width,
            pool="max_floor" if index else "none", first=index == 0, activation=activation, eps=eps,
        )  # fmt: skip
        nodes.stage(x)
    nodes.out(nodes.add("pool", "pool.max_floor", {"x": x}, pool=2))
    return nodes
