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

    Sizes that the axes alone don't say follow after a bar: `"(l c) o -> o (c l) | c=120"`.
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

        axes, _, rest = self.said.partition("|")
        sizes = {name: int(size) for name, _, size in (part.partition("=") for part in rest.split())}
        return rearrange(tensor, axes.strip(), **sizes)

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

    def back(self) -> Transform:
        """The way from ours to theirs. Errors: `ValueError` for rows, which don't say the others."""
        if self._rows is not None:
            raise ValueError(f"{self.said!r} has no way back: the other rows are of other tensors")
        axes, bar, rest = self.said.partition("|")
        if not axes:
            return self
        theirs, ours = (side.strip() for side in axes.split("->"))
        return Transform(f"{ours} -> {theirs}" + (f" |{rest}" if bar else ""))


AS_IS = Transform()
