"""Training rows that alone have their length, where the model cannot train on one row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..data import Construct, DataError, Splits, Table
from ..graph.build import build
from ..graph.model import GraphModel
from ..graph.resolved import Resolved
from .wiring import DNA, FLAG, Wiring


def without_lone(
    resolved: Resolved, wiring: Wiring, table: Table, splits: Splits, construct: Construct
) -> tuple[Splits, str]:
    """The splits without training rows that would be a batch of one which a batch norm of the model refuses.

    A batch has sequences of one length, so a row that alone has its length is a batch by itself. Most norms train on
    it; one that sees a single value a channel, over vectors or a track of one position, cannot. Gives the splits, and
    what to say of it. Errors: `DataError` if no row is left.
    """
    lengths = np.array([len(construct.assemble(table.sequences[row])) for row in splits.train])
    found, counts = np.unique(lengths, return_counts=True)
    lone = found[counts == 1]
    if not len(lone):
        return splits, ""
    model = build(resolved, device="meta").train()
    refused = [length for length in lone.tolist() if _refuses(model, wiring, length)]
    kept = ~np.isin(lengths, refused)
    if kept.all():
        return splits, ""
    said = (
        f"{int((~kept).sum())} of {len(lengths):,} training rows are left out: no other has their length "
        f"({', '.join(map(str, refused[:5]))}{', ...' if len(refused) > 5 else ''}), and a batch norm of "
        f"{resolved.name!r} sees one value of one such row; a construct that pads gives all one length"
    )
    if not kept.any():
        raise DataError(said)
    return replace(splits, train=splits.train[kept]), said


def _refuses(model: GraphModel, wiring: Wiring, length: int) -> bool:
    """Whether a batch norm sees one value a channel of one row of this length; on a CPU where meta cannot run it."""
    single: list[nn.Module] = []

    def look(norm: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].numel() == args[0].shape[1]:
            single.append(norm)

    for device in ("meta", "cpu"):
        tried = model if device == "meta" else build(model.resolved).train()
        hooks = [m.register_forward_pre_hook(look) for m in tried.modules() if isinstance(m, _BatchNorm)]
        shown = {DNA: torch.zeros(1, 4, length, device=device), FLAG: torch.zeros(1, dtype=torch.int64, device=device)}
        try:
            with torch.no_grad():
                tried(**wiring.inputs(shown), outputs=list(wiring.heads))
            return False
        except (ValueError, NotImplementedError, RuntimeError):
            if single:
                return True
        finally:
            for hook in hooks:
                hook.remove()
    return False  # what else it cannot do, training says
