"""The MPRA head: a few numbers for a whole sequence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..graph import Head, Misfit, register
from ..graph.types import Positive, Probability
from ..layers import Activation, activation, channel_norm, role
from ._masked import masked_mean

Pool = Literal["mean", "sum", "max", "center", "attention", "flatten"]
BOUND_TO_LENGTH = frozenset({"flatten"})  # poolings whose weights belong to one length
Loss = Literal["mse", "huber", "poisson"]


@register("head.scalar", "x: B C L -> out: B targets")
class ScalarHead(Head):
    """Pool a track over its positions, then a small perceptron: one number a target, as an MPRA or STARR-seq measures.

    `pool` is `mean`, `sum` or `max` over positions, `center` (the position at length // 2), `attention` (a learnt
    softmax over positions), all for any length; or `flatten` (positions side by side), which knows the order but is
    bound to one length, so the recipe's input has to state it (`B 4 256`). `window` pools only that many positions
    around the middle. `pool_after` applies the perceptron to each position and pools its predictions, as the published
    AlphaGenome MPRA heads do. `norm` normalises the track before, `hidden_norm` each hidden layer.

    Shapes: x (batch, C, length) -> (batch, targets).
    Losses: `mse`; `huber`, for heavy tails; `poisson` of counts, where the output is the logarithm of the rate.
    Use when: each sequence has one measurement (or one for each of several cell types or promoters).
    Source: the heads compared in "Adapting AlphaGenome to MPRA data" (2026); MPRALegNet, Agarwal et al. 2025.
    """

    def __init__(
        self,
        C: int,
        L: int | None = None,
        *,
        targets: Positive = 1,
        pool: Pool = "mean",
        window: Positive | None = None,
        pool_after: bool = False,
        hidden: list[Positive] = [],  # noqa: B006  never changed
        activation: Activation = "relu",
        dropout: Probability = 0.0,
        norm: Literal["none", "layer", "batch"] = "none",
        hidden_norm: Literal["none", "layer", "batch"] = "none",
        loss: Loss = "mse",
    ):
        super().__init__()
        self.pool, self.window, self.pool_after, self.loss_name = pool, window, pool_after, loss
        self.norm = role(channel_norm(norm, C), "norm")
        self.score = nn.Conv1d(C, 1, 1) if pool == "attention" else None
        width = C * (L or 1) if pool == "flatten" else C
        layers: list[nn.Module] = []
        for size in hidden:
            layers += [nn.Conv1d(width, size, 1), channel_norm(hidden_norm, size), _activation(activation)]
            layers += [nn.Dropout(dropout)]
            width = size
        # The perceptron is a stack of width-1 convolutions, so that it maps pooled features and positions alike.
        self.hidden = nn.Sequential(*layers)
        self.out = role(nn.Conv1d(width, targets, 1), "block.out")

    @classmethod
    def check(cls, *, pool: Pool, window: int | None, pool_after: bool, L: int | None = None, **_: Any) -> None:
        if pool in BOUND_TO_LENGTH and L is None:
            raise Misfit(
                f"pool {pool!r} is bound to one length, so the input has to state it, like 'B 4 256'; "
                "mean, sum, max, center and attention pool any length"
            )
        if pool == "flatten" and (window is not None or pool_after):
            raise Misfit("pool 'flatten' takes all positions as they are: no window, no pool_after")

    def forward(self, x: Tensor) -> Tensor:
        x = self._windowed(self.norm(x))
        if self.pool_after:
            return self._pooled(self.out(self.hidden(x)), x)[..., 0]
        return self.out(self.hidden(self._pooled(x, x)))[..., 0]  # type: ignore[no-any-return]

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        prediction = outputs["out"]
        if self.loss_name == "huber":
            return masked_mean(F.huber_loss, prediction, target, mask)
        if self.loss_name == "poisson":
            return masked_mean(F.poisson_nll_loss, prediction, target, mask)
        return masked_mean(F.mse_loss, prediction, target, mask)

    def _windowed(self, x: Tensor) -> Tensor:
        if self.window is None or self.pool == "center":
            return x
        extra = max(0, x.shape[-1] - self.window)
        return x[..., extra // 2 : extra // 2 + self.window]

    def _pooled(self, values: Tensor, x: Tensor) -> Tensor:
        """Values (batch, channels, length) over their positions; `x` is what attention looks at."""
        if self.pool == "center":
            middle = values.shape[-1] // 2
            return values[..., middle : middle + 1]
        if self.pool == "flatten":
            return values.flatten(1)[..., None]
        if self.pool == "max":
            return values.amax(-1, keepdim=True)
        if self.score is not None:
            return (values * self.score(x).softmax(-1)).sum(-1, keepdim=True)
        return values.mean(-1, keepdim=True) if self.pool == "mean" else values.sum(-1, keepdim=True)


_activation = activation
