"""Stages of a training, which begin at plateaus of the validation score: a function of the scores alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..settings import Settings


@dataclass(frozen=True)
class Stage:
    """Where a training stands. number: 0 for the first. begun: epochs that were over when it began.

    epochs: how many it has at most, over which the learning rate's schedule goes. lr: factor of the learning rate.
    last: whether no other follows.
    """

    number: int
    begun: int
    epochs: int
    lr: float
    last: bool


def stages(scores: Sequence[float], settings: Settings) -> tuple[Stage, ...]:
    """The stages begun so far, given the score of every epoch so far (larger is better, nan for none).

    A stage ends when the best of its own epochs is `patience` epochs ago, and all that was to join in it has been
    training for as long; or after `latest` epochs. None begins when all epochs of the settings are over.
    """
    steps = settings.tuning.plateaus
    found = [_stage(settings, 0, 0)]
    for seen in range(1, min(len(scores), settings.epochs - 1) + 1):
        stage = found[-1]
        if stage.last:
            break
        step = steps[stage.number]
        patience = step.patience(settings.patience)
        late = step.latest is not None and seen - stage.begun >= step.latest
        if late or 0 < patience <= _waited(scores[:seen], stage, settings):
            found.append(_stage(settings, stage.number + 1, seen))
    return tuple(found)


def is_over(scores: Sequence[float], settings: Settings) -> bool:
    """Whether training is over: all epochs, or in the last stage, when all joined, too many without a better score."""
    stage = stages(scores, settings)[-1]
    enough = stage.last and 0 < settings.patience <= _waited(scores, stage, settings)
    return enough or len(scores) >= settings.epochs


def best_of(scores: Sequence[float]) -> int:
    """The best epoch from 1, the earliest of equals; 0 before the first. While no score is finite, the last."""
    best = 0
    for epoch, score in enumerate(scores, 1):
        if best == 0 or not math.isfinite(scores[best - 1]) or score > scores[best - 1]:
            best = epoch
    return best


def _stage(settings: Settings, number: int, begun: int) -> Stage:
    steps = settings.tuning.plateaus
    left = settings.epochs - begun
    last = number == len(steps)
    latest = None if last else steps[number].latest
    lr = steps[number - 1].lr if number else 1.0
    return Stage(number, begun, left if latest is None else min(left, latest), lr, last)


def _waited(scores: Sequence[float], stage: Stage, settings: Settings) -> int:
    """Epochs of a stage since its best, or since the last part joined in it if that was later."""
    joined = max(epochs for number, epochs, _ in settings.tuning.joining if number == stage.number)
    return len(scores) - stage.begun - max(best_of(scores[stage.begun :]), joined)
