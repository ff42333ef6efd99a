"""Numbers with as many digits as their interval gives them."""

from __future__ import annotations

import math
from collections.abc import Sequence


def number(values: Sequence[float], least: int = 3, most: int = 9) -> tuple[str, ...]:
    """An estimate and the ends of its interval as text: two digits of half the interval's width, three at least."""
    estimate, low, high = values
    wide = abs(high - low) / 2
    digits = least if not wide or not math.isfinite(wide) else min(most, max(least, 1 - math.floor(math.log10(wide))))
    # No end that is not zero is shown as zero: the verdict hangs on its sign.
    while digits < most and any(v and math.isfinite(v) and not float(f"{v:.{digits}f}") for v in (low, high)):
        digits += 1
    return tuple(_shown(v, digits) for v in (estimate, low, high))


def _shown(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if not float(text) else text


def percent(value: float) -> str:
    """A share as people say it: whole per cent, or more digits below ten."""
    scaled = 100 * value
    digits = 0 if abs(scaled) >= 10 or not scaled else min(6, max(0, -math.floor(math.log10(abs(scaled)))))
    return f"{scaled:.{digits}f} %"
