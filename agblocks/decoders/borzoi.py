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
    """Up stages from the stride of `x` to stride `to`, each twice as fine and with a skip of that stride.

    All have the channels of `x` unless `channels` says otherwise. Nodes: `up64`, `up32`, by stride.
    Shapes: x (batch, C, length), skips -> (batch, channels or C, length * stride / to).
    Source: Borzoi, Linder et al. 2025: 13,792,768 parameters over its own encoder.
    """
    start, stride = x.stride, x.stride
    if start <= to:
        raise Misfit(f"{x.name!r} has stride {start} already, not above {to}; a track of stride {2 * to} would do")
    nodes = Nodes()
    while stride > to:
        stride = stride / 2
        if stride < to or stride != int(stride):
            raise Misfit(f"from stride {start} of {x.name!r}, halving does not come to stride {to}")
        x = nodes.add(
            f"up{stride}", "conv.up_separable", {"x": x, "skip": skips[stride]},
            channels=channels, kernel=kernel, activation=activation, eps=eps,
        )  # fmt: skip
        nodes.stage(x)
    nodes.out(x)
    return nodes
