"""How several named adapters act together: in turn, averaged, on parts of a batch or of a track, fused."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import shown
from .errors import CompositionError

Part = "str | Composition"


@dataclass(frozen=True, init=False)
class Composition:
    """Names of adapters, and compositions of them, put together; see the kinds below. `str(c)` is what is stored."""

    parts: tuple[Any, ...]

    def __init__(self, *parts: Any):
        if len(parts) < 1:
            raise CompositionError(f"{type(self).__name__} needs adapters to put together")
        for part in parts:
            if not isinstance(part, (str, Composition)):
                raise CompositionError(f"{type(self).__name__} takes names and compositions, not {part!r}")
            allowed = NESTING[type(self).__name__]
            if isinstance(part, Composition) and type(part).__name__ not in allowed:
                raise CompositionError(f"{type(part).__name__} cannot stand inside {type(self).__name__}: {REASONS}")
        object.__setattr__(self, "parts", parts)

    def names(self) -> Iterator[str]:
        """Every adapter in it."""
        for part in self.parts:
            yield from [part] if isinstance(part, str) else part.names()

    def __str__(self) -> str:
        options = "".join(f", {k}={list(v)}" for k, v in self.options().items() if v is not None)
        return f"{type(self).__name__}({', '.join(map(str, self.parts))}{options})"

    def options(self) -> dict[str, Any]:
        """What it was given beside its parts."""
        return {}


class Stack(Composition):
    """Each acts on what the one before gives. Adapters of plain names keep the order of phases among each other."""


@dataclass(frozen=True, init=False)
class Average(Composition):
    """The weighted mean of what each would give by itself; weights are divided by their sum unless told otherwise.

    For adapters that add to weights this is the mean of what they add, and can be merged. The module is called once, so
    at a site either all change what it gives, or all what it reads; the latter on linear maps and convolutions alone,
    with weights that add up to 1 where there is a bias. Else `CompositionError`: stack an average of each sort.
    """

    weights: tuple[float, ...] | None
    normalize: bool

    def __init__(self, *parts: Any, weights: Sequence[float] | None = None, normalize: bool = True):
        super().__init__(*parts)
        numbers = None if weights is None else _numbers("Average", parts, weights, "weights")
        if normalize and numbers and not 0 < sum(numbers) < math.inf:
            raise CompositionError(f"Average divides weights by their sum, which is {sum(numbers)}; or normalize=False")
        object.__setattr__(self, "weights", numbers)
        object.__setattr__(self, "normalize", normalize)

    def shares(self) -> tuple[float, ...]:
        """What each counts."""
        weights = self.weights or (1.0,) * len(self.parts)
        total = sum(weights) if self.normalize else 1.0
        return tuple(weight / total for weight in weights)

    def options(self) -> dict[str, Any]:
        return {"weights": self.weights, "normalize": None if self.normalize else [False]}


@dataclass(frozen=True, init=False)
class BatchSplit(Composition):
    """The first rows of a batch go to the first adapter, the next to the second: `sizes` add up to the batch."""

    sizes: tuple[int, ...]

    def __init__(self, *parts: Any, sizes: Sequence[int]):
        super().__init__(*parts)
        rows = tuple(sizes) if isinstance(sizes, Sequence) else ()
        if len(rows) != len(parts) or any(type(n) is not int or n < 0 for n in rows):
            raise CompositionError(
                f"BatchSplit has {len(parts)} adapters and wants a number of rows for each: {shown(sizes)}"
            )
        object.__setattr__(self, "sizes", rows)

    def options(self) -> dict[str, Any]:
        return {"sizes": self.sizes}


@dataclass(frozen=True, init=False)
class Split(Composition):
    """Parts of the length go to different adapters; `fractions` of the whole, as tracks differ in resolution.

    Every border falls between two positions, so that it is the same base at every site: one that would cut a position
    of some site in two raises `CompositionError` there, and nothing is rounded.
    """

    fractions: tuple[float, ...]

    def __init__(self, *parts: Any, fractions: Sequence[float]):
        super().__init__(*parts)
        numbers = _numbers("Split", parts, fractions, "fractions")
        if abs(sum(numbers) - 1) > 1e-6 or any(f <= 0 for f in numbers):
            raise CompositionError(f"Split wants fractions above 0 that add up to 1, not {shown(fractions)}")
        object.__setattr__(self, "fractions", numbers)

    def options(self) -> dict[str, Any]:
        return {"fractions": self.fractions}


class Parallel(Composition):
    """The whole batch goes to each adapter: outputs have their rows one after the other, as if called for each.

    The batch is repeated at the model's inputs: with skip connections between stages it cannot be repeated further in.
    """


class Fuse(Composition):
    """AdapterFusion: at every position attention chooses among what the adapters give.

    Needs `bank.add_fusion(...)` for its own parameters first; the fused adapters are frozen while those train.
    """


def names_in(part: str | Composition | None) -> tuple[str, ...]:
    """The adapters in what is active."""
    return () if part is None else (part,) if isinstance(part, str) else tuple(part.names())


def _numbers(kind: str, parts: Sequence[Any], given: Any, what: str) -> tuple[float, ...]:
    """One finite number for each part."""
    try:
        good = len(given) == len(parts) and all(math.isfinite(n) for n in given)  # takes no text, which float would
    except (TypeError, ValueError, OverflowError, RuntimeError):
        good = False
    if not good:
        raise CompositionError(
            f"{kind} has {len(parts)} adapters and wants as many finite numbers as {what}, not {shown(given)}"
        )
    return tuple(map(float, given))


NESTING: dict[str, set[str]] = {
    "Stack": {"Stack", "Fuse", "Split", "BatchSplit", "Average"},
    "Fuse": {"Stack"},
    "Split": {"Split", "Stack", "BatchSplit", "Average"},
    "Parallel": {"Stack", "BatchSplit", "Average"},
    "BatchSplit": {"Stack", "Split", "BatchSplit", "Average"},
    "Average": {"Stack", "Split", "BatchSplit"},
}
REASONS = (
    "a fusion compares whole outputs, and a batch is repeated once, at the inputs; the rest nests as long as each part "
    "sees rows and positions of its own"
)
