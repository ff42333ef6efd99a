"""Norms of frozen parts keep the statistics they have."""

from __future__ import annotations

from torch import nn

from .norm import RMSBatchNorm


def rest_norms(model: nn.Module) -> list[str]:
    """Put every norm with running statistics that does not train in evaluation; returns their names.

    A norm trains if one of its own parameters wants a gradient; one without parameters if any parameter of the model
    does. `requires_grad_(False)` alone would not stop statistics from following the batches. To be called after
    `train()`, which undoes it.
    """
    names = []
    for name, module in model.named_modules():
        moves = isinstance(module, (nn.modules.batchnorm._NormBase, RMSBatchNorm))
        if moves and getattr(module, "track_running_stats", True):
            own = list(module.parameters(recurse=False))
            if not any(p.requires_grad for p in (own or model.parameters())):
                module.eval()
                names.append(name)
    return names
