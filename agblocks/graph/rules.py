"""Length rules: under which input lengths the edges of a model fit together, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import count
from math import gcd, lcm
from typing import Literal

from .dims import Dim, Length, Number, number

SEARCH = 1 << 16  # candidates looked at before a rule is left in words


@dataclass(frozen=True)
class Condition:
    """`left` equals `right`, is divided by it, or is at least as long; `reason` says which port wants it."""

    kind: Literal["equal", "divides", "at least"]
    left: Dim
    right: Dim
    reason: str = field(default="", compare=False)

    def holds(self, values: Mapping[str, int]) -> bool:
        left, right = _at(self.left, values), _at(self.right, values)
        if self.kind == "equal":
            return left == right
        return left >= right if self.kind == "at least" else left % right == 0

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s for side in (self.left, self.right) for s in _symbols(side)))

    @cached_property
    def period(self) -> int:
        sides = [side.period for side in (self.left, self.right) if isinstance(side, Length)]
        found = lcm(*sides, 1)
        if self.kind == "divides" and isinstance(self.left, Length) and isinstance(self.right, int):
            for slope in self.left.slopes.values():
                found *= self.right // gcd(self.right, int(slope * found))  # so that a period adds whole multiples
        return found

    def __str__(self) -> str:
        if self.kind == "divides":
            return f"{self.left} must be a multiple of {self.right}"
        return f"{self.left} must be {'at least' if self.kind == 'at least' else ''} {self.right}".replace("  ", " ")


def _at(dim: Dim, values: Mapping[str, int]) -> Number:
    return dim if isinstance(dim, int) else dim.at(values)


def _symbols(dim: Dim) -> tuple[str, ...]:
    return () if isinstance(dim, int) else dim.symbols


class LengthRule:
    """What the lengths of a model's inputs must satisfy for some of its outputs.

    `admits({"L": 2048})` is exact for any conditions; `step`, `smallest` and `str` describe the rule for one
    symbol by its residues, found by a sieve over the conditions' periods.
    """

    def __init__(self, conditions: Iterable[Condition]):
        self.conditions = tuple(dict.fromkeys(conditions))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LengthRule) and set(self.conditions) == set(other.conditions)

    def __hash__(self) -> int:
        return hash(frozenset(self.conditions))

    def failures(self, values: Mapping[str, int]) -> list[Condition]:
        return [c for c in self.conditions if all(s in values for s in c.symbols) and not c.holds(values)]

    def admits(self, values: Mapping[str, int]) -> bool:
        return not self.failures(values)

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(s for c in self.conditions for s in c.symbols))

    def residues(self, symbol: str = "L") -> tuple[int, tuple[int, ...]] | None:
        """(N, lengths modulo N that fit), bounds aside; None where N is too large to look through."""
        periodic = [c for c in self.conditions if c.kind != "at least" and c.symbols == (symbol,)]
        return _sieve(tuple(sorted(periodic, key=lambda c: c.period)), symbol)

    @property
    def contradictory(self) -> bool:
        """Whether no length at all fits."""
        residues = [self.residues(s) for s in self.symbols]
        return any(found is not None and not found[1] for found in residues)

    def lower_bound(self, symbol: str = "L") -> int:
        """The smallest length that satisfies every 'at least', found by bisection: lengths grow with their symbols."""
        bounds = [c for c in self.conditions if c.kind == "at least" and c.symbols == (symbol,)]

        def fits(value: int) -> bool:
            return all(c.holds({symbol: value}) for c in bounds)

        high = 1
        while not fits(high):
            high *= 2
            if high > 1 << 62:
                raise OverflowError("no length is long enough")
        low = high // 2
        while low + 1 < high:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high

    def lengths(self, symbol: str = "L") -> Iterator[int]:
        """Every length that fits, from the smallest on."""
        low = self.lower_bound(symbol)
        found = self.residues(symbol)
        if found is None:
            yield from (n for n in count(low) if self.admits({symbol: n}))
            return
        modulus, residues = found
        for base in count(low // modulus * modulus, modulus):
            yield from (base + r for r in residues if base + r >= low)

    def describe(self, symbol: str = "L") -> str:
        """The rule for one symbol in words: `L must be a multiple of 2048`."""
        found = self.residues(symbol)
        low = self.lower_bound(symbol)
        parts = []
        if found is None:
            parts = [str(c) for c in self.conditions if c.kind != "at least" and c.symbols == (symbol,)]
        elif found[0] > 1 and len(found[1]) < found[0]:
            modulus, residues = found
            if residues == (0,):
                parts = [f"a multiple of {modulus}"]
            else:
                parts = [f"{_ranges(residues)} modulo {modulus}"]
            low = next(self.lengths(symbol))
            low = 1 if low <= modulus else low
        if low > 1:
            parts.append(f"at least {low}")
        return f"{symbol} must be {' and '.join(parts)}" if parts else f"{symbol} may be any length"

    def __str__(self) -> str:
        return "; ".join(self.describe(s) for s in self.symbols if s != "B") or "any length"


@lru_cache(maxsize=4096)
def _sieve(conditions: tuple[Condition, ...], symbol: str) -> tuple[int, tuple[int, ...]] | None:
    """Residues that fit all conditions, by refining those that fit all but the last."""
    if not conditions:
        return 1, (0,)
    before = _sieve(conditions[:-1], symbol)
    if before is None:
        return None
    modulus, residues = before
    last = conditions[-1]
    grown = lcm(modulus, last.period)
    if len(residues) * (grown // modulus) > SEARCH:
        return None
    candidates = (r + base for base in range(0, grown, modulus) for r in residues)
    return grown, tuple(n for n in candidates if last.holds({symbol: n}))


def _ranges(numbers: tuple[int, ...], most: int = 6) -> str:
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    shown = [str(a) if a == b else f"{a}..{b}" for a, b in runs[:most]]
    return ", ".join(shown) + (", ..." if len(runs) > most else "")


def meet(left: Dim, right: Dim, reason: str = "") -> Condition | bool:
    """Under which condition two dimensions are equal: True, False, or the condition to impose.

    Lengths that grow differently meet at isolated values only, which counts as False: such an input length has to
    be written into the recipe. So do equal slopes whose difference never vanishes.
    """
    if left == right:
        return True
    numbers = number(left), number(right)
    if None not in numbers:
        return numbers[0] == numbers[1]
    if isinstance(left, int) or isinstance(right, int) or left.slopes != right.slopes:
        return False
    condition = Condition("equal", left, right, reason)
    if len(condition.symbols) > 1:
        return condition
    found = LengthRule([condition]).residues(condition.symbols[0])
    if found is None:
        return condition
    if len(found[1]) == found[0]:
        return True
    return condition if found[1] else False
