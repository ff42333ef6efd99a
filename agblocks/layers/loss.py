"""What the heads' losses share: means over what is there, and the Poisson terms."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

ScalarLoss = Literal["mse", "huber", "poisson"]

TINY = 1e-7
SOFT = 10.0  # above it, AlphaGenome's scale of counts grows with the square root


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


def scalar_loss(kind: ScalarLoss, prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the known targets: squared error, Huber (delta 1), or Poisson deviance of a positive prediction."""
    prediction = prediction.to(torch.promote_types(prediction.dtype, torch.float32))
    target, there = known(target.to(prediction.dtype), mask)
    if kind == "huber":
        errors = F.huber_loss(prediction, target, reduction="none")
    elif kind == "poisson":
        errors = poisson(target, prediction)
    else:
        errors = (prediction - target).square()
    return masked_mean(errors, there)


def soft_clip(counts: Tensor) -> Tensor:
    """Counts above 10 as `2 * sqrt(10 * counts) - 10`, smaller ones as they are."""
    # The clamp keeps the square root away from what it isn't used for.
    return torch.where(counts > SOFT, 2 * (SOFT * counts.clamp(min=SOFT)).sqrt() - SOFT, counts)
