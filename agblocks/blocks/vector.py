"""Vectors: one row of features a sequence, which several heads may read."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from agblocks.graph import Block, register
from agblocks.graph.types import Positive, Probability
from agblocks.layers import Activation, Eps, Initial, draw_initial, role
from agblocks.layers import activation as activation_by_name


@register("vector.flatten", "x: B C L -> out: B C*L")
class Flatten(Block):
    """A track as one row: position by position, channels innermost.

    Shapes: x (batch, channels, length) -> (batch, channels * length). Use when: dense layers should know where a
    feature lies; they are then bound to one length, which the recipe's input has to state (`dna: B 4 249`).
    Source: Keras's order (DeepSTARR); torch's own `flatten` of a track has positions innermost.
    """

    def __init__(self, C: int, L: int):
        super().__init__()
        self.features = C * L

    def extra_repr(self) -> str:
        return str(self.features)

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(1)


@register("vector.dense", "x: B F -> out: B features")
class Dense(Block):
    """Linear map, norm, activation, dropout over a vector.

    Shapes: x (batch, F) -> (batch, features). Use when: several heads share layers behind a pool or `vector.flatten`
    (a single head has `hidden` layers of its own). Source: DeepSTARR, with batch norm of eps 0.001 and dropout 0.4.
    """

    def __init__(
        self,
        F: int,
        *,
        features: Positive = 256,
        norm: Literal["batch", "none"] = "batch",
        eps: Eps = 1e-5,
        activation: Activation = "relu",
        dropout: Probability = 0.0,
        initial: Initial = "torch",
    ):
        super().__init__()
        self.initial = initial
        self.linear = nn.Linear(F, features)
        self.norm = role(nn.BatchNorm1d(features, eps=eps) if norm == "batch" else nn.Identity(), "norm")
        self.activation = activation_by_name(activation)
        self.dropout = nn.Dropout(dropout)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """By the rule of `initial`."""
        draw_initial(self, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.activation(self.norm(self.linear(x))))
