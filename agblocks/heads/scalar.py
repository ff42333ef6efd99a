"""Heads for one value, or a few, per sequence: MPRA and its like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from agblocks.graph import Head, Misfit, register
from agblocks.graph.types import Positive, Probability
from agblocks.layers import Activation, Initial, LayerNorm, draw_initial, role
from agblocks.layers import activation as activation_by_name
from agblocks.layers.loss import ScalarLoss, scalar_loss

Pool = Literal["mean", "sum", "max", "mean_max", "center", "attention", "flatten"]
BOUND_TO_LENGTH = frozenset({"flatten"})  # pools whose weights belong to one length of the input
HeadNorm = Literal["layer", "batch", "none"]


@register("head.scalar", "x: B C L -> out: B targets")
class ScalarHead(Head):
    """Targets of a sequence from a track: norm, a pool over positions, layers.

    `pool` is `mean`, `sum`, `max`, `mean_max` (both side by side), `center`, or `attention` (positions weighed by a
    learnt linear score), all for any length; or `flatten` (position by position, channels innermost), which keeps the
    order of positions but is bound to one length, so that the recipe's input has to state it (`dna: B 4 281`).
    `window` pools the middle positions only, at most all; of an even length the middle of `center` is the right one of
    the two, as published. `pool_at: end` passes each position through the layers and pools the results (the published
    AlphaGenome MPRA heads) instead of pooling features first (MPRALegNet). The norm is over the channels of each
    position (`norm_at: position`), or over what was pooled (`pooled`; with `flatten` this is Enformer's MPRA head).
    `input_dropout` thins what enters the layers; a layer is linear, norm, dropout, activation.

    Shapes: x (batch, channels, length) -> (batch, targets). Loss: squared error over known targets; `huber` for heavy
    tails; or `poisson`, which makes the output positive by a softplus.
    Use when: each sequence has one measurement, or one for each of several cell types or promoters.
    """

    def __init__(
        self,
        C: int,
        L: int | None = None,
        *,
        targets: Positive = 1,
        pool: Pool = "mean",
        pool_at: Literal["start", "end"] = "start",
        window: Positive | None = None,
        hidden: list[Positive] = [],  # noqa: B006
        norm: HeadNorm = "layer",
        norm_at: Literal["position", "pooled"] = "position",
        hidden_norm: HeadNorm = "none",
        dropout: Probability = 0.0,
        input_dropout: Probability = 0.0,
        activation: Activation = "relu",
        loss: ScalarLoss = "mse",
        initial: Initial = "torch",
    ):
        super().__init__()
        self.pool, self.pool_at, self.norm_at, self.loss_name = pool, pool_at, norm_at, loss
        self.window = window
        features = C * {"flatten": L or 1, "mean_max": 2}.get(pool, 1)
        self.norm = _Norm(norm, C if norm_at == "position" else features)
        self.score = nn.Linear(C, 1, bias=False) if pool == "attention" else None
        self.input_dropout = nn.Dropout(input_dropout)
        self.layers = _layers(features, hidden, targets, hidden_norm, dropout, activation)
        self.positive = nn.Softplus() if loss == "poisson" else nn.Identity()
        self.initial = initial
        self.reset_parameters()

    @classmethod
    def check(cls, *, pool: Pool, pool_at: str, norm_at: str, window: int | None, L: int | None, **_: Any) -> None:
        if pool in BOUND_TO_LENGTH and L is None:
            raise Misfit(
                f"pool {pool!r} is bound to one length, so the input has to state it, like 'B 4 256'; "
                "mean, sum, max, mean_max, center and attention pool any length"
            )
        if pool == "flatten" and window is not None:
            raise Misfit("pool 'flatten' takes every position: it has no window")
        if pool_at == "end" and (pool in ("flatten", "mean_max") or norm_at == "pooled"):
            raise Misfit("'pool_at: end' pools predictions: by mean, sum, max, center or attention, the norm before it")

    def reset_parameters(self) -> None:
        """By the rule of `initial`."""
        draw_initial(self, self.initial)

    def forward(self, x: Tensor) -> Tensor:
        h = self._middle(x).transpose(1, 2)
        if self.norm_at == "position":
            h = self.norm(h)
        weights = None if self.score is None else self.score(h).softmax(1)
        if self.pool_at == "end":
            return self.positive(self._pooled(self.layers(self.input_dropout(h)), weights))
        h = self._pooled(h, weights)
        if self.norm_at == "pooled":
            h = self.norm(h)
        return self.positive(self.layers(self.input_dropout(h)))

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mean over the known targets (batch, targets): squared error, Huber (delta 1), or Poisson deviance."""
        return scalar_loss(self.loss_name, outputs["out"], target, mask)

    def _middle(self, x: Tensor) -> Tensor:
        length = x.shape[-1]
        if self.window is not None and self.window < length:
            return x.narrow(-1, (length - self.window) // 2, self.window)
        if self.window is None and self.pool == "center":
            return x.narrow(-1, length // 2, 1)
        return x

    def _pooled(self, h: Tensor, weights: Tensor | None) -> Tensor:
        """Rows (batch, positions, features) over their positions."""
        if weights is not None:
            return (h * weights).sum(1)
        if self.pool == "flatten":
            return h.flatten(1)
        if self.pool == "mean_max":
            return torch.cat([h.mean(1), h.amax(1)], 1)
        if self.pool == "max":
            return h.amax(1)
        return h.sum(1) if self.pool == "sum" else h.mean(1)


class _Norm(nn.Module):
    """A norm over the last axis of vectors (batch, F) or of rows (batch, positions, F)."""

    def __init__(self, kind: HeadNorm, features: int):
        super().__init__()
        kinds = {"layer": LayerNorm, "batch": nn.BatchNorm1d}
        self.norm = role(kinds[kind](features), "norm") if kind in kinds else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if isinstance(self.norm, nn.BatchNorm1d):
            return self.norm(x.flatten(0, -2)).view_as(x) if x.dim() > 2 else self.norm(x)
        return self.norm(x)


def _layers(
    features: int, hidden: list[int], targets: int, norm: HeadNorm, dropout: float, activation: Activation
) -> nn.Sequential:
    layers = nn.Sequential()
    for width in hidden:
        layers.append(nn.Linear(features, width))
        if norm != "none":
            layers.append(_Norm(norm, width))
        if dropout:
            layers.append(nn.Dropout(dropout))
        layers.append(activation_by_name(activation))
        features = width
    layers.append(nn.Linear(features, targets))
    return layers
