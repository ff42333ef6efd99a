"""Borzoi's squashed scale of coverage, both ways."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Form = Literal["old", "new"]
POWER = 0.75


def squash(
    coverage: Tensor, *, form: Form = "old", scale: float | Tensor = 0.01, clip: float | Tensor = 384.0
) -> Tensor:
    """Coverage to the scale that Borzoi's RNA tracks are trained on: a power of 3/4, and a square root above `clip`.

    `old`: y = x ** 0.75, above the clip clip + sqrt(y - clip), then times `scale`: the released Borzoi and Flashzoi.
    `new`: y = (scale x + 1) ** 0.75 - 1, above the clip clip - 1 + sqrt(y - clip + 1).
    Shapes: any, from 0 on -> the same; `scale` and `clip` may be tensors that broadcast (tracks, 1).
    Use when: targets of one's own are to train a Borzoi.
    """
    y = coverage**POWER if form == "old" else (coverage * scale + 1) ** POWER - 1
    start = _start(form, clip)
    # The clamp keeps the root's gradient away from where it isn't used.
    over = (y - start).clamp(min=0)
    root = torch.where(over > 0, over, 1.0).sqrt()
    y = torch.where(y > clip, start + root, y)
    return y * scale if form == "old" else y


def unsquash(
    prediction: Tensor, *, form: Form = "old", scale: float | Tensor = 0.01, clip: float | Tensor = 384.0
) -> Tensor:
    """Predictions of Borzoi's RNA tracks back to coverage: the inverse of `squash`.

    Shapes: any, from 0 on -> the same; `scale` and `clip` may be tensors that broadcast (tracks, 1).
    Use when: predictions are to be compared with experiments, or summed over exons. Tracks that were not squashed
    (the table of targets says which) stay as they are.
    Source: borzoi-pytorch, `undo_squashed_scale`, with its defaults.
    """
    y = prediction / scale if form == "old" else prediction
    start = _start(form, clip)
    y = torch.where(y > clip, (y - start).square() + start, y)
    return y ** (1 / POWER) if form == "old" else ((y + 1) ** (1 / POWER) - 1) / scale


def _start(form: Form, clip: float | Tensor) -> float | Tensor:
    """What the square root counts from; one below the clip, as in `new`, its slope there is 1/2 and not infinite."""
    return clip if form == "old" else clip - 1
