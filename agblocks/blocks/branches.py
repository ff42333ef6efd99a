"""Convolutions of several widths side by side."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Len

from agblocks.graph import Edge, Misfit, Nodes, composite
from agblocks.graph.types import Odd, Positive, Probability
from agblocks.layers import Activation


@composite("conv.branches", "x: B C L")
def branches(
    x: Edge,
    *,
    channels: Positive = 320,
    kernels: Annotated[list[Odd], Len(1, 8)] = [9, 15],  # noqa: B006
    activation: Activation = "relu",
    dropout: Probability = 0.2,
    joined_dropout: Probability = 0.0,
) -> Nodes:
    """Convolutions of different widths over one track, each with bias, activation and dropout, side by side.

    Shapes: x (batch, C, length) -> (batch, channels, length); every kernel gives an equal share of the channels.
    Nodes: `width9`, `width15`, ... and what joins them. `joined_dropout` thins what was joined.
    Source: BHI's first layers in the DREAM nets (one-hot DNA with a reverse flag to 320 channels), and the second half
    of BHI's core behind its LSTM, with `joined_dropout: 0.5`. Both have a max-pool between activation and dropout that
    is of size 1 in the human models, so there is none here.
    """
    if channels % len(kernels):
        raise Misfit(f"{channels} channels do not share out over {len(kernels)} kernels")
    if len(set(kernels)) < len(kernels):
        raise Misfit(f"a width comes twice in 'kernels' {kernels}")
    nodes = Nodes()
    joined: Edge | None = None
    for kernel in kernels:
        branch = nodes.add(
            f"width{kernel}", "conv.stem", {"x": x},
            channels=channels // len(kernels), kernel=kernel, norm="none", activation=activation, dropout=dropout,
        )  # fmt: skip
        joined = branch if joined is None else nodes.add(f"join{kernel}", "join.concat", {"x": joined, "y": branch})
    assert joined is not None
    if joined_dropout:
        joined = nodes.add("drop", "drop.elements", {"x": joined}, probability=joined_dropout)
    nodes.stage(joined)
    nodes.out(joined)
    return nodes
