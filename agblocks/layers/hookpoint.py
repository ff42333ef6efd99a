"""A place where a hook can reach a value that no module returns."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

T = TypeVar("T")


class HookPoint(nn.Module):
    """Return what is given, a tensor or a tuple of tensors: a forward hook may put something else in its place.

    Shapes: any -> the same. Use when: an adapter must reach a value inside a block's forward (keys and values after
    norm and rotation, a pair bias). Costs nothing without a hook.
    """

    def forward(self, value: T) -> T:
        return value
