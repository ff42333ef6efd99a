"""Sequences as a model sees them: assembled, shifted, on either strand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ...data import Augment, Construct, DataError, encode
from ...data.augment import Fill, Scope, apply, check_augment
from ...data.sequence import Codes
from ..errors import WorkError


@dataclass(frozen=True, order=True)
class Variant:
    """One way to show a sequence: shifted by so many bases (above 0 to the right), then turned to the other strand."""

    shift: int = 0
    turned: bool = False

    def __str__(self) -> str:
        shifted = f"shifted by {self.shift}" if self.shift else "in place"
        return f"{shifted}, other strand" if self.turned else shifted


PLAIN = Variant()


@dataclass(frozen=True)
class Variants:
    """The ways in which every sequence is shown: each of the shifts, on one strand or on both.

    fill, scope: what comes in where a shift moved the content away, and what moves, as in `data.Augment`.
    Errors: `WorkError` for shifts that are no whole numbers or that come twice, and for none at all.
    """

    shifts: tuple[int, ...] = (0,)
    both_strands: bool = False
    fill: Fill = "n"
    scope: Scope = "construct"

    def __post_init__(self) -> None:
        shifts = tuple(self.shifts)
        object.__setattr__(self, "shifts", shifts)
        if not shifts or len(set(shifts)) < len(shifts) or not all(type(shift) is int for shift in shifts):
            raise WorkError(f"shifts are {list(shifts)}; wanted whole numbers, each once, like [-3, 0, 3]")
        Augment(0.0, max(map(abs, shifts)), fill=self.fill, scope=self.scope)

    @property
    def each(self) -> tuple[Variant, ...]:
        """Every variant, the plain one first if it is among them."""
        strands = (False, True) if self.both_strands else (False,)
        found = [Variant(shift, turned) for turned, shift in product(strands, self.shifts)]
        return tuple(sorted(found, key=lambda v: (v != PLAIN, v.turned)))

    def lacks(self, augment: Augment) -> str | None:
        """Why these variants are not all that an augmentation may show; None where they are."""
        turns = augment.reverse_complement > 0
        shifts = augment.shift > 0 and augment.shift_probability > 0
        if turns and not self.both_strands:
            return "training shows the other strand too, and it is not among the cached variants"
        if shifts and {*range(-augment.shift, augment.shift + 1)} - set(self.shifts):
            return (
                f"training shifts sequences by up to {augment.shift} bases either way, and the cached shifts are "
                f"{', '.join(map(str, self.shifts))}"
            )
        if shifts and augment.fill != self.fill:
            return f"training shifts with fill {augment.fill!r}, and the cached shifts have {self.fill!r}"
        if (shifts or turns) and augment.scope != self.scope:
            return f"training moves and turns the {augment.scope}, and the cached variants the {self.scope}"
        if not shifts and 0 not in self.shifts:
            return "sequences in place are not among the cached variants"
        return None


@dataclass(frozen=True)
class Assembled:
    """Rows as a construct assembles them: codes by length, and for each row its length and its line there.

    Shapes: codes[length] (rows of that length, length) uint8, spans[length] (rows of that length, 2): where the insert
    lies; place (rows, 2).
    """

    construct: Construct
    codes: dict[int, Codes] = field(repr=False)
    spans: dict[int, NDArray[np.int64]] = field(repr=False)
    place: NDArray[np.int64] = field(repr=False)

    @classmethod
    def of(cls, sequences: Sequence[str], construct: Construct) -> Assembled:
        """Errors: `DataError` with every sequence that does not fit the construct."""
        texts, spans, problems = [], [], []
        for row, sequence in enumerate(sequences):
            try:
                texts.append(construct.assemble(sequence))
                spans.append(construct.insert_span(len(construct.insert(sequence))))
            except DataError as error:
                problems.append(f"sequence {row}: {error}")
        if problems:
            raise DataError(f"{len(problems)} of {len(sequences)} sequences cannot be assembled", problems)
        lengths = np.array([len(text) for text in texts], dtype=np.int64)
        place = np.zeros((len(texts), 2), dtype=np.int64)
        codes, held = {}, {}
        for length in np.unique(lengths).tolist():
            own = np.flatnonzero(lengths == length)
            codes[length] = encode([texts[i] for i in own])
            held[length] = np.array([spans[i] for i in own], dtype=np.int64)
            place[own, 0], place[own, 1] = length, np.arange(len(own))
        return cls(construct, codes, held, place)

    def check(self, variants: Variants) -> None:
        """Errors: `DataError` for shifts that the construct's flanks don't carry."""
        most = max(map(abs, variants.shifts))
        augment = Augment(0.0, most, fill=variants.fill, scope=variants.scope)
        flanks = self.construct.flank_left, self.construct.flank_right
        check_augment(augment, *flanks, padded=self.construct.pad != "none")

    def shown(self, length: int, variant: Variant, variants: Variants) -> Codes:
        """All rows of one length under one variant. Shapes: -> (rows of that length, length) uint8."""
        codes = self.codes[length]
        if variant == PLAIN:
            return codes
        spans = self.spans[length]
        whole = variants.scope == "construct"
        rows = len(codes)
        return apply(
            codes,
            np.full(rows, variant.shift, dtype=np.int64),
            np.full(rows, variant.turned),
            fill=variants.fill,
            start=0 if whole else spans[:, 0],
            stop=None if whole else spans[:, 1],
            flank_left=self.construct.flank_left,
            flank_right=self.construct.flank_right,
        )
