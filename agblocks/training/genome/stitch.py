"""One output's windows, from left to right, become one row of bins a track."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .agreement import Agreement, Values
from .tiling import Tiling

Blend = Literal["crop", "linear"]
Put = Callable[[int, Values], None]  # the first bin, and (tracks, bins)


class Stitch:
    """Puts each bin once, in order, as its windows come; compares neighbours where both say something.

    blend: "crop" takes each bin from one window, cut in the middle of what two share; "linear" goes from one to the
    next over what they were asked to share, by weights that sum to one.
    Use when: `add` is called with windows' numbers that rise; windows may be left out. `finish` puts the rest.
    Costs: the last window's values, and the bins that a later window may still change.
    """

    def __init__(self, tiling: Tiling, name: str, tracks: int, put: Put, blend: Blend = "crop"):
        self.tiling, self.name, self.put, self.blend = tiling, name, put, blend
        self.agreement = Agreement(tracks)
        self._last: tuple[int, Values] | None = None
        self._from = 0  # the first pending bin
        self._sum, self._weight = np.zeros((tracks, 0), np.float32), np.zeros(0, np.float32)

    def add(self, number: int, values: Values) -> None:
        """A window's values (tracks, bins), all that the model gives."""
        part = self.tiling.windows[number].parts[self.name]
        if self._last is not None and self._last[0] == number - 1:
            self._compare(number, values)
        if self.blend == "crop":
            if part.keep_start < part.keep_end:
                self.put(part.keep_start, values[:, part.keep_start - part.at : part.keep_end - part.at])
        else:
            self._ramp(number, values[:, part.start - part.at : part.end - part.at])
        self._last = number, values

    def finish(self) -> None:
        """Put what is pending."""
        self._release(self._from + len(self._weight))

    def _compare(self, number: int, values: Values) -> None:
        assert self._last is not None
        before, after = (self.tiling.windows[n].parts[self.name] for n in (number - 1, number))
        low, high = after.start, before.end
        if low < high:
            mine = values[:, low - after.at : high - after.at]
            theirs = self._last[1][:, low - before.at : high - before.at]
            self.agreement.add(theirs, mine, after.keep_start - low)

    def _ramp(self, number: int, values: Values) -> None:
        part = self.tiling.windows[number].parts[self.name]
        if self._last is None or self._last[0] != number - 1:
            self.finish()
        self._release(part.start)
        if not len(self._weight):
            self._from = part.start
        weight = weights(self.tiling, self.name, number)
        more = part.end - (self._from + len(self._weight))
        if more > 0:
            self._sum = np.pad(self._sum, ((0, 0), (0, more)))
            self._weight = np.pad(self._weight, (0, more))
        at = slice(part.start - self._from, part.end - self._from)
        self._sum[:, at] += values * weight
        self._weight[at] += weight

    def _release(self, until: int) -> None:
        """Put the pending bins before this one: no later window says anything of them."""
        count = min(max(0, until - self._from), len(self._weight))
        if count:
            self.put(self._from, self._sum[:, :count] / self._weight[:count])
            self._sum, self._weight = self._sum[:, count:], self._weight[count:]
            self._from += count


def weights(tiling: Tiling, name: str, number: int) -> NDArray[np.float32]:
    """A window's weights over its usable bins: 1, falling towards neighbours over the bins that were to be shared.

    Shapes: -> (part.end - part.start,). Those of two windows that share just these sum to one.
    """
    part = tiling.windows[number].parts[name]
    ramp = max(1, tiling.overlap // tiling.bins[name].stride)
    at = np.arange(part.end - part.start, dtype=np.float32)
    weight = np.ones_like(at)
    if number:
        weight = np.minimum(weight, (at + 0.5) / ramp)
    if number + 1 < len(tiling.windows):
        weight = np.minimum(weight, (len(at) - at - 0.5) / ramp)
    return weight
