"""The one dispatcher on a module: its hooks call whatever acts there, in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from .adapter import Adapter
from .guard import guard_hooks, refuse_reentrant
from .place import Place


class Site(nn.Module):
    """The adapters on one module, as `<name>:<kind>`. Its two hooks are bound methods, so copies and pickles keep them.

    Nothing in it changes during a forward pass. Where nothing acts for longer it has no hooks; within a context that
    switches it off they stay, as a call that does nothing.
    """

    def __init__(self, place: Place):
        super().__init__()
        self.path, self.axis = place.path, place.axis
        self.widths = (place.inputs, place.outputs)
        self._pre: tuple[Any, ...] = ()
        self._post: tuple[Any, ...] = ()
        self._handles: dict[str, Any] = {}

    def held(self, name: str) -> list[Adapter]:
        """The adapters that belong to a name."""
        prefix = f"{name}:"
        return [m for key, m in self._modules.items() if key.startswith(prefix) and isinstance(m, Adapter)]

    def by_name(self) -> dict[str, list[Adapter]]:
        """Every name's adapters."""
        found: dict[str, list[Adapter]] = {}
        for key, module in self._modules.items():
            if isinstance(module, Adapter):
                found.setdefault(key.partition(":")[0], []).append(module)
        return found

    @property
    def empty(self) -> bool:
        """Whether nothing acts here now."""
        return not self._pre and not self._post

    def set(self, steps: Sequence[Any]) -> None:
        """Let these act from now on."""
        self._pre = tuple(step for step in steps if step.acts_before())
        self._post = tuple(step for step in steps if step.acts_after())

    def hook(self, module: nn.Module) -> None:
        """Register what the steps need and is not yet there."""
        if self._pre and "before" not in self._handles:
            self._handles["before"] = module.register_forward_pre_hook(self.before, with_kwargs=True)
        if (self._pre or self._post) and "after" not in self._handles:
            self._handles["after"] = module.register_forward_hook(self.after, with_kwargs=True)

    def unhook(self) -> None:
        """Take the module's hooks away: these and no others."""
        for handle in self._handles.values():
            handle.remove()
        self._handles.clear()

    def before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        if not self._pre:
            return None
        for step in self._pre:
            args, kwargs = step.before(module, args, kwargs)
        return args, kwargs

    def after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        if not self._post and not self._pre:
            return None
        if module.training and not torch.is_grad_enabled():
            refuse_reentrant(self)
        for step in self._post:
            out = step.after(module, args, kwargs, out)
        return out

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        guard_hooks()  # unpickled, it may be the first in its process

    def __deepcopy__(self, memo: dict[int, Any]) -> Site:
        import copy

        new = self.__class__.__new__(self.__class__)
        memo[id(self)] = new
        new.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return new
