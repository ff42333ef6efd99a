"""What we take from timm for residual branches: stochastic depth."""

from __future__ import annotations

from torch import nn


def drop_path(probability: float) -> nn.Module:
    """timm's DropPath, which leaves a residual branch out for whole examples in training; Identity at 0."""
    if not probability:
        return nn.Identity()
    from .._torchvision import mend

    mend()
    from timm.layers import DropPath

    return DropPath(probability)
