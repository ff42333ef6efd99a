"""A model with parts of it frozen, by a policy; and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ...layers.rest import STATISTICS, norms_that_move
from ..errors import RunError
from .choose import chosen, graph_of
from .tune import Tune


class Frozen:
    """The token of one freezing: what it changed, when the rest joins, how to undo it. Made by `freeze`."""

    def __init__(self, model: nn.Module, tune: Tune):
        self.model, self.tune = model, tune
        self._flags = [(p, p.requires_grad) for p in model.parameters()]
        # Stage, and epochs of that stage, until it trains.
        self._when: dict[int, tuple[int, int]] = {id(p): (0, 0) for p, flag in self._flags if flag}
        if not tune.is_full:
            graph = graph_of(model)
            for parameter in graph.parameters():
                self._when.pop(id(parameter), None)
            for i, (*when, terms) in enumerate(tune.joining):
                said = f"unfreeze {tune.later[i - 1].when}:" if i else "tune"
                new = [p for p in chosen(graph, terms, said) if id(p) not in self._when]
                if i and not new:
                    raise RunError(f"unfreeze {tune.later[i - 1]}: all of it trains before that")
                self._when.update({id(p): (when[0], when[1]) for p in new})
        if not self._when:
            raise RunError(f"tune {tune.tune}: nothing trains: every parameter is frozen")
        self._norms: list[tuple[nn.Module, list[nn.Parameter]]] = []
        self._rested: set[int] = set()
        # A wrapper of adapters may say that its norms follow the batches, frozen or not, and saves what they hold.
        for norm, watched in [] if getattr(model, "norms", None) == "track" else norms_that_move(model):
            rests = model.training and not norm.training
            if rests and any(p.requires_grad for p in watched):
                continue  # it trains, and was put in evaluation by hand: there it stays
            self._norms.append((norm, watched))
            if rests:
                self._rested.add(id(norm))
        self.advance(0)

    def after(self, parameter: nn.Parameter) -> int | None:
        """After how many epochs of its stage a parameter trains; 0 from the stage's start, None never."""
        when = self.when(parameter)
        return None if when is None else when[1]

    def when(self, parameter: nn.Parameter) -> tuple[int, int] | None:
        """The stage in which a parameter begins to train, 0 for the first, and after how many of its epochs."""
        return self._when.get(id(parameter))

    def advance(self, epochs: int, stage: int = 0) -> None:
        """Let train what does once so many epochs of a stage are over, and all of the stages before it.

        To be called before each epoch; the order is free.
        """
        for parameter, _ in self._flags:
            when = self.when(parameter)
            parameter.requires_grad_(when is not None and when <= (stage, epochs))
        self.settle()

    def settle(self) -> None:
        """Put norms whose parameters are frozen in evaluation, so that their statistics stay. After every `train()`.

        A norm without parameters goes by those of the part that it lies in.
        """
        if self.model.training:
            for norm, watched in self._norms:
                norm.training = any(p.requires_grad for p in watched)

    def train(self, mode: bool = True) -> nn.Module:
        """`model.train(mode)`, with norms of frozen parts in evaluation."""
        self.model.train(mode)
        self.settle()
        return self.model

    @contextmanager
    def ever(self) -> Iterator[None]:
        """Within, everything that trains at any time wants a gradient: to lay out an optimiser."""
        now = [p.requires_grad for p, _ in self._flags]
        try:
            for parameter, _ in self._flags:
                parameter.requires_grad_(self.when(parameter) is not None)
            yield
        finally:
            for (parameter, _), flag in zip(self._flags, now, strict=True):
                parameter.requires_grad_(flag)

    def fixed(self) -> list[Tensor]:
        """Tensors that training never changes: parameters that never train, statistics of norms that never do."""
        still: list[Tensor] = [p for p, _ in self._flags if self.after(p) is None]
        for norm, watched in self._norms:
            if all(self.after(p) is None for p in watched):
                still += [b for name, b in norm.named_buffers(recurse=False) if name in STATISTICS]
        return still

    def restore(self) -> None:
        """Set every `requires_grad` as it was, and norms to the model's mode if they were in it."""
        for parameter, flag in self._flags:
            parameter.requires_grad_(flag)
        for norm, _ in self._norms:
            norm.training = self.model.training and id(norm) not in self._rested


def freeze(model: nn.Module, tune: Tune | str) -> Frozen:
    """Freeze what a policy says, `freeze(model, "last:2")`, all or nothing; the token restores every flag exactly.

    model: a recipe's, or one that wraps it (whose own parameters, those of adapters, are left as they are).
    Errors: `RunError` for names that fit nothing, with near ones; for a policy under which nothing trains.
    Use when: training by a loop of one's own; call `advance(epoch)` before each epoch, `settle()` after each `train()`.
        `fit` does all of this.
    """
    return Frozen(model, Tune.parse(tune) if isinstance(tune, str) else tune)
