"""What the heads' losses share: means over what is there, and the Poisson terms."""

from __future__ import annotations

import torch
from torch import Tensor

TINY = 1e-7


def known(target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The target with zeros where it is NaN or masked, and where it counts (of the target's shape)."""
    there = ~target.isnan()
    if mask is not None:
        there = there & mask.to(torch.bool)
    return torch.where(there, target, 0), there


def masked_mean(values: Tensor, there: Tensor) -> Tensor:
    """Mean of the values that count; 0 where none does. Values elsewhere must be finite."""
    return torch.where(there, values, 0).sum() / there.sum().clamp(min=1)


def poisson(target: Tensor, prediction: Tensor) -> Tensor:
    """Poisson deviance up to the factor 2, `p - t log p - (t - t log t)`: zero where the prediction is the target."""
    target = target.abs()
    return (prediction - target * (prediction + TINY).log()) - (target - target * (target + TINY).log())
