"""Which windows are for training, validation and test, with no base of a test target's field seen in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, count, near
from ..splits import Splits
from .names import ChromosomeNames
from .windows import PARTS, Whole, Windows

TRAIN, VALID, TEST = range(3)
_LISTED = 5


@dataclass(frozen=True)
class Sight:
    """What a window shows and what is asked there, in bases from its start.

    target_start, target_stop: the bases whose targets are learnt or scored (all but what a model crops).
    reach: bases to each side of a target that the model sees; None: all of the window.
    shift: bases by which a training window may move either way.
    """

    target_start: int
    target_stop: int
    reach: int | None = None
    shift: int = 0


def by_chromosome(
    windows: Windows, *, valid: Sequence[str], test: Sequence[str], names: ChromosomeNames | None = None
) -> Whole:
    """0, 1, 2 for the windows of training, validation and test: whole chromosomes.

    Shapes: -> (n,). Errors: `DataError` for an unknown chromosome, or one that is named twice.
    """
    find = names or ChromosomeNames()
    labels = np.zeros(len(windows), dtype=np.int64)
    chosen: dict[str, str] = {}
    for mark, (part, wanted) in enumerate((("valid", valid), ("test", test)), start=1):
        for name in wanted:
            own = find.want(name, windows.names, part)
            if own in chosen:
                raise DataError(f"chromosome {own!r} is named for {chosen[own]} and for {part}; wanted it once")
            chosen[own] = part
            labels[windows.chromosome == windows.names.index(own)] = mark
    return labels


def by_block(windows: Windows, *, block: int, folds: int, valid: Sequence[int], test: Sequence[int]) -> Whole:
    """0, 1, 2 for the windows of training, validation and test: blocks of `block` bases along the chromosomes.

    Blocks are dealt to `folds` folds in turn: of the first chromosome (number 0 in `names`) block 0 to fold 0, block 1
    to fold 1, and so on; each chromosome begins one fold later. A window belongs to the block of its middle.
    Shapes: -> (n,). Errors: `DataError` for sizes that make no folds, or an unknown fold.
    Use when: there are few chromosomes; windows of different parts that come close are for `separate` to drop.
    """
    if block < 1 or folds < 2:
        raise DataError(f"blocks of {block} bases in {folds} folds: wanted whole numbers from 1 and from 2")
    for part, named in (("valid", valid), ("test", test)):
        for fold in named:
            if not 0 <= fold < folds:
                raise DataError(f"{part}: there is no fold {fold}; {near(str(fold), [str(f) for f in range(folds)])}")
    if both := set(valid) & set(test):
        raise DataError(f"fold {min(both)} is named for validation and for test")
    here = np.maximum(windows.start + windows.length // 2, 0) // block
    dealt = (here + windows.chromosome) % folds
    return np.where(np.isin(dealt, list(test)), TEST, np.where(np.isin(dealt, list(valid)), VALID, TRAIN))


def by_part(windows: Windows) -> Whole:
    """0, 1, 2 by the fourth column of the BED. Errors: `DataError` if it does not say so in every line."""
    if not windows.part:
        raise DataError("the BED's fourth column does not say train, valid or test in every line; split another way")
    return np.array([PARTS.index(part) for part in windows.part], dtype=np.int64)


def separate(windows: Windows, labels: Whole, sight: Sight) -> tuple[Splits, Whole]:
    """Rows of the three parts, and those that were dropped because they come too close to a part held out from them.

    A window is dropped if what it may show in training (all its bases, moved by up to `shift`) touches the field of a
    target held out from it: training windows for validation and test, validation windows for test. So no test score is
    of a base that training has seen, nor of one whose field reaches into what it has seen.
    Shapes: labels (n,) -> rows. Errors: `DataError` if no window is left to train on, or none of a part that had some.
    """
    kept = np.ones(len(windows), dtype=np.bool_)
    for held, other in ((TEST, VALID), (TEST, TRAIN), (VALID, TRAIN)):
        kept &= ~((labels == other) & _touching(windows, (labels == held) & kept, sight))
    for mark, part in enumerate(PARTS):
        if (mark == TRAIN or (labels == mark).any()) and not (kept & (labels == mark)).any():
            raise DataError(
                f"no window is left for {part}: all {int((labels == mark).sum())} come too close to windows held out "
                "from them; larger blocks, shorter windows or a smaller reach would leave some"
            )
    rows = [np.flatnonzero(kept & (labels == mark)) for mark in (TRAIN, VALID, TEST)]
    return Splits(*rows), np.flatnonzero(~kept)


def check_windows(windows: Windows, splits: Splits, sight: Sight) -> None:
    """Refuse parts of which one sees what another is scored on. Errors: `DataError` naming windows.

    Use when: splits were made by hand; those of `separate` pass.
    """
    parts = [splits.train, splits.valid, splits.test]
    problems = []
    for held, other in ((TEST, VALID), (TEST, TRAIN), (VALID, TRAIN)):
        mask = np.zeros(len(windows), dtype=np.bool_)
        mask[parts[held]] = True
        leaks = parts[other][_touching(windows, mask, sight)[parts[other]]]
        if len(leaks):
            named = ", ".join(windows.where(int(row)) for row in leaks[:_LISTED])
            problems.append(f"{count(len(leaks), 'window')} of {PARTS[other]} show bases in the field of {PARTS[held]} "
                            f"targets: {named}{' ...' if len(leaks) > _LISTED else ''}")  # fmt: skip
    if problems:
        raise DataError("the parts leak; `separate` drops such windows", problems)


def _touching(windows: Windows, held: NDArray[np.bool_], sight: Sight) -> NDArray[np.bool_]:
    """Which windows, moved by up to the shift, show a base of the held windows' fields. Shapes: (n,) -> (n,)."""
    start, stop = windows.start, windows.start + windows.length
    if sight.reach is None:
        low, high = start, stop
    else:
        low = np.maximum(start + sight.target_start - sight.reach, start)
        high = np.minimum(start + sight.target_stop + sight.reach, stop)
    found = np.zeros(len(windows), dtype=np.bool_)
    for chromosome in np.unique(windows.chromosome):
        own = windows.chromosome == chromosome
        begins, ends = _merged(low[own & held], high[own & held])
        if len(begins):
            after = np.searchsorted(ends, start[own] - sight.shift, side="right")  # the first field that ends behind
            first = np.append(begins, np.iinfo(np.int64).max)[after]
            found[own] = first < stop[own] + sight.shift
    return found


def _merged(low: Whole, high: Whole) -> tuple[Whole, Whole]:
    """Intervals as disjoint ones, in order."""
    order = np.argsort(low, kind="stable")
    low, high = low[order], np.maximum.accumulate(high[order]) if len(low) else high
    new = np.ones(len(low), dtype=np.bool_)
    new[1:] = low[1:] > high[:-1]
    last = np.append(np.flatnonzero(new)[1:] - 1, len(low) - 1) if len(low) else np.zeros(0, dtype=np.int64)
    return low[new], high[last]


def merged(windows: Windows, rows: Whole) -> list[tuple[str, int, int]]:
    """What some windows cover, as disjoint stretches: (chromosome, start, stop), each base once."""
    out = []
    for number, name in enumerate(windows.names):
        start = windows.start[rows[windows.chromosome[rows] == number]]
        out += [(name, int(a), int(b)) for a, b in zip(*_merged(start, start + windows.length), strict=True)]
    return out
