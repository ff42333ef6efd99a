"""Exact arithmetic of symbolic lengths: affine terms, rounding up, and nothing lost.

Every length in a model is a sum of whole multiples of *atoms* plus a number, where an atom is a symbol of
the recipe's inputs (`L`) or `ceil(length / n)`. `floor(x / n)` is `ceil((x - n + 1) / n)`, and nested roundings
merge: seven max-pools by two are `ceil(L / 128)`. An exact division keeps a fraction and leaves it to its caller to
impose that it divides. A symbol whose name is a number has that value: `B 4 249` is a track of the symbol `249`, so a
length that the recipe states still knows its stride.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from math import gcd, lcm

Number = int | Fraction


def _whole(value: Number) -> Number:
    # By type: Fraction is an abstract number, and asking for instances of those is slow.
    return value.numerator if type(value) is Fraction and value.denominator == 1 else value


def _ceil(value: Number, by: int = 1) -> int:
    return -(-value // by)


@dataclass(frozen=True)
class Rounded:
    """ceil(inner / by), where `inner` has whole coefficients."""

    inner: Length
    by: int

    def at(self, values: Mapping[str, int]) -> int:
        return _ceil(self.inner.at(values), self.by)

    def __str__(self) -> str:
        inner, last = self.inner, self.by - 1
        if inner.constant == -last and last:
            rest = Length(inner.terms, 0)
            return f"floor({rest._bracketed()}/{self.by})"
        return f"ceil({inner._bracketed()}/{self.by})"


Atom = str | Rounded


@dataclass(frozen=True)
class Length:
    """A symbolic length; plain numbers stay plain `int`. Immutable, hashable, equal when the same by form."""

    terms: tuple[tuple[Atom, Number], ...]
    constant: Number = 0

    def at(self, values: Mapping[str, int]) -> Number:
        """The number for given values of the symbols."""
        total = self.constant
        for atom, count in self.terms:
            total += count * (_value(atom, values) if isinstance(atom, str) else atom.at(values))
        return _whole(total)

    def __add__(self, other: Dim) -> Dim:
        if isinstance(other, int):
            return Length(self.terms, _whole(self.constant + other))
        counts = dict(self.terms)
        for atom, count in other.terms:
            counts[atom] = _whole(counts.get(atom, 0) + count)
        return _length(counts, self.constant + other.constant)

    __radd__ = __add__

    def __sub__(self, other: Dim) -> Dim:
        return self + (-1 * other)

    def __rsub__(self, other: Dim) -> Dim:
        return -1 * self + other

    def __mul__(self, factor: Number) -> Dim:
        return _length({atom: _whole(count * factor) for atom, count in self.terms}, self.constant * factor)

    __rmul__ = __mul__

    def exactly(self, by: int) -> Dim:
        """This length divided by a number that must divide it; the caller imposes that."""
        return self * Fraction(1, by)

    @cached_property
    def slopes(self) -> dict[str, Fraction]:
        """How fast the length grows with each symbol, rounding aside."""
        total: dict[str, Fraction] = {}
        for atom, count in self.terms:
            if isinstance(atom, str):
                inner, by = {atom: Fraction(1)}, 1
            else:
                inner, by = atom.inner.slopes, atom.by
            for symbol, slope in inner.items():
                total[symbol] = total.get(symbol, Fraction(0)) + Fraction(count) * slope / by
        return {symbol: slope for symbol, slope in sorted(total.items()) if slope}

    @cached_property
    def ideal(self) -> tuple[tuple[tuple[str, Fraction], ...], Number]:
        """Slopes and constant where the symbols are divisible by everything: how a length is read aloud."""
        constant: Number = self.constant
        for atom, count in self.terms:
            if isinstance(atom, Rounded):
                constant += count * _ceil(atom.inner.ideal[1], atom.by)
        return tuple(self.slopes.items()), _whole(constant)

    @cached_property
    def period(self) -> int:
        """The smallest N we know of such that adding N to a symbol adds exactly slope * N."""
        found = 1
        for atom, count in self.terms:
            if isinstance(atom, Rounded):
                inner = atom.inner.period
                for slope in atom.inner.slopes.values():
                    step = int(slope * inner)
                    found = lcm(found, inner * (atom.by // gcd(atom.by, step)))
            if isinstance(count, Fraction):
                found = lcm(found, count.denominator)
        return found

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols whose values are open."""
        return tuple(name for name in self.slopes if not name.isdigit())

    def __str__(self) -> str:
        parts = [_times(str(atom), count) for atom, count in self.terms]
        return _joined(parts, self.constant)

    def _bracketed(self) -> str:
        text = str(self)
        return text if len(self.terms) == 1 and not self.constant and "*" not in text else f"({text})"


