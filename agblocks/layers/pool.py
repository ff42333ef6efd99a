"""Pools over positions that keep a rest: lengths come out as ceil(length / size)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MaxPool(nn.Module):
    """Maximum of each `size` positions; a rest at the end counts as if padded by minus infinity on the right.

    At size 2 this is the SAME pool of AlphaGenome. (From size 3 on, JAX's SAME would split the padding over both ends,
    and the grid would hang on the length; ours always starts at position 0.)

    Shapes: x (batch, channels, length) -> (batch, channels, ceil(length / size)), or floor with `rest=False`, which
    leaves a rest out as MPRALegNet and Borzoi do.
    """

    def __init__(self, size: int, *, rest: bool = True):
        super().__init__()
        self.size, self.rest = size, rest

    def forward(self, x: Tensor) -> Tensor:
        return x if self.size == 1 else F.max_pool1d(x, self.size, self.size, ceil_mode=self.rest)

    def extra_repr(self) -> str:
        return f"{self.size}, rest={self.rest}"


class MeanPool(nn.Module):
    """Mean of each `size` positions; in a rest at the end only the real ones count, as in JAX's SAME pool.

    Shapes: x (batch, channels, length) -> (batch, channels, ceil(length / size)).
    """

    def __init__(self, size: int):
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        if self.size == 1:
            return x
        return F.avg_pool1d(x, self.size, self.size, ceil_mode=True, count_include_pad=False)

    def extra_repr(self) -> str:
        return f"{self.size}"


def sum_pool(x: Tensor, size: int) -> Tensor:
    """Sums of each `size` positions: (..., length) -> (..., length / size), float32 or better. A NaN makes its sum NaN.

    Use when: base-pair targets are wanted at a coarser resolution. Raises ValueError where the length doesn't divide.
    """
    if x.shape[-1] % size:
        raise ValueError(f"{x.shape[-1]} positions don't divide into sums of {size}")
    return x.unflatten(-1, (-1, size)).sum(-1, dtype=torch.promote_types(x.dtype, torch.float32))


class AttentionPool(nn.Module):
    """Weighted mean of each `size` positions, weights by softmax over them of a linear map of the channels.

    In a rest at the end only the real positions count. Shapes: x (batch, channels, length) ->
    (batch, channels, ceil(length / size)). Source: Enformer. Costs: channels ** 2 weights.
    """

    def __init__(self, channels: int, size: int = 2):
        super().__init__()
        self.size = size
        self.weight = nn.Parameter(torch.empty(channels, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Twice the identity, as published: each channel at first leans to its own larger values."""
        nn.init.eye_(self.weight)
        with torch.no_grad():
            self.weight.mul_(2)

    def forward(self, x: Tensor) -> Tensor:
        if self.size == 2 and x.shape[-1] > 1:
            return self._of_two(x)
        rest = -x.shape[-1] % self.size
        logits = F.pad(F.conv1d(x, self.weight[:, :, None]), (0, rest), value=float("-inf"))
        values = F.pad(x, (0, rest))
        weights = logits.unflatten(-1, (-1, self.size)).softmax(-1)
        return (values.unflatten(-1, (-1, self.size)) * weights).sum(-1)

    def _of_two(self, x: Tensor) -> Tensor:
        """The softmax of two is a sigmoid of their difference, and the map is linear: half of the work, no logits."""
        pairs = x[..., : x.shape[-1] // 2 * 2].unflatten(-1, (-1, 2))
        first, second = pairs.unbind(-1)
        apart = first - second
        gate = F.conv1d(apart, self.weight[:, :, None]).sigmoid()
        return torch.cat((torch.addcmul(second, apart, gate), x[..., pairs.shape[-2] * 2 :]), -1)
