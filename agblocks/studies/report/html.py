"""Markup from Python values: every text is escaped, so a label can say what it likes."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Iterable

VOID = frozenset(("meta", "input", "br", "link", "col"))


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element. `class_`, `for_` and `data_cell` become `class`, `for`, `data-cell`; None and False are left out.

    Use when: markup of the report is made; nothing else puts text into the page.
    """
    made = [name]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        made.append(key if value is True else f'{key}="{html.escape(_visible(str(value)))}"')
    head = Markup(f"<{' '.join(made)}>")
    return head if name in VOID else Markup(f"{head}{join(children)}</{name}>")


def join(children: Iterable[Child], between: str = "") -> Markup:
    """Children one after the other: markup as it is, everything else escaped."""
    return Markup(between.join(text(child) for child in children))


def text(child: Child) -> Markup:
    """One child as markup."""
    if child is None:
        return Markup("")
    if isinstance(child, Markup):
        return child
    if isinstance(child, (str, int, float)):
        return Markup(html.escape(_visible(str(child))))
    return join(child)


def _visible(value: str) -> str:
    """Control characters, and those that turn the direction of text, shown as a question mark."""
    if value.isprintable():
        return value
    hidden = (c for c in value if c not in "\n\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs"))
    return value.translate(dict.fromkeys(map(ord, hidden), "\N{REPLACEMENT CHARACTER}"))


def number(value: float | None, digits: int = 3) -> str:
    """A score with fixed digits and a true minus sign; an en dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def amount(value: float | None) -> str:
    """A count or a measured amount in three digits, thousands apart: 88,800, 12.5, 0.041."""
    if value is None or not math.isfinite(value):
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 or value == int(value) else f"{value:.3g}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """`[0.412, 0.478]`, or nothing."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    return f"[{number(low, digits)}, {number(high, digits)}]"
