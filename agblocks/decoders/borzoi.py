"""Borzoi's decoder: up by repeating, skips added, separable convolutions."""

from __future__ import annotations

from agblocks.graph import Edge, Misfit, Nodes, Pyramid, composite
from agblocks.graph.types import Odd, Positive
from agblocks.layers import Activation, Eps


@composite("decoder.borzoi", "x: B C L, skips: pyramid")
def borzoi(
    x: Edge,
    skips: Pyramid,
    *,
    to: Positive = 32,
    channels: Positive | None = None,
    kernel: Odd = 3,
    activation: Activation = "gelu_tanh",
    eps: Eps = 1e-3,
) -> Nodes:
    """Levels from the stride of `x` to stride `to`, each twice as fine and with a skip of that stride.

    All have the channels of `x` unless `channels` says otherwise. Nodes: `level64`, `level32`, by stride.
    Shapes: x (batch, C, length), skips -> (batch, channels or C, length * stride / to).
    Source: Borzoi, Linder et al. 2025: 13,792,768 parameters over its own encoder.
    """
    start, width = x.stride, x.channels if channels is None else channels
    if start <= to:
        raise Misfit(f"{x.name!r} has stride {start} already: nothing to go up from there to {to}")
    nodes, stride = Nodes(), start
    while stride > to:
        stride = stride / 2
        if stride < to or stride != int(stride):
            raise Misfit(f"from stride {start} of {x.name!r}, halving does not come to stride {to}")
        x = nodes.add(
            f"level{stride}", "decoder.level", {"x": x, "skip": skips[stride]},
            channels=width, kernel=kernel, activation=activation, eps=eps,
        )  # fmt: skip
        nodes.stage(x)
    nodes.out(x)
    return nodes


@composite("decoder.level", "x: B C L, skip: B S L*2")
def level(
    x: Edge, skip: Edge, *, channels: Positive, kernel: Odd = 3, activation: Activation = "gelu_tanh", eps: Eps = 1e-3
) -> Nodes:
    """One doubling of resolution, as Borzoi has it.

    A pointwise norm-activation-convolution, every position twice, plus another one of the skip, then a separable
    convolution. Nodes: `main`, `up`, `skip`, `add`, `separable`.
    Shapes: x (batch, C, length), skip (batch, S, length * 2) -> (batch, channels, length * 2).
    """
    nodes = Nodes()
    pointwise = {"channels": channels, "kernel": 1, "activation": activation, "eps": eps}
    main = nodes.add("main", "conv.block", {"x": x}, arguments=pointwise)
    up = nodes.add("up", "up.nearest", {"x": main}, factor=2)
    side = nodes.add("skip", "conv.block", {"x": skip}, arguments=pointwise)
    both = nodes.add("add", "join.add", {"x": up, "y": side})
    nodes.out(nodes.add("separable", "conv.separable", {"x": both}, kernel=kernel))
    return nodes
