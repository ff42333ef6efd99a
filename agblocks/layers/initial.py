"""Initial weights that a published model draws in another way than torch does."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

Initial = Literal["torch", "fan_out", "glorot"]

LINEAR = 0.001  # standard deviation of linear maps beside fan-out convolutions


@torch.no_grad()
def draw_initial(module: nn.Module, initial: Initial) -> None:
    """Draw the convolutions and linear maps inside a module by a rule; `torch` leaves them as they are.

    `fan_out`: convolutions N(0, 2 / (width * out_channels)), linear maps N(0, 0.001 ** 2), biases 0 (MPRALegNet and
    the Autosome parts of the DREAM nets). `glorot`: uniform within sqrt(6 / (fan in + fan out)), biases 0 (Keras, so
    DeepSTARR). Norms start at 1 and 0 by all three.
    Use when: a block's `reset_parameters` ends with it, after its children have drawn theirs.
    """
    if initial == "torch":
        return
    for part in module.modules():
        if not isinstance(part, nn.Conv1d | nn.Linear):
            continue
        if initial == "glorot":
            nn.init.xavier_uniform_(part.weight)
        elif isinstance(part, nn.Conv1d):
            nn.init.normal_(part.weight, std=math.sqrt(2 / (part.kernel_size[0] * part.out_channels)))
        else:
            nn.init.normal_(part.weight, std=LINEAR)
        if part.bias is not None:
            nn.init.zeros_(part.bias)
