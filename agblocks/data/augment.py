"""Augmentation on the fly: every draw is a pure function of (seed, epoch, row number).

So a row is augmented the same way whatever batch it is in, and a run that resumes sees what it would have
seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .draw import REVERSE, SHIFT, WHETHER, uniform
from .errors import DataError
from .sequence import Codes, N, complement_codes, encode

Fill = Literal["n", "roll", "flanks"]
Scope = Literal["construct", "insert"]


@dataclass(frozen=True)
class Augment:
    """What may happen to a training sequence; the default is nothing.

    reverse_complement: probability of showing the other strand. A reverse flag that the model reads flips
    too. shift, shift_probability: up to that many bases either way, each distance equally likely, with that
        probability; the order is shift, then strand.
    fill: what comes in where the content moved away: "n", "roll" (what left on one side comes in on the
        other; published MPRA models do that) or "flanks" (what really lies there on the plasmid).
    scope: "construct" moves and turns the whole input; "insert" only the insert within its constant
        surroundings (which flanks, by their nature, cannot).

    Errors: `DataError` for probabilities outside 0 to 1, a negative shift, an unknown fill or scope.
    Use when: training. Not for assays where strand or position matter (a random promoter's distance to the
    start of transcription) unless the label is known not to care.
    """

    reverse_complement: float = 0.0
    shift: int = 0
    shift_probability: float = 1.0
    fill: Fill = "n"
    scope: Scope = "construct"

    def __post_init__(self) -> None:
        for name in ("reverse_complement", "shift_probability"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise DataError(f"augment: {name} is {value}, wanted a probability from 0 to 1")
        if type(self.shift) is not int or self.shift < 0:
            raise DataError(f"augment: shift is {self.shift!r}, wanted a whole number of bases from 0")
        for name, options in (("fill", get_args(Fill)), ("scope", get_args(Scope))):
            if getattr(self, name) not in options:
                raise DataError(f"augment: {name} is {getattr(self, name)!r}, wanted one of {', '.join(options)}")
        if self.fill == "flanks" and self.scope == "insert":
            raise DataError("augment: fill='flanks' shifts the whole construct; scope='insert' cannot use it")

    @property
    def active(self) -> bool:
        """Whether anything can happen at all."""
        return self.reverse_complement > 0 or (self.shift > 0 and self.shift_probability > 0)


def draws(augment: Augment, rows: ArrayLike, *, seed: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """What happens to each row in an epoch: its shift (above 0 is to the right) and whether it is turned.

    Shapes: rows (n,) -> (n,) int64, (n,) bool.
    """
    turned = uniform(seed, epoch, rows, REVERSE) < augment.reverse_complement
    span = 2 * augment.shift + 1
    shift = np.floor(uniform(seed, epoch, rows, SHIFT) * span).astype(np.int64) - augment.shift
    moved = uniform(seed, epoch, rows, WHETHER) < augment.shift_probability
    return np.where(moved, shift, 0), turned


def apply(
    codes: Codes,
    shift: NDArray[np.int64],
    turned: NDArray[np.bool_],
    *,
    fill: Fill = "n",
    start: ArrayLike = 0,
    stop: ArrayLike | None = None,
    flank_left: str = "",
    flank_right: str = "",
) -> Codes:
    """Shift, then turn, the stretch from `start` to `stop` of every row; the rest stays.

    Shapes: codes (n, length) uint8, shift and turned (n,), start and stop whole numbers or (n,) -> (n,
    length). With fill "flanks" the stretch must be the whole row, and the flanks long enough on the side that
    comes in.
    Errors: `DataError` for flanks that are too short.
    """
    n, length = codes.shape
    first = np.broadcast_to(np.asarray(start, dtype=np.int64), (n,))[:, None]
    last = np.broadcast_to(np.asarray(length if stop is None else stop, dtype=np.int64), (n,))[:, None]
    here = np.broadcast_to(np.arange(length), (n, length))
    inside = (here >= first) & (here < last)
    seen = np.where(turned[:, None], first + last - 1 - here, here)
    source = seen - shift[:, None]
    outside = (source < first) | (source >= last)
    if fill == "roll":
        source = first + (source - first) % np.maximum(last - first, 1)
        outside = np.zeros_like(inside)
    extended = codes
    if fill == "flanks":
        before, after = max(int(shift.max(initial=0)), 0), max(-int(shift.min(initial=0)), 0)
        _check_flanks(flank_left, flank_right, before, after)
        left, right = flank_left[len(flank_left) - before :], flank_right[:after]
        ends = [np.repeat(encode(f), n, axis=0) if f else codes[:, :0] for f in (left, right)]
        extended = np.concatenate([ends[0], codes, ends[1]], axis=1)
        source, outside = source + before, np.zeros_like(inside)
    taken = np.take_along_axis(extended, np.clip(source, 0, extended.shape[1] - 1), axis=1)
    taken = np.where(outside, np.uint8(N), taken)
    taken = np.where(turned[:, None], complement_codes(taken), taken)
    return np.where(inside, taken, codes)


def check_augment(augment: Augment, flank_left: str, flank_right: str, *, padded: bool) -> None:
    """Whether these flanks carry this augmentation.

    Errors: `DataError` for flanks shorter than the shift, or beside padding (N would lie between).
    Use when: before training, so that it does not fail at the first unlucky draw.
    """
    if augment.fill == "flanks" and augment.shift:
        _check_flanks(flank_left, flank_right, augment.shift, augment.shift)
        if padded:
            raise DataError("augment: real flanks don't adjoin a padded construct; use fill='n' or no padding")


def _check_flanks(left: str, right: str, before: int, after: int) -> None:
    for side, flank, need in (("left", left, before), ("right", right, after)):
        if len(flank) < need:
            raise DataError(
                f"augment: a shift of {need} needs {need} bases of flank_{side}, the construct has "
                f"{len(flank)}; lower the shift, use another fill, or a construct with flanks there"
            )
