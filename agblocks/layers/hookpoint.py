"""A place where a hook can reach a value that no module returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from torch import nn

T = TypeVar("T")


class HookPoint(nn.Module):
    """Return what is given, a tensor or a tuple of tensors: a forward hook may put something else in its place.

    Shapes: any -> the same. Use when: an adapter must reach a value inside a block's forward (keys and values after
    norm and rotation, a pair bias). Costs nothing without a hook.

    One that stands at keys and values, `kv`, is given (k, v): (batch, positions, *keys), (batch, positions, *values),
    and says so: `keys` (128,) where all query heads share a key, (heads, 64) where each has its own; `heads` are those
    of the queries. A hook may put positions in front of both, or `GatedPrefix`es behind: (k, v, prefix, ...).
    """

    def __init__(self, *, keys: Sequence[int] = (), values: Sequence[int] = (), heads: int = 0):
        super().__init__()
        self.keys, self.values, self.heads = tuple(keys), tuple(values), heads

    def forward(self, value: T) -> T:
        return value

    def extra_repr(self) -> str:
        return f"keys={self.keys}, values={self.values}, heads={self.heads}" if self.keys else ""
