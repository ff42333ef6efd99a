"""How a tensor of a source becomes one of ours: some of its rows, its axes moved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_ROWS = re.compile(r"rows (\d+):(\d+)/(\d+)")


@dataclass(frozen=True)
class Transform:
    """Axes moved, as einops writes it, theirs -> ours: `"k i o -> o i k"`. Empty: as it is.

    `"rows 1:2/3"` is the second third of the first axis: for matrices that hold several of ours.
    """

    said: str = ""

    def __call__(self, tensor: Tensor) -> Tensor:
        """The tensor as ours; a view where that is possible."""
        if not self.said:
            return tensor
        if self._rows is not None:
            start, stop, parts = self._rows
            if not tensor.dim() or len(tensor) % parts:
                raise ValueError(f"{parts} parts do not share out {list(tensor.shape)}")
            return tensor[len(tensor) // parts * start : len(tensor) // parts * stop]
        from einops import rearrange

        return rearrange(tensor, self.said)

    @cached_property
    def _rows(self) -> tuple[int, int, int] | None:
        found = _ROWS.fullmatch(self.said)
        return None if found is None else (int(found[1]), int(found[2]), int(found[3]))

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape that comes out, or None where it doesn't fit."""
        if not self.said:
            return shape
        try:
            return tuple(self(torch.empty(shape, device="meta")).shape)
        except (ValueError, RuntimeError):  # einops' own error is a RuntimeError
            return None


AS_IS = Transform()
