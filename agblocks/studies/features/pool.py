"""How a tap's track becomes one vector a sequence: as `head.scalar` pools, or not at all."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from ...graph.infer import EdgeInfo
from ..errors import WorkError

Pool = Literal["mean", "max", "sum", "mean_max", "center", "flatten", "none"]


def check_pool(pool: str, edge: str, info: EdgeInfo) -> None:
    """Errors: `WorkError` for an unknown pool, and for one that the edge does not fit."""
    if pool not in get_args(Pool):
        raise WorkError(f"tap {edge!r}: pool is {pool!r}, wanted one of {', '.join(get_args(Pool))}")
    if pool == "none":
        return
    if info.integer or len(info.axes) not in (2, 3):
        raise WorkError(f"tap {edge!r} is {info.shape}: a track or a vector can be pooled, this is kept by pool 'none'")


def pooled(x: Tensor, pool: Pool, window: int | None = None) -> Tensor:
    """One vector a row, of a track; a vector is as it is. Sums of half precision are made in float32.

    window: only so many positions in the middle, at most all, as in `head.scalar`.

    Shapes: (rows, channels, positions) -> (rows, channels), with `mean_max` twice as many (means first), with `flatten`
    positions times channels, channels innermost; of an even number of positions the right one is the `center`'s; with
    `none` anything as it is.
    """
    if pool == "none" or x.dim() == 2:
        return x
    length = x.shape[-1]
    if window is not None and window < length:
        x = x.narrow(-1, (length - window) // 2, window)
    elif pool == "center" and window is None:
        x = x.narrow(-1, length // 2, 1)
    wide = torch.promote_types(x.dtype, torch.float32)
    if pool == "max":
        return x.amax(-1)
    if pool == "flatten":
        return x.mT.flatten(1)
    if pool == "sum":
        return x.sum(-1, dtype=wide)
    mean = x.mean(-1, dtype=wide)
    return torch.cat([mean, x.amax(-1).to(wide)], 1) if pool == "mean_max" else mean
