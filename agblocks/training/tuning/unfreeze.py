"""One step of a schedule that lets more of a model train: after so many epochs, or when validation stops improving."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from ...errors import near, shown
from ..errors import RunError
from .terms import Terms, as_terms

PLATEAU = "plateau"
_WHEN = re.compile(r"plateau(?::(\d{0,9})(?::(\d{1,9}))?)?(?:x([0-9.eE+-]+))?", re.ASCII)
_WANTED = (
    "wanted epochs=what, like 3=encoder.stage6+encoder.stage7, or plateau=what, or plateau:5=what to say the patience, "
    "plateau:5:20=what to wait for 20 epochs at most, plateau:5x0.1=what for another learning rate"
)
_MOST = 10**9


@dataclass(frozen=True)
class Unfreeze:
    """What joins those that train (`train`), and when: after so many epochs of the stage, or at a plateau.

    after: epochs since the training began, or since the last plateau before this step in the list. The optimiser goes
        on as it is, with what joined in it.
    plateau: True, or the number of evaluations without a better score after which a new stage begins (True: as many as
        `Settings.patience`). Then the best weights so far are taken back, optimiser and moving average start anew, and
        so does the learning rate's schedule, over the epochs that are left. Steps before it in the list come first,
        and evaluations before the last of them don't count.
    latest: epochs after which a stage ends, plateau or not; with `plateau` as large as `latest` exactly so many.
    lr: what the learning rate is multiplied with in the new stage.
    Use when: `Unfreeze("encoder", after=3)`; the two-stage training of MPRA heads, `Unfreeze("full", plateau=5,
        lr=0.01)`; several plateaus one after the other are gradual unfreezing.
    Source: facts of document 001 (stage 1 the head, to a plateau; stage 2 everything, from the best of stage 1).
    """

    train: Terms
    after: int | None = None
    plateau: int | bool | None = None
    latest: int | None = None
    lr: float = 1.0

    def __post_init__(self) -> None:
        train: Any = self.train
        object.__setattr__(self, "train", as_terms(train, "unfreeze"))
        if (self.after is None) == (self.plateau is None):
            found = "both" if self.after is not None else "neither"
            raise RunError(f"unfreeze: after or plateau, not {found}; {_WANTED}")
        if self.after is not None:
            if type(self.after) is not int or not 1 <= self.after < _MOST:
                raise RunError(
                    f"unfreeze: {shown(self.after)}; wanted a whole number of epochs from 1, like 3=encoder.stage7"
                )
            if self.latest is not None or self.lr != 1:
                raise RunError("unfreeze: latest and lr are of a plateau, where a new stage begins, not of after")
            return
        if self.plateau is not True and not _counts(self.plateau):
            raise RunError(f"unfreeze: plateau {shown(self.plateau)}; wanted true, or a number of evaluations from 1")
        if self.latest is not None and not _counts(self.latest):
            raise RunError(f"unfreeze: latest {shown(self.latest)}; wanted a whole number of epochs from 1")
        rate: Any = self.lr
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0 < rate <= 1e6:
            raise RunError(f"unfreeze: lr {shown(rate)}; wanted what the learning rate is multiplied with, above 0")
        object.__setattr__(self, "lr", float(rate))

    def patience(self, patience: int) -> int:
        """Evaluations without a better score until a plateau; `patience` is that of the settings."""
        return patience if self.plateau is True else int(self.plateau or 0)

    def __str__(self) -> str:
        """The command line's form; `parse` gives the step back."""
        return f"{self.when}={'+'.join(self.train)}"

    @property
    def when(self) -> str:
        """`3`, `plateau`, `plateau:5:20x0.1`."""
        if self.after is not None:
            return str(self.after)
        number = "" if self.plateau is True else str(self.plateau)
        counts = "" if not number and self.latest is None else f":{number}"
        latest = "" if self.latest is None else f":{self.latest}"
        return f"{PLATEAU}{counts}{latest}{'' if self.lr == 1 else f'x{self.lr!r}'}"

    @classmethod
    def parse(cls, text: str) -> Unfreeze:
        """A step as the command line says it."""
        when, equals, terms = (part.strip() for part in text.partition("="))
        if not equals:
            raise RunError(f"unfreeze: {shown(text)}; {_WANTED}")
        if found := _WHEN.fullmatch(when):
            patience, latest, lr = found.groups()
            try:
                rate = 1.0 if lr is None else float(lr)
            except ValueError:
                raise RunError(f"unfreeze: {shown(when)}: {shown(lr)} is no number; {_WANTED}") from None
            return cls(
                as_terms(terms, "unfreeze"), plateau=int(patience) if patience else True,
                latest=None if latest is None else int(latest), lr=rate,
            )  # fmt: skip
        if when.startswith(PLATEAU):
            raise RunError(f"unfreeze: {shown(when)}; {_WANTED}")
        after: Any = int(when) if re.fullmatch(r"[0-9]{1,9}", when) else when
        return cls(as_terms(terms, "unfreeze"), after=after)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: what is said, and no more."""
        found: dict[str, Any] = {"train": list(self.train)}
        for name in ("after", PLATEAU, "latest"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        return found if self.lr == 1 else {**found, "lr": self.lr}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Unfreeze:
        """The step that `to_dict` wrote. Strict."""
        names = [field.name for field in fields(cls)]
        for name in values:
            if name not in names:
                raise RunError(f"unfreeze: there is no {shown(name)}; {near(str(name), names)}")
        if "train" not in values:
            raise RunError("unfreeze: train is missing: what joins")
        return cls(**values)


def as_steps(said: str | Iterable[Any]) -> tuple[Unfreeze, ...]:
    """A schedule from text, `3=encoder.stage7,plateau=full`, or a list of steps in any form (or (epochs, terms)).

    Errors: `RunError`, also where a step cannot come after the one before it.
    """
    if not isinstance(said, Iterable):
        raise RunError(f"unfreeze: {shown(said)}; {_WANTED}")
    parts: list[Any] = [part for part in said.split(",") if said] if isinstance(said, str) else list(said)
    steps = tuple(map(_as_step, parts))
    after: list[int] = []
    for step in steps:
        if step.after is not None:
            after.append(step.after)
            if after != sorted(set(after)):
                raise RunError(
                    f"unfreeze: after {', '.join(map(str, after))} epochs; wanted each later than the one before"
                )
            continue
        if step.latest is not None and after and step.latest <= after[-1]:
            raise RunError(f"unfreeze: {step.when}: at the latest after {step.latest} epochs, but a part is to join "
                           f"after {after[-1]} before that")  # fmt: skip
        after = []
    return steps


def _as_step(said: Any) -> Unfreeze:
    if isinstance(said, Unfreeze):
        return said
    if isinstance(said, str):
        return Unfreeze.parse(said)
    if isinstance(said, Mapping):
        return Unfreeze.from_dict(said)
    if isinstance(said, (list, tuple)) and len(said) == 2:
        return Unfreeze(said[1], after=said[0])
    raise RunError(f"unfreeze: {shown(said)}; {_WANTED}")


def _counts(value: Any) -> bool:
    return type(value) is int and 1 <= value < _MOST
