"""Annotations for a block's arguments: validated by pydantic, drawn from by hypothesis, printed in the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, Predicate

LARGEST = 65536


def odd(value: int) -> bool:
    """Whether a whole number is odd."""
    return value % 2 == 1


@dataclass(frozen=True, eq=False)
class Examples:
    """Metadata of an annotation: the values that tests draw, where few of the valid ones make sense together."""

    examples: tuple[Any, ...]


Positive = Annotated[int, Gt(0), Le(LARGEST)]
NonNegative = Annotated[int, Ge(0), Le(LARGEST)]
Odd = Annotated[int, Gt(0), Lt(LARGEST), Predicate(odd)]  # a kernel that keeps the length
Distance = Annotated[int, Gt(0), Le(2**31)]  # base pairs
Probability = Annotated[float, Ge(0.0), Lt(1.0)]
PositiveFloat = Annotated[float, Gt(0.0), Le(1e9)]
NonNegativeFloat = Annotated[float, Ge(0.0), Le(1e9)]
Counts = Annotated[list[NonNegative], Examples(([1], [1, 1], [2, 1]))]  # one an organism
