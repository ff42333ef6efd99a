"""One chromosome, strand by strand, into its array of bins."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...data.sequence import Codes, N, reverse_complement_codes
from ..errors import RunError
from .agreement import Agreement, Values
from .reader import Reader
from .stitch import Blend, Stitch
from .tiling import Bins, Shape, Tiling, TilingError, tile

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Plan:
    """How every chromosome is read. overlap: bases; batch: windows at once."""

    shape: Shape
    window: int
    overlap: int
    blend: Blend
    batch: int

    def forward(self, length: int) -> Tiling:
        """Windows along the chromosome."""
        return tile(length, self.window, self.shape, self.overlap)

    def backward(self, length: int) -> Tiling:
        """Windows along the other strand, whose long window begins with N so that its bins are those of the first."""
        return tile(self.turned(length), self.window, self.shape, self.overlap)

    def turned(self, length: int) -> int:
        """Bases of the other strand's sequence: the chromosome's, up to whole steps of the pools' grid."""
        return -(-length // self.shape.grid) * self.shape.grid


@dataclass
class Passed:
    """What a chromosome's passes say: how neighbours agree, by output, and how many windows and bases were read."""

    agreement: dict[str, Agreement]
    windows: int = 0
    bases: int = 0


def read_chromosome(
    reader: Reader,
    plan: Plan,
    codes: Codes,
    stretches: Sequence[tuple[int, int]],
    arrays: Mapping[str, Array],
    strands: Sequence[bool],
    where: str,
    told: Callable[[int], None] = lambda bases: None,
) -> Passed:
    """Fill the arrays (tracks, bins of `plan.forward`) where the stretches want bins.

    arrays: by output; outputs without one are not kept.
    strands: whether each pass is of the other strand; the mean of all is kept. told: is called with the bases read.
    Errors: `RunError` where a prediction is not finite, with its place; `TilingError` where the strands' bins differ.
    """
    passed = Passed({name: Agreement(len(output.columns)) for name, output in reader.outputs.items()})
    along = plan.forward(len(codes))
    tilings = {turned: plan.backward(len(codes)) if turned else along for turned in strands}
    puts = {
        (turned, name): _Put(
            arrays[name], along.bins[name], tilings[turned].bins[name] if turned else None, tilings[turned].length,
            len(strands), turned == strands[0], f"{where}, output {name!r}",
        )
        for turned in strands
        for name in arrays
    }  # fmt: skip
    for turned, tiling in tilings.items():
        shown, wanted = codes, list(stretches)
        if turned:
            shown = np.concatenate([codes, np.full(tiling.length - len(codes), N, np.uint8)])
            shown = reverse_complement_codes(shown)
            wanted = [(tiling.length - end, tiling.length - start) for start, end in stretches]
        stitches = {
            name: Stitch(tiling, name, len(reader.outputs[name].columns), puts[turned, name], plan.blend)
            for name in arrays
        }
        for numbers in _batches(_needed(tiling, wanted, plan.blend), tiling, plan.batch):
            made = reader(np.stack([_cut(shown, tiling, n) for n in numbers]), turned)
            for row, number in enumerate(numbers):
                for name, stitch in stitches.items():
                    stitch.add(number, made[name][row])
            window = tiling.windows[numbers[0]]
            passed.windows += len(numbers)
            passed.bases += len(numbers) * (window.end - window.start)
            told(len(numbers) * (window.end - window.start))
        for name, stitch in stitches.items():
            stitch.finish()
            passed.agreement[name].merge(stitch.agreement)
    return passed


@dataclass
class _Put:
    """Writes bins of one pass into the array, turned round where the pass is of the other strand."""

    array: Array
    bins: Bins
    turned: Bins | None
    length: int
    passes: int
    first: bool
    where: str

    def __post_init__(self) -> None:
        self.shift = 0
        if self.turned is not None:
            # Bin i of the other strand begins, on this one, at `length - (its first) - stride * (i + 1)`.
            distance = self.length - self.turned.first - self.bins.stride - self.bins.first
            if distance % self.bins.stride:
                raise TilingError(
                    f"{self.where}: the bins of both strands don't meet: the first begins at base {self.bins.first} "
                    f"of {self.bins.stride}; one strand alone goes"
                )
            self.shift = distance // self.bins.stride

    def __call__(self, start: int, values: Values) -> None:
        if not np.isfinite(values).all():
            bad = int(np.argwhere(~np.isfinite(values))[0][1])
            raise RunError(
                f"{self.where}: a prediction that is not finite, at bin {start + bad}"
                f"{' of the other strand' if self.turned is not None else ''}; half precision may be too little"
            )
        if self.turned is not None:
            values = values[:, ::-1]
            start = self.shift - start - values.shape[1] + 1
        low, high = max(0, start), min(self.array.shape[1], start + values.shape[1])
        if low >= high:
            return
        part = values[:, low - start : high - start]
        if self.passes > 1:
            part = part / np.float32(self.passes)
        if self.first:
            self.array[:, low:high] = part
        else:
            self.array[:, low:high] += part


def _needed(tiling: Tiling, stretches: Sequence[tuple[int, int]], blend: Blend) -> list[int]:
    """The windows that say something of these stretches, which don't touch each other."""
    ordered = sorted(stretches)
    ends = [end for _, end in ordered]
    found = []
    for number, window in enumerate(tiling.windows):
        for name, part in window.parts.items():
            bins = tiling.bins[name]
            low, high = (part.keep_start, part.keep_end) if blend == "crop" else (part.start, part.end)
            first, last = bins.first + bins.stride * low, bins.first + bins.stride * high
            at = bisect_right(ends, first)  # the first stretch that ends behind the first base
            if low < high and at < len(ordered) and ordered[at][0] < last:
                found.append(number)
                break
    return found


def _batches(numbers: Sequence[int], tiling: Tiling, most: int) -> list[list[int]]:
    """Windows of one length, at most so many, in order."""
    made: list[list[int]] = []
    size = 0
    for number in numbers:
        window = tiling.windows[number]
        if not made or len(made[-1]) == most or window.end - window.start != size:
            made.append([])
            size = window.end - window.start
        made[-1].append(number)
    return made


def _cut(codes: Codes, tiling: Tiling, number: int) -> Codes:
    """A window's codes, N beyond the sequence's ends."""
    window = tiling.windows[number]
    inside = codes[max(0, window.start) : max(0, window.end)]
    before, behind = max(0, -window.start), max(0, window.end - max(len(codes), window.start))
    if before or behind:
        inside = np.concatenate([np.full(before, N, np.uint8), inside, np.full(behind, N, np.uint8)])
    return inside[: window.end - window.start]
