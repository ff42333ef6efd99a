"""Names of what adapters aim at, the same in every architecture."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def role(module: M, name: str) -> M:
    """Mark a module with its role (`attn.q`, `conv.main`, `norm`, ...) in `module.role`, and return it.

    The list of roles is in docs/design.md, 'A block'. A role is no state: it is not saved, and it survives a deepcopy.
    """
    module.__dict__["role"] = name
    return module
