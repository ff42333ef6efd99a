"""Tracks to vectors: what a probe reads of an edge, by the words of `head.scalar`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

POOLS = ("mean", "max", "sum", "mean_max", "center", "flatten")


def pooled(track: Tensor, pool: Mapping[str, Any]) -> Tensor:
    """One vector a sequence. `window` keeps the middle positions only, as in `head.scalar`.

    Shapes: track (batch, channels, length) -> (batch, channels), twice as wide with mean_max (means first), and
    (batch, length * channels), channels innermost, with flatten. A vector (batch, features) stays as it is.
    """
    if track.dim() == 2:
        return track
    kind, window, length = pool["pool"], pool.get("window"), track.shape[-1]
    if window is not None and window < length:
        track = track.narrow(-1, (length - window) // 2, window)
    elif kind == "center" and window is None:
        track = track.narrow(-1, length // 2, 1)
    if kind == "max":
        return track.amax(-1)
    if kind == "sum":
        return track.sum(-1)
    if kind == "mean_max":
        from torch import cat

        return cat([track.mean(-1), track.amax(-1)], 1)
    return track.transpose(1, 2).flatten(1) if kind == "flatten" else track.mean(-1)
