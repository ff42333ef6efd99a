"""Learnt keys and values that queries attend to beside the sequence's own, through a gate."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor


class GatedPrefix(NamedTuple):
    """Learnt positions for every example: keys (positions, *keys), values (positions, *values), gate (heads,)."""

    keys: Tensor
    values: Tensor
    gate: Tensor


def add_prefixes(
    y: Tensor, q: Tensor, prefixes: Iterable[GatedPrefix], *, scale: float = 1.0, cap: float | None = None
) -> Tensor:
    """What attention gives, and for each prefix, times its gate, what queries find there in a softmax of its own.

    y (batch, queries, heads, e), q (batch, queries, heads, d); keys and values (positions, d) are those of all heads,
    (positions, groups, d) those of heads / groups heads each. Logits are `scale` q . k, capped as `cap` says, float32
    or better. A gate of 0 leaves y as it is to the bit, since the softmax over the sequence knows nothing of a prefix.
    Source: LLaMA-Adapter's zero-initialised attention, Zhang et al. 2023. Costs: queries * heads * positions.
    """
    for prefix in prefixes:
        y = y + prefix.gate.to(y.dtype)[:, None] * _found(q * scale, prefix, cap).to(y.dtype)
    return y


def _found(q: Tensor, prefix: GatedPrefix, cap: float | None) -> Tensor:
    """(batch, queries, heads, e)."""
    wide = torch.promote_types(q.dtype, torch.float32)
    device = q.device.type
    with torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext():
        keys, values = (_grouped(t).to(wide) for t in (prefix.keys, prefix.values))
        by_group = q.to(wide).unflatten(2, (keys.shape[1], -1))  # batch, queries, groups, heads of a group, d
        logits = torch.einsum("bngrd,pgd->bngrp", by_group, keys)
        if cap is not None:
            logits = torch.tanh(logits / cap) * cap
        return torch.einsum("bngrp,pge->bngre", logits.softmax(-1), values).flatten(2, 3)


def _grouped(t: Tensor) -> Tensor:
    return t[:, None] if t.dim() == 2 else t
