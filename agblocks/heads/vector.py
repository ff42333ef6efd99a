"""A head on a vector that others may read too."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from agblocks.graph import Head, register
from agblocks.graph.types import Positive
from agblocks.layers import Initial, draw_initial
from agblocks.layers.loss import ScalarLoss, scalar_loss


@register("head.vector", "x: B F -> out: B targets")
class VectorHead(Head):
    """Targets of a sequence by a linear map of its vector.

    Shapes: x (batch, F) -> (batch, targets). Loss: as `head.scalar`.
    Use when: several heads share dense layers (`vector.dense`); a head with layers of its own is `head.scalar`.
    Source: DeepSTARR, with one head for each promoter.
    """

    def __init__(self, F: int, *, targets: Positive = 1, loss: ScalarLoss = "mse", initial: Initial = "torch"):
        super().__init__()
        self.initial, self.loss_name = initial, loss
        self.linear = nn.Linear(F, targets)
        self.positive = nn.Softplus() if loss == "poisson" else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """By the rule of `initial`."""
        draw_initial(self, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        return self.positive(self.linear(x))

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean over the known targets (batch, targets): squared error, Huber (delta 1), or Poisson deviance."""
        return scalar_loss(self.loss_name, outputs["out"], target, mask)
