"""What promises are put into: a demand with its message."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contract import Broken


def demand(truth: bool, message: str) -> None:
    """Raise `Broken` unless it is so."""
    if not truth:
        raise Broken(message)


def near(a: Tensor, b: Tensor, tolerance: float, what: str) -> None:
    """Raise `Broken` where two tensors are further apart than a part of their norm."""
    size = max(float(a.double().norm()), 1e-30)
    distance = float((a.double() - b.double()).norm()) / size
    demand(distance <= tolerance, f"{what} differ by {distance:.2e} of their norm, {tolerance:.0e} allowed")


def states(model: nn.Module) -> dict[str, tuple[int, torch.dtype, bool]]:
    """Which tensor stands under each name, of which dtype, and whether it trains."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {name: (id(t), t.dtype, t.requires_grad) for name, t in tensors}
