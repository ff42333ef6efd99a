"""Shares of one batch put together again, so that a loss sees what one process would see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .processes import rank, size

SHARES = "shares"  # of a batch: rows of each process; not there where this one has all of them


def rows_of(batch: Mapping[str, Any]) -> int:
    """Rows of the whole batch."""
    shares: Sequence[int] | None = batch.get(SHARES)
    return len(batch["index"]) if shares is None else sum(shares)


def put_together(tensors: Mapping[str, Tensor], shares: Sequence[int] | None) -> dict[str, Tensor]:
    """Every process's rows, in the batch's order; only this one's carry a gradient.

    A loss on them is that of the whole batch, whatever it is: a mean over what is known, a correlation over rows. Its
    gradient by this process's outputs is this process's part; see `scale` for the rest.
    Shapes: (own rows, ...) -> (all rows, ...). Costs: the outputs of all processes in the memory of each.
    """
    if shares is None or size() == 1:
        return dict(tensors)
    return {name: _whole(value, shares) for name, value in tensors.items()}


def scale() -> int:
    """What a loss over a whole batch is multiplied by, because the gradients of processes are averaged, not added.

    Where every process has the whole batch their gradients are the same, and so is the average: then it is not needed.
    """
    return size()


def _whole(own: Tensor, shares: Sequence[int]) -> Tensor:
    sent = own.detach()
    if sent.dtype in (torch.bfloat16, torch.float16):
        sent = sent.float()  # exactly; gloo doesn't send all types
    padded = sent.new_zeros((max(shares), *sent.shape[1:]))
    padded[: len(sent)] = sent
    parts = [torch.empty_like(padded) for _ in shares]
    torch.distributed.all_gather(parts, padded)
    rows = [part[:count].to(own.dtype) for part, count in zip(parts, shares, strict=True)]
    rows[rank()] = own
    return torch.cat(rows)
