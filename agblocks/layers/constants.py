"""Constants of a module that a cast of the model leaves exact."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

E = TypeVar("E", bound="ExactConstants")


class ExactConstants(nn.Module):
    """A module whose constants, its buffers that are not saved, stay float64 whatever the model is cast to.

    Use when: frequencies or thresholds would blur in half precision, and positions with them.
    """

    def _apply(self: E, fn: Any, recurse: bool = True) -> E:
        before = {name: self._buffers[name] for name in self._non_persistent_buffers_set}
        super()._apply(fn, recurse)
        for name, exact in before.items():
            moved = self._buffers[name]
            if exact is not None and moved is not None and moved.dtype != torch.float64:
                self._buffers[name] = exact.to(moved.device)
        return self
