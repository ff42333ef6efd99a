"""Small drawings: axes with round numbers, and marks that differ in shape as well as in colour.

The page's figures are drawn here rather than taken from matplotlib: a tenth of the size, colours that follow the
reader's light or dark page, and points that are links to their cells. The PNG files are matplotlib's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .html import Markup, tag

MARKS = ("circle", "square", "triangle", "diamond", "down", "cross", "plus")
COLOURS = 7  # --c0 to --c6 in page.css: Okabe and Ito's
DASHES = ("", "6 3", "2 3", "8 3 2 3", "12 4")


@dataclass(frozen=True)
class Scale:
    """Values onto pixels, straight or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def span(values: Sequence[float], margin: float = 0.06) -> tuple[float, float]:
    """Limits with some room around the values."""
    low, high = min(values), max(values)
    room = (high - low or abs(high) or 1.0) * margin
    return low - room, high + room


def log_span(values: Sequence[float]) -> tuple[float, float]:
    """Limits of a logarithmic axis with some room around the values."""
    low, high = span([math.log10(v) for v in values], 0.1)
    return 10 ** min(low, high - 0.3), 10 ** max(high, low + 0.3)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within limits."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [0.0 if i == 0 else i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5 times powers of ten within limits; the powers alone over many decades."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1,) if math.log10(high / low) > 3 else (1, 3) if math.log10(high / low) > 1.3 else (1, 2, 5)
    return [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]


def short(value: float) -> str:
    """A tick's label: 20k, 1.5M, 0.25."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{round(value, 10):g}".replace("-", "−")


def mark(kind: int, x: float, y: float, size: float = 4.5) -> Markup:
    """A mark's outline, centred."""
    name, s = MARKS[kind % len(MARKS)], size
    if name == "circle":
        return tag("circle", cx=_n(x), cy=_n(y), r=_n(s))
    shapes = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "triangle": [(0, -1.2), (1.1, 0.8), (-1.1, 0.8)],
        "down": [(0, 1.2), (1.1, -0.8), (-1.1, -0.8)],
        "diamond": [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)],
        "cross": [(-1.1, -0.6), (-0.6, -1.1), (0, -0.5), (0.6, -1.1), (1.1, -0.6), (0.5, 0),
                  (1.1, 0.6), (0.6, 1.1), (0, 0.5), (-0.6, 1.1), (-1.1, 0.6), (-0.5, 0)],
        "plus": [(-0.4, -1.2), (0.4, -1.2), (0.4, -0.4), (1.2, -0.4), (1.2, 0.4), (0.4, 0.4),
                 (0.4, 1.2), (-0.4, 1.2), (-0.4, 0.4), (-1.2, 0.4), (-1.2, -0.4), (-0.4, -0.4)],
    }  # fmt: skip
    return tag("path", d=path([(x + a * s, y + b * s) for a, b in shapes[name]]) + "Z")


def path(points: Sequence[tuple[float, float]]) -> str:
    """A line through points."""
    return "M" + "L".join(f"{_n(x)} {_n(y)}" for x, y in points)


def line(points: Sequence[tuple[float, float]], class_: str = "line", dash: str = "") -> Markup:
    """A line that is drawn."""
    return tag("path", d=path(points), class_=class_, stroke_dasharray=dash or None)


def label(x: float, y: float, said: str, class_: str = "", **attributes: object) -> Markup:
    """A text."""
    return tag("text", said, x=_n(x), y=_n(y), class_=class_ or None, **attributes)


def clipped(said: str, most: int) -> str:
    """A text with its middle left out where it is long."""
    return said if len(said) <= most else f"{said[: most - most // 3 - 1]}…{said[-(most // 3) :]}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
