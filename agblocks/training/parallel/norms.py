"""Norms over a batch that several processes share: their statistics are those of all of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...layers import RMSBatchNorm
from ...layers.across import mean_over_processes, shared
from ...layers.rest import norms_that_move
from ..errors import RunError


@contextmanager
def synchronised(model: nn.Module) -> Iterator[None]:
    """Within, batch norms of the model take their statistics over all processes. Classes and names stay.

    torch's own `SyncBatchNorm` is another class, which checkpoints and adapters would see, and knows no CPU.
    Errors: `RunError` for another module with running statistics, whose rule is not known here.
    """
    names = {id(module): name for name, module in model.named_modules()}
    norms = [norm for norm, _ in norms_that_move(model)]
    for norm in norms:
        if not isinstance(norm, (RMSBatchNorm, _BatchNorm)) or isinstance(norm, nn.SyncBatchNorm):
            raise RunError(
                f"{names[id(norm)]!r} is a {type(norm).__name__} with running statistics: how they are taken over "
                "several processes is known of BatchNorm and RMSBatchNorm; train with one process"
            )
    before = {norm: norm.synchronize for norm in norms if isinstance(norm, RMSBatchNorm)}
    torchs = [norm for norm in norms if isinstance(norm, _BatchNorm)]
    try:
        for norm in before:
            norm.synchronize = True
        for norm in torchs:
            norm.forward = MethodType(_forward, norm)  # type: ignore[method-assign]
        yield
    finally:
        for norm, was in before.items():
            norm.synchronize = was
        for norm in torchs:
            norm.__dict__.pop("forward", None)


def _forward(norm: _BatchNorm, x: Tensor) -> Tensor:
    """A batch norm's forward pass, in training by the statistics of all processes."""
    if not norm.training or not shared():
        return type(norm).forward(norm, x)
    others = [axis for axis in range(x.dim()) if axis != 1]
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count = x.numel() // x.shape[1]
    along = (1, -1, *(1,) * (x.dim() - 2))
    mean, _ = mean_over_processes(wide.mean(others), count)
    centred = wide - mean.view(along)
    variance, everywhere = mean_over_processes(centred.square().mean(others), count)
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        with torch.no_grad():
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.add_(1)
            weight = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
            unbiased = variance * everywhere / (everywhere - 1).clamp(min=1)
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), weight)
            norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), weight)
    made = centred * torch.rsqrt(variance + norm.eps).view(along)
    if norm.affine:
        made = made * norm.weight.view(along) + norm.bias.view(along)
    return made.to(x.dtype)
