"""Losses over the targets that were measured."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def masked_mean(
    loss: Callable[..., Tensor], prediction: Tensor, target: Tensor, mask: Tensor | None = None
) -> Tensor:
    """The mean of an elementwise loss over targets that are not NaN and not masked out; 0 where none is left.

    Shapes: prediction and target alike, mask broadcastable to them (True counts). NaN neither counts nor reaches a
    gradient. Use when: targets have gaps.
    """
    target = target.to(prediction.dtype)
    counts = ~torch.isnan(target)
    if mask is not None:
        counts = counts & mask.to(torch.bool)
    known = torch.where(counts, target, prediction.detach().clamp(min=0))
    each = loss(prediction, known, reduction="none")
    return torch.where(counts, each, 0).sum() / counts.sum().clamp(min=1)
