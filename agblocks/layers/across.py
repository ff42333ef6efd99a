"""Statistics of a batch that several processes share: a mean over all of its rows, with its gradient."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_APART = False


def shared() -> bool:
    """Whether several processes have parts of this batch."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return there and not _APART and torch.distributed.get_world_size() > 1


@contextmanager
def apart() -> Iterator[None]:
    """Within, every process has the whole batch: its own statistics are the batch's."""
    global _APART
    before, _APART = _APART, True
    try:
        yield
    finally:
        _APART = before


def mean_over_processes(mean: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The mean over all processes of a mean over `count` values, which may differ between them; and the whole count.

    Shapes: (channels,) -> (channels,). Its gradient goes to every process, so each has to call it, in the same order.
    """
    packed = torch.cat([mean * count, mean.new_tensor([count])])
    if not shared():
        return mean, packed[-1].detach()
    packed = _Sum.apply(packed)
    return packed[:-1] / packed[-1].detach(), packed[-1].detach()


class _Sum(torch.autograd.Function):
    """The sum over processes; each one's gradient is the sum of all of theirs."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return _summed(own)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(own: Tensor) -> Tensor:
    total = own.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total)
    return total
