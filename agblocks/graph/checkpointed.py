"""A node whose inside is worked out again in the backward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpointed(module: nn.Module, inputs: Sequence[Any]) -> Any:
    """Call a module, keeping its inputs alone for the backward pass. Norms follow the batch once, not twice."""
    if torch.compiler.is_compiling():  # it repeats no pass, and takes no contexts
        return checkpoint(module, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _repeating(module)

    return checkpoint(module, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _repeating(module: nn.Module) -> Iterator[None]:
    """While a forward pass is repeated, running statistics stay: torch's norms and ours follow by their `momentum`."""
    norms: list[Any] = [part for part in module.modules() if hasattr(part, "momentum")]
    momenta = [norm.momentum for norm in norms]
    counts = [
        (norm, count.clone()) for norm in norms if (count := getattr(norm, "num_batches_tracked", None)) is not None
    ]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for norm, count in counts:
            norm.num_batches_tracked.copy_(count)
