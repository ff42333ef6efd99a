"""The wide pointwise layer before the heads of Enformer and Borzoi."""

from __future__ import annotations

from agblocks.graph import Edge, Nodes, composite
from agblocks.graph.types import Positive, Probability
from agblocks.layers import Activation, Eps


@composite("decoder.pointwise", "x: B C L")
def pointwise(
    x: Edge,
    *,
    channels: Positive | None = None,
    expand: Positive = 2,
    activation: Activation = "gelu_sigmoid",
    eps: Eps = 1e-5,
    dropout: Probability = 0.05,
) -> Nodes:
    """Norm, activation, pointwise convolution, dropout, activation: `channels` wide, or `expand` times the input.

    Shapes: x (batch, C, length) -> (batch, channels or expand * C, length). Nodes: `conv`, `activation`.
    Source: Enformer (3072 channels); Borzoi: 1920 channels, tanh GELU, eps 0.001, dropout 0.1.
    """
    nodes = Nodes()
    width = expand * x.channels if channels is None else channels
    x = nodes.add(
        "conv", "conv.block", {"x": x},
        channels=width, kernel=1, activation=activation, eps=eps, dropout=dropout,
    )  # fmt: skip
    nodes.out(nodes.add("activation", "activate.elements", {"x": x}, activation=activation))
    return nodes
