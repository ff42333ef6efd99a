"""The base classes of what registers: `Block` and `Head`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor, nn

if TYPE_CHECKING:
    from .registry import Entry


class Block(nn.Module):
    """A module whose signature, constructor and forward agree, checked by `register`.

    Positional constructor parameters are dimensions that the wiring supplies, keyword-only ones are the recipe's
    arguments, and forward's parameters are the ports. See docs/design.md, 'A block'.
    """

    entry: ClassVar[Entry]

    @classmethod
    def check(cls, *_: Any, **__: Any) -> None:  # overridden with parameters of any names
        """Raise `Misfit` where dimensions and arguments, each fine by itself, do not go together.

        A block overrides it with the constructor's parameters (heads that must divide channels, a pooling that needs
        a stated length); the resolver locates the error before anything is built.
        """


class Head(Block):
    """A block whose output is an output of the model, and which owns its loss."""

    loss_ports: ClassVar[tuple[str, ...]] = ("out",)

    def loss(self, outputs: Mapping[str, Tensor], target: Tensor, mask: Tensor | None = None) -> Tensor:
        """The scalar loss of this head.

        `outputs` maps the ports named by `loss_ports` to tensors; `target` has the shape that `target_shape` says. NaN
        targets and positions where `mask` is False do not count.
        """
        raise NotImplementedError

    def target_shape(self, outputs: Mapping[str, Tensor]) -> tuple[int, ...]:
        """The shape of targets for some outputs: the first loss port's. A head with other targets overrides it."""
        return tuple(outputs[self.loss_ports[0]].shape)


def reset_parameters(module: nn.Module) -> None:
    """Draw every parameter and constant of a module anew, each by its own module's initialisation.

    Children come first, so that a module that overrides its children's values (a zero-initialised output) wins.
    Use when: a model built on the meta device has been given memory, or a stage is to start from scratch.
    """
    for child in module.children():
        reset_parameters(child)
    own = getattr(module, "reset_parameters", None)
    if callable(own):
        own()
