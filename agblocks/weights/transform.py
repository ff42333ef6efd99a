"""How a tensor of a source becomes one of ours: its axes moved."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Transform:
    """Axes moved, as einops writes it, theirs -> ours: `"k i o -> o i k"`. Empty: as it is.

    Sizes that the axes alone don't say follow after a bar: `"(l c) o -> o (c l) | c=120"`.
    """

    axes: str = ""

    def __call__(self, tensor: Tensor) -> Tensor:
        """The tensor with its axes moved; a view where that is possible."""
        if not self.axes:
            return tensor
        from einops import rearrange

        axes, _, rest = self.axes.partition("|")
        sizes = {name: int(size) for name, _, size in (part.partition("=") for part in rest.split())}
        return rearrange(tensor, axes.strip(), **sizes)

    def shape(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape that comes out, or None where the axes don't fit."""
        if not self.axes:
            return shape
        from einops import EinopsError

        try:
            return tuple(self(torch.empty(shape, device="meta")).shape)
        except EinopsError:
            return None

    def back(self) -> Transform:
        """The way from ours to theirs."""
        if not self.axes:
            return self
        axes, bar, rest = self.axes.partition("|")
        theirs, ours = (side.strip() for side in axes.split("->"))
        return Transform(f"{ours} -> {theirs}{' |' if bar else ''}{rest}")


AS_IS = Transform()
