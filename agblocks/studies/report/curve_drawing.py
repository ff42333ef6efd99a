"""Transfer curves as SVG: one small drawing a panel, every point a link to its cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .curves import Curves, Line, Panel, Point
from .html import Markup, interval, number, tag
from .look import Look
from .svg import Scale, clipped, label, line, mark, path, short, span, ticks

WIDE, HIGH = 400, 280
LEFT, RIGHT, TOP = 48, 10, 12
METRICS = {"pearson": "Pearson r", "spearman": "Spearman ρ", "mse": "mean squared error"}


def draw_curves(curves: Curves) -> list[Markup]:
    """A figure a panel; panels of one target share their y axis, so that they can be compared by eye."""
    limits = y_limits(curves)
    return [_panel(curves, panel, limits[panel.target]) for panel in curves.panels]


def y_limits(curves: Curves) -> dict[str, tuple[float, float]]:
    """The y axis of every target: all means, and of the intervals as much as leaves the means apart."""
    found = {}
    for target in dict.fromkeys(panel.target for panel in curves.panels):
        means = [
            p.mean for panel in curves.panels if panel.target == target for line in panel.lines for p in line.points
        ]
        low, high = span([mean.mean for mean in means], 0.08)
        ends = [v for mean in means for v in (mean.low, mean.high) if math.isfinite(v)]
        room = 0.35 * (high - low)
        found[target] = (max(low - room, min([low, *ends])), min(high + room, max([high, *ends])))
    return found


def _panel(curves: Curves, panel: Panel, limits: tuple[float, float]) -> Markup:
    names = _x_names(curves.xs)
    tilted = max(map(len, names)) * 6.2 > (WIDE - LEFT - RIGHT) / len(names)
    below = 30 + (min(max(map(len, names)), 16) * 4.2 + 8 if tilted else 12)
    x = Scale(-0.5, len(curves.xs) - 0.5, LEFT, WIDE - RIGHT)
    y = Scale(*limits, HIGH - below, TOP)
    parts = [_frame(x, y, limits, names, tilted, curves)]
    shown = [line for line in panel.lines if not line.flat]
    parts += [_flat(one, x, y) for one in panel.lines if one.flat]
    for i, one in enumerate(shown):
        parts.append(_line(one, x, y, (i - (len(shown) - 1) / 2) * min(0.09, 0.5 / max(1, len(shown))), names))
    said = f"{METRICS[curves.metric]} by {curves.axis or 'cell'}: {panel.title}"
    drawing = tag("svg", tag("title", said), *parts, viewBox=f"0 0 {WIDE} {HIGH}", role="group", class_="plot")
    return tag("figure", tag("figcaption", panel.title), drawing, class_="panel")


def _x_names(xs: Sequence[str]) -> list[str]:
    """Labels without what all of them begin with, up to a dot."""
    parts = [x.rpartition(".") for x in xs]
    same = len(xs) > 1 and len({p[0] for p in parts}) == 1 and all(p[2] and not p[2][0].isdigit() for p in parts)
    return [clipped(p[2] if same else x, 18) for p, x in zip(parts, xs, strict=True)]


def _frame(
    x: Scale, y: Scale, limits: tuple[float, float], names: Sequence[str], tilted: bool, curves: Curves
) -> Markup:
    bottom = y.start
    parts = []
    for value in ticks(*limits):
        parts.append(line([(LEFT, y(value)), (WIDE - RIGHT, y(value))], "grid"))
        parts.append(label(LEFT - 6, y(value) + 4, short(value), "tick end"))
    for i, name in enumerate(names):
        if tilted:
            turned = f"rotate(-35 {x(i):.1f} {bottom + 14:.1f})"
            parts.append(label(x(i) + 3, bottom + 14, name, "tick end", transform=turned))
        else:
            parts.append(label(x(i), bottom + 16, name, "tick middle"))
    parts.append(line([(LEFT, TOP), (LEFT, bottom), (WIDE - RIGHT, bottom)], "axis"))
    parts.append(label((LEFT + WIDE - RIGHT) / 2, HIGH - 4, curves.axis, "name middle"))
    middle = (TOP + bottom) / 2
    turned = f"rotate(-90 11 {middle:.1f})"
    parts.append(label(11, middle, METRICS[curves.metric], "name middle", transform=turned))
    return tag("g", *parts, aria_hidden="true")


def _line(one: Line, x: Scale, y: Scale, aside: float, names: Sequence[str]) -> Markup:
    at = [(x(p.x + aside), y(p.mean.mean)) for p in one.points]
    bars = [_bar(px, p, y) for (px, _), p in zip(at, one.points, strict=True)]
    links = [_link(one.look, p, place, names[p.x]) for p, place in zip(one.points, at, strict=True)]
    return tag("g", line(at, "line", one.look.dash), *bars, *links, class_=one.look.class_)


def _flat(one: Line, x: Scale, y: Scale) -> Markup:
    """A control that does not depend on x: a line across with its interval as a band."""
    parts = []
    for p in one.points:
        ends = (x(x.low), x(x.high))
        if math.isfinite(p.mean.low):
            low, high = (y(min(max(v, y.low), y.high)) for v in (p.mean.low, p.mean.high))
            corners = [(ends[0], high), (ends[1], high), (ends[1], low), (ends[0], low)]
            parts.append(tag("path", d=path(corners) + "Z", class_="band"))
        parts.append(line([(ends[0], y(p.mean.mean)), (ends[1], y(p.mean.mean))], "line", one.look.dash))
        parts.append(_link(one.look, p, (ends[1] - 8, y(p.mean.mean)), ""))
    return tag("g", *parts, class_=one.look.class_)


def _bar(px: float, p: Point, y: Scale) -> Markup:
    """An interval with caps; an end that lies beyond the axis has none."""
    if not math.isfinite(p.mean.low):
        return Markup("")
    ends = [min(max(v, y.low), y.high) for v in (p.mean.low, p.mean.high)]
    caps = [v for v, end in zip((p.mean.low, p.mean.high), ends, strict=True) if v == end]
    outline = path([(px, y(v)) for v in ends]) + "".join(path([(px - 2.5, y(v)), (px + 2.5, y(v))]) for v in caps)
    return tag("path", d=outline, class_="bar")


def _link(look: Look, p: Point, place: tuple[float, float], name: str) -> Markup:
    of = f" of {p.mean.planned}" if p.mean.planned != p.mean.units else ""
    units = f"{p.mean.units}{of} unit{'s' if p.mean.planned != 1 else ''}"
    numbers = " ".join(part for part in (number(p.mean.mean), interval(p.mean.low, p.mean.high)) if part)
    said = ", ".join(part for part in (look.name, name, numbers, units) if part)
    return tag("a", tag("title", said), mark(look.mark, *place), href=f"#{p.group.anchor}", class_="mark")


def legend(known: Sequence[Look]) -> Markup:
    """What the lines are: colour, mark and dash beside each name."""
    items = []
    for look in known:
        sample = tag(
            "svg", tag("g", line([(1, 7), (33, 7)], "line", look.dash), mark(look.mark, 17, 7), class_=look.class_),
            viewBox="0 0 34 14", class_="sample", aria_hidden="true",
        )  # fmt: skip
        items.append(tag("li", sample, tag("span", look.name)))
    return tag("ul", *items, class_="legend")
