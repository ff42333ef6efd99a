"""Similarity of stages as a coloured table: numbers that can be read out, selected and printed, not a picture."""

from __future__ import annotations

from ..written import Similarity
from .html import Markup, number, tag

# Points of viridis (matplotlib's), from low to high.
VIRIDIS = ("#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725")


def draw_similarity(name: str, made: Similarity) -> Markup:
    """One matrix as a figure with its scale. Values are coloured from 0 to 1; the numbers are exact to two digits."""
    head = tag("tr", tag("td"), [tag("th", tag("span", column), scope="col") for column in made.columns])
    rows = [
        tag("tr", tag("th", row, scope="row"), [_cell(value) for value in line])
        for row, line in zip(made.rows, made.matrix, strict=True)
    ]
    grid = tag("table", tag("thead", head), tag("tbody", *rows), class_="heat", aria_label=made.title)
    scale = tag("p", "0 ", tag("span", class_="viridis", role="img", aria_label="from dark blue to yellow"), " 1",
                class_="scale")  # fmt: skip
    about = [made.about, f"{made.sequences:,} sequences" if made.sequences is not None else ""]
    said = ", ".join(part for part in about if part)
    return tag(
        "figure", tag("figcaption", made.title, tag("span", f" {said}" if said else "", class_="quiet")),
        tag("div", grid, class_="scroll", tabindex=0, role="region", aria_label=made.title), scale,
        class_="matrix", id=f"similarity-{name}",
    )  # fmt: skip


def _cell(value: float | None) -> Markup:
    if value is None:
        return tag("td", "–", class_="empty")
    colour, dark = colour_of(value)
    return tag("td", number(value, 2), style=f"background:{colour};color:{'#fff' if dark else '#000'}")


def colour_of(value: float) -> tuple[str, bool]:
    """A value's colour from 0 to 1, and whether it is a dark one."""
    place = min(1.0, max(0.0, value)) * (len(VIRIDIS) - 1)
    i = min(int(place), len(VIRIDIS) - 2)
    low, high = ([int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in VIRIDIS[i : i + 2])
    mixed = [round(a + (b - a) * (place - i)) for a, b in zip(low, high, strict=True)]
    linear = [(c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in mixed]
    light = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # White on it where that contrasts more than black (WCAG's formula).
    return f"#{mixed[0]:02x}{mixed[1]:02x}{mixed[2]:02x}", 1.05 / (light + 0.05) > (light + 0.05) / 0.05
