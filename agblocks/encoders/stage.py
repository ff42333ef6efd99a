"""One stage of a norm-activation-convolution encoder: Enformer's and Borzoi's are made of them."""

from __future__ import annotations

from typing import Literal

from agblocks.graph import Edge, Nodes, composite
from agblocks.graph.types import Odd, Positive
from agblocks.layers import Activation, Eps

StagePool = Literal["attention", "max", "max_floor", "mean", "none"]


@composite("encoder.stage", "x: B C L")
def stage(
    x: Edge,
    *,
    channels: Positive,
    kernel: Odd = 5,
    pool: StagePool = "none",
    first: bool = False,
    pointwise: bool = False,
    activation: Activation = "gelu_sigmoid",
    eps: Eps = 1e-5,
) -> Nodes:
    """A pool by 2, a norm-activation-convolution to `channels`, and a residual pointwise one where asked for.

    The `first` stage of an encoder has a plain convolution, without norm and activation. Nodes: `pool`, `conv`,
    `pointwise`. Shapes: x (batch, C, length) -> (batch, channels, length / 2), or length with `pool: none`.
    Use when: encoders are written; the stage's own edge is the last track before the next pool.
    """
    nodes = Nodes()
    if pool != "none":
        x = nodes.add("pool", f"pool.{pool}", {"x": x}, pool=2)
    if first:
        x = nodes.add("conv", "conv.stem", {"x": x}, channels=channels, kernel=kernel, norm="none", activation="none")
    else:
        x = nodes.add("conv", "conv.block", {"x": x}, channels=channels, kernel=kernel, activation=activation, eps=eps)
    if pointwise:
        x = nodes.add("pointwise", "conv.block", {"x": x}, kernel=1, residual=True, activation=activation, eps=eps)
    nodes.out(x)
    return nodes
