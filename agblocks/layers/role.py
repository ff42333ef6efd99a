"""Names of what adapters aim at, the same in every architecture."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def role(module: M, name: str, *, width: int | None = None, axis: int = -1) -> M:
    """Mark a module with its role (`attn.q`, `conv.main`, `norm`, ...) in `module.role`, and return it.

    `width` says how many channels it gives, at `axis`, where its type does not. The list of roles is in docs/design.md,
    'A block'. A role is no state: it is not saved, and it survives a deepcopy. An `Identity` (a norm that is not there)
    has none.
    """
    if type(module) is nn.Identity:
        return module
    module.__dict__["role"] = name
    if width is not None:
        module.__dict__["width"], module.__dict__["channel_axis"] = width, axis
    return module
