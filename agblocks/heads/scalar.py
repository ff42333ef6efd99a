"""Heads for one value, or a few, per sequence: MPRA and its like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from agblocks.graph import Head, register
from agblocks.graph.types import Positive, Probability
from agblocks.layers import Activation, LayerNorm, role
from agblocks.layers import activation as activation_by_name
from agblocks.layers.loss import known, masked_mean, poisson

Pool = Literal["mean", "sum", "max", "center", "attention"]
HeadNorm = Literal["layer", "batch", "none"]
Loss = Literal["mse", "huber", "poisson"]


class _ScalarHead(Head):
    """What scalar heads share: the layers over features, and the loss."""

    loss_name: Loss

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean over the known targets (batch, targets): squared error, Huber (delta 1), or Poisson deviance."""
        prediction = outputs["out"]
        target, there = known(target.to(prediction.dtype), mask)
        if self.loss_name == "huber":
            errors = F.huber_loss(prediction, target, reduction="none")
        elif self.loss_name == "poisson":
            errors = poisson(target, prediction)
        else:
            errors = (prediction - target).square()
        return masked_mean(errors, there)


@register("head.scalar", "x: B C L -> out: B targets")
class ScalarHead(_ScalarHead):
    """Targets of a sequence from a track: norm, layers, and a pool over positions before or after the layers.

    `pool_at: start` pools features and passes them through the layers (MPRALegNet); `end` passes each position through
    them and pools the results (the published AlphaGenome MPRA heads). `window` pools the middle positions only, at most
    all; from an even length the middle of `center` is the right one of the two, as published. `attention` weighs
    positions by a learnt linear score. A layer is linear, norm, dropout, activation. No pool here is bound to a length;
    to keep the order of positions take `head.scalar_flat`.

    Shapes: x (batch, channels, length) -> (batch, targets). Loss: squared error over known targets; `huber`; or
    `poisson`, which makes the output positive by a softplus.
    """

    def __init__(
        self,
        C: int,
        *,
        targets: Positive = 1,
        pool: Pool = "mean",
        pool_at: Literal["start", "end"] = "start",
        window: Positive | None = None,
        hidden: list[Positive] = [],  # noqa: B006
        norm: HeadNorm = "layer",
        hidden_norm: HeadNorm = "none",
        dropout: Probability = 0.0,
        activation: Activation = "relu",
        loss: Loss = "mse",
    ):
        super().__init__()
        self.pool, self.pool_at, self.loss_name = pool, pool_at, loss
        self.window = window
        self.norm = role(_Norm(norm, C), "norm")
        self.score = nn.Linear(C, 1, bias=False) if pool == "attention" else None
        self.layers = _layers(C, hidden, targets, hidden_norm, dropout, activation)
        self.positive = nn.Softplus() if loss == "poisson" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self._middle(x).transpose(1, 2))
        weights = None if self.score is None else self.score(h).softmax(1)
        if self.pool_at == "start":
            return self.positive(self.layers(self._pooled(h, weights)))
        return self.positive(self._pooled(self.layers(h), weights))

    def _middle(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        if self.window is not None and self.window < length:
            return x.narrow(-1, (length - self.window) // 2, self.window)
        if self.window is None and self.pool == "center":
            return x.narrow(-1, length // 2, 1)
        return x

    def _pooled(self, h: Tensor, weights: Tensor | None) -> Tensor:
        if weights is not None:
            return (h * weights).sum(1)
        if self.pool == "max":
            return h.amax(1)
        return h.sum(1) if self.pool == "sum" else h.mean(1)


@register("head.scalar_flat", "x: B C L -> out: B targets")
class FlatScalarHead(_ScalarHead):
    """Targets of a sequence from all positions side by side: flatten, norm, layers. Bound to one length.

    The recipe's input has to state its length (`dna: B 4 281`). The norm is over the channels of each position before
    flattening (AlphaGenome's MPRA heads), or over everything after it with `norm_at: flat` (Enformer's).
    Features are flattened position by position, channels innermost.

    Shapes: x (batch, channels, length) -> (batch, targets). Costs: length * channels weights for each unit of the first
    layer. Loss as in `head.scalar`.
    """

    def __init__(
        self,
        C: int,
        L: int,
        *,
        targets: Positive = 1,
        hidden: list[Positive] = [],  # noqa: B006
        norm: HeadNorm = "layer",
        norm_at: Literal["position", "flat"] = "position",
        hidden_norm: HeadNorm = "none",
        dropout: Probability = 0.0,
        activation: Activation = "relu",
        loss: Loss = "mse",
    ):
        super().__init__()
        self.norm_at, self.loss_name = norm_at, loss
        self.norm = role(_Norm(norm, C if norm_at == "position" else C * L), "norm")
        self.layers = _layers(C * L, hidden, targets, hidden_norm, dropout, activation)
        self.positive = nn.Softplus() if loss == "poisson" else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = x.transpose(1, 2)
        h = self.norm(h).flatten(1) if self.norm_at == "position" else self.norm(h.flatten(1))
        return self.positive(self.layers(h))


class _Norm(nn.Module):
    """A norm over the last axis of vectors (batch, F) or of rows (batch, positions, F)."""

    def __init__(self, kind: HeadNorm, features: int):
        super().__init__()
        kinds = {"layer": LayerNorm, "batch": nn.BatchNorm1d}
        self.norm = kinds[kind](features) if kind in kinds else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.BatchNorm1d):
            return self.norm(x.flatten(0, -2)).view_as(x) if x.dim() > 2 else self.norm(x)
        return self.norm(x)


def _layers(
    features: int, hidden: list[int], targets: int, norm: HeadNorm, dropout: float, activation: Activation
) -> nn.Sequential:
    layers = nn.Sequential()
    for index, width in enumerate(hidden, 1):
        layers.append(nn.Linear(features, width))
        if norm != "none":
            layers.append(role(_Norm(norm, width), "norm"))
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers.append(activation_by_name(activation))
        features = width
    layers.append(nn.Linear(features, targets))
    return layers
