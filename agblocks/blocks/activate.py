"""An activation as a node of its own."""

from __future__ import annotations

from torch import Tensor

from agblocks.graph import Block, register
from agblocks.layers import Activation
from agblocks.layers import activation as activation_by_name


@register("activate.elements", "x: B C L -> out: B C L", reach="")
class Activate(Block):
    """An activation of every value of a track.

    Shapes: x (batch, channels, length) -> the same. Use when: an activation stands behind a convolution too, as at the
    end of Enformer and Borzoi.
    """

    def __init__(self, *, activation: Activation = "gelu"):
        super().__init__()
        self.activation = activation_by_name(activation)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x)
