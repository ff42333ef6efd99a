"""Norms of frozen parts keep the statistics they have."""

from __future__ import annotations

from torch import nn

STATISTICS = ("running_mean", "running_var", "num_batches_tracked", "mean_square")


def norms_that_move(model: nn.Module) -> list[tuple[nn.Module, list[nn.Parameter]]]:
    """Every module with running statistics, with the parameters that it goes by.

    Those are its own, or, where it has none, those of the nearest part around it that has some.
    """
    modules = dict(model.named_modules())
    found = []
    for name, module in modules.items():
        if any(b is not None and key in STATISTICS for key, b in module._buffers.items()):
            watched = list(module.parameters())
            while not watched and name:
                name = name.rpartition(".")[0]
                watched = list(modules[name].parameters())
            found.append((module, watched))
    return found


def rest_norms(model: nn.Module) -> list[nn.Module]:
    """Put norms with running statistics of frozen parts in evaluation, and return those that were not.

    To be called after `train()`, which undoes it: `requires_grad_(False)` alone would not stop statistics from
    following the batches.
    """
    frozen = [norm for norm, watched in norms_that_move(model) if not any(p.requires_grad for p in watched)]
    changed = [norm for norm in frozen if norm.training]
    for norm in changed:
        norm.training = False
    return changed
