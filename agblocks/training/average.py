"""The moving average of what trains, in a copy of the model that shares everything else with it."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average(nn.Module):
    """`module` is the model with averaged weights: `mean = decay * mean + (1 - decay) * now`, the decay warmed up.

    fixed: tensors that never change; they are shared, not copied, so of a frozen base there is one in memory.
    copy: a copy of the model made already, where it can't be copied any more (spread over processes).
    Running statistics of norms that move are averaged as weights are; whole numbers are copied.
    """

    n_averaged: Tensor

    def __init__(self, model: nn.Module, decay: float, fixed: Iterable[Tensor] = (), copy: nn.Module | None = None):
        super().__init__()
        shared: dict[int, Any] = {id(tensor): tensor for tensor in fixed}
        self.module = deepcopy(model, dict(shared)) if copy is None else copy
        self.register_buffer("n_averaged", torch.tensor(0))
        self._average = _warmed(decay)
        for parameter in self.module.parameters():
            if id(parameter) not in shared:
                parameter.requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's weights after a step; the first time they are copied."""
        kinds: dict[tuple[torch.device, torch.dtype], tuple[list[Tensor], list[Tensor]]] = {}
        for mean, now in zip(_tensors(self.module), _tensors(model), strict=True):
            if mean is not now:
                pair = kinds.setdefault((mean.device, mean.dtype), ([], []))
                pair[0].append(_own(mean.detach()))
                pair[1].append(_own(now.detach()))
        first = bool(self.n_averaged == 0)
        for (_, dtype), (means, nows) in kinds.items():
            if first or not (dtype.is_floating_point or dtype.is_complex):
                torch._foreach_copy_(means, nows)
            else:
                self._average(means, nows, self.n_averaged)
        self.n_averaged += 1

    @torch.no_grad()
    def restart(self, model: nn.Module) -> None:
        """Start anew at the model's weights."""
        self.n_averaged.zero_()
        for mean, now in zip(_tensors(self.module), _tensors(model), strict=True):
            mean.copy_(now)


def _own(tensor: Any) -> Tensor:
    """This process's part, where processes hold parts: both models are spread alike."""
    found: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return found


def _tensors(model: nn.Module) -> list[Tensor]:
    """Parameters, and buffers that are state; constants are neither averaged nor copied."""
    state = [
        buffer
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None and name not in module._non_persistent_buffers_set
    ]
    return [*model.parameters(), *state]


def _warmed(decay: float) -> Any:
    """A moving average whose decay rises to `decay`: early weights, near the random start, are soon forgotten."""

    def average(averaged: list[Tensor], current: list[Tensor], updates: Any) -> None:
        n = int(updates)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, updates)

    return average