Dim = int | Length


def _length(counts: Mapping[Atom, Number], constant: Number) -> Dim:
    terms = tuple(sorted(((a, c) for a, c in counts.items() if c), key=lambda term: str(term[0])))
    constant = _whole(constant)
    if not terms and isinstance(constant, int):
        return constant
    return Length(terms, constant)


def _value(name: str, values: Mapping[str, int]) -> int:
    return int(name) if name.isdigit() else values[name]


def symbol(name: str) -> Length:
    """The length that a symbol of the inputs stands for; `symbol("249")` is a stated one."""
    return Length(((name, 1),))


def number(dim: Dim) -> int | None:
    """The number a dimension is, where no symbol of it is open."""
    if isinstance(dim, int):
        return dim
    if dim.symbols:
        return None
    value = dim.at({})
    return value if isinstance(value, int) else None


def ceil_div(length: Dim, by: int) -> Dim:
    """ceil(length / by), merged with roundings inside where that is exact."""
    if isinstance(length, int):
        return _ceil(length, by)
    # Whole coefficients first: ceil(x / by) = ceil(d x / (d by)).
    scale = lcm(*(c.denominator for _, c in length.terms if isinstance(c, Fraction)), 1)
    counts = {atom: int(count * scale) for atom, count in length.terms}
    constant, by = _ceil(length.constant * scale), by * scale
    common = gcd(by, *counts.values())
    counts = {atom: count // common for atom, count in counts.items()}
    constant, by = _ceil(constant, common), by // common
    if by > 1 and len(counts) == 1:
        ((atom, count),) = counts.items()
        if isinstance(atom, Rounded) and count == 1:  # ceil((ceil(p/m) + k)/n) = ceil((p + k m)/(m n))
            return ceil_div(atom.inner + constant * atom.by, atom.by * by)
    if by == 1:
        return _length(counts, constant)
    # Keep the constant inside in (-by, 0]: 0 reads as ceil, 1 - by as floor.
    outside = _ceil(constant, by)
    inner = _length(counts, constant - outside * by)
    assert isinstance(inner, Length)
    return _length({Rounded(inner, by): 1}, outside)


def floor_div(length: Dim, by: int) -> Dim:
    """floor(length / by)."""
    return ceil_div(length - (by - 1), by)


def text(dim: Dim) -> str:
    """How a length is read aloud: `L/128`, with roundings left out. `str` gives the exact form."""
    if (known := number(dim)) is not None or isinstance(dim, int):
        return str(known)
    slopes, constant = dim.ideal
    return _joined([_over(name, slope) for name, slope in slopes], constant)


def _over(name: str, slope: Fraction) -> str:
    head = _times(name, slope.numerator)
    return head if slope.denominator == 1 else f"{head}/{slope.denominator}"


def _times(name: str, count: Number) -> str:
    if isinstance(count, Fraction):
        return _over(name, count)
    return name if count == 1 else f"{name}*{count}"


def _joined(parts: list[str], constant: Number) -> str:
    joined = "+".join(parts)
    if not constant:
        return joined or "0"
    return f"{joined}{'+' if constant > 0 else '-'}{abs(constant)}" if joined else str(constant)
