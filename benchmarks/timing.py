"""Paired timings: two pieces of work in turn, the ratio pair by pair, so that a drifting machine cancels."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """Seconds of each run."""

    seconds: list[float]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    def __str__(self) -> str:
        return f"{1000 * self.median:.2f} ms (min {1000 * min(self.seconds):.2f})"


@dataclass(frozen=True)
class Ratio:
    """Ours over the other's, one value a pair."""

    values: list[float]

    def __str__(self) -> str:
        low, middle, high = statistics.quantiles(self.values, n=4)
        return f"{middle:.3f} (quartiles {low:.3f} to {high:.3f}, {len(self.values)} pairs)"


def clock(work: Callable[[], object], repeats: int = 20, warm_up: int = 3) -> Timing:
    """Time some work by itself."""
    for _ in range(warm_up):
        work()
    return Timing([_once(work) for _ in range(repeats)])


def pair(
    ours: Callable[[], object],
    other: Callable[[], object],
    repeats: int = 20,
    warm_up: int = 3,
    batch: int = 1,
    timer: Callable[[], float] = time.perf_counter,
) -> tuple[Timing, Timing, Ratio]:
    """Time two pieces of work in turn, their order changing; `batch` calls make one run, `timer` tells the seconds."""
    for _ in range(warm_up):
        ours(), other()
    mine, theirs = [], []
    for turn in range(repeats):
        for work, into in ((ours, mine), (other, theirs))[:: 1 if turn % 2 else -1]:
            into.append(_once(work, batch, timer))
    return Timing(mine), Timing(theirs), Ratio([a / b for a, b in zip(mine, theirs, strict=True)])


def _once(work: Callable[[], object], batch: int = 1, timer: Callable[[], float] = time.perf_counter) -> float:
    start = timer()
    for _ in range(batch):
        work()
    return (timer() - start) / batch
