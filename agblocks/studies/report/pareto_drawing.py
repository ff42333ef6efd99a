"""Accuracy against cost as SVG: every group a mark, the front a staircase."""

from __future__ import annotations

from collections.abc import Sequence

from .curve_drawing import HIGH, LEFT, RIGHT, TOP, WIDE
from .groups import Grouped, in_order
from .html import Markup, amount, interval, number, tag
from .pareto import COSTS, Spot, Trade, data_axes
from .svg import Scale, clipped, label, line, log_span, log_ticks, mark, short, span, ticks

BELOW = 42


def draw_trades(trades: Sequence[Trade], grouped: Grouped) -> list[Markup]:
    """A figure each; logarithmic in the cost."""
    return [_trade(trade, grouped) for trade in trades]


def _trade(trade: Trade, grouped: Grouped) -> Markup:
    across = log_span([spot.cost for spot in trade.spots])
    limits = span([spot.mean.mean for spot in trade.spots], 0.1)
    x = Scale(*across, LEFT, WIDE - RIGHT, log=True)
    y = Scale(*limits, HIGH - BELOW, TOP)
    front = sorted((s for s in trade.spots if s.front), key=lambda s: s.cost)
    parts = [_frame(x, y, across, limits, trade), line(_stairs(front, x, y), "front")]
    parts += [tag("g", line([(x(s.cost), y(s.mean.mean)) for s in way], "trail"), class_=way[0].look.class_)
              for way in _trails(trade, grouped)]  # fmt: skip
    # Points of the front last, so that they lie above the others.
    for spot in sorted(trade.spots, key=lambda s: s.front):
        parts.append(_spot(spot, x, y, grouped))
    parts += _names(front, x, y, grouped)
    said = f"Pearson r against {COSTS[trade.cost][0]}: {trade.title}"
    drawing = tag("svg", tag("title", said), *parts, viewBox=f"0 0 {WIDE} {HIGH}", role="group", class_="plot")
    return tag("figure", tag("figcaption", trade.title), drawing, class_="panel")


def _frame(x: Scale, y: Scale, across: tuple[float, float], limits: tuple[float, float], trade: Trade) -> Markup:
    parts = []
    for value in ticks(*limits):
        parts.append(line([(LEFT, y(value)), (WIDE - RIGHT, y(value))], "grid"))
        parts.append(label(LEFT - 6, y(value) + 4, short(value), "tick end"))
    for value in log_ticks(*across):
        parts.append(line([(x(value), TOP), (x(value), y.start)], "grid"))
        parts.append(label(x(value), y.start + 16, short(value), "tick middle"))
    parts.append(line([(LEFT, TOP), (LEFT, y.start), (WIDE - RIGHT, y.start)], "axis"))
    parts.append(label((LEFT + WIDE - RIGHT) / 2, HIGH - 6, COSTS[trade.cost][0], "name middle"))
    middle = (TOP + y.start) / 2
    parts.append(label(11, middle, "Pearson r", "name middle", transform=f"rotate(-90 11 {middle:.1f})"))
    return tag("g", *parts, aria_hidden="true")


def _stairs(front: Sequence[Spot], x: Scale, y: Scale) -> list[tuple[float, float]]:
    """From each point to the right at its height, then up to the next."""
    points: list[tuple[float, float]] = []
    for spot in front:
        if points:
            points.append((x(spot.cost), points[-1][1]))
        points.append((x(spot.cost), y(spot.mean.mean)))
    return [*points, (x.end, points[-1][1])]


def _spot(spot: Spot, x: Scale, y: Scale, grouped: Grouped) -> Markup:
    place = (x(spot.cost), y(spot.mean.mean))
    numbers = " ".join(part for part in (number(spot.mean.mean), interval(spot.mean.low, spot.mean.high)) if part)
    said = f"{spot.group.says()}: {numbers} at {amount(spot.cost)}{', on the front' if spot.front else ''}"
    size = 5.5 if spot.front else 4
    link = tag("a", tag("title", said), mark(spot.look.mark, *place, size), href=f"#{spot.group.anchor}", class_="mark")
    return tag("g", link, class_=spot.look.class_ + ("" if spot.front else " faint"))


def _trails(trade: Trade, grouped: Grouped) -> list[list[Spot]]:
    """Points that differ in x only, in its order: how accuracy and cost go along an encoder."""
    x = grouped.x
    if x is None:
        return []
    order = in_order(grouped.results.axes[x])
    found: dict[tuple[object, ...], list[Spot]] = {}
    for spot in trade.spots:
        if spot.group.control is None:
            rest = tuple((a, v) for a, v in spot.group.labels.items() if a != x)
            found.setdefault(rest, []).append(spot)
    return [sorted(way, key=lambda s: order.index(s.group.labels[x])) for way in found.values() if len(way) > 1]


def _names(front: Sequence[Spot], x: Scale, y: Scale, grouped: Grouped) -> list[Markup]:
    """Names of the front's points, left out where they would lie on one another."""
    parts = []
    taken = [(x(s.cost) - 7, y(s.mean.mean) - 7, x(s.cost) + 7, y(s.mean.mean) + 7) for s in front]
    for spot in reversed(front):
        said = clipped(_short_name(spot, grouped), 26)
        px, py, wide = x(spot.cost), y(spot.mean.mean), 5.7 * len(said)
        # Above or below, to the right or to the left: the first place that is free.
        for up, left in ((-9, 0), (-9, wide), (18, 0), (18, wide)):
            box = (px - left, py + up - 9, px - left + wide, py + up + 1)
            inside = LEFT <= box[0] and box[2] <= WIDE - RIGHT + 4 and box[1] >= 0
            if inside and not any(box[0] < c and a < box[2] and box[1] < d and b < box[3] for a, b, c, d in taken):
                taken.append(box)
                parts.append(label(px, py + up, said, "spot end" if left else "spot", aria_hidden="true"))
                break
    return parts


def _short_name(spot: Spot, grouped: Grouped) -> str:
    """The stage, or whatever x is; with the encoder or what else the panels hold apart."""
    labels = spot.group.labels
    if spot.group.control is not None:
        return spot.look.name
    x = labels.get(grouped.x, "") if grouped.x else ""
    apart = [a for a in grouped.panel if a not in data_axes(grouped) and len(grouped.results.axes[a]) > 1]
    parts = [*(labels.get(a, "") for a in apart), x.rpartition(".")[2] or x]
    return " ".join(part for part in parts if part) or spot.look.name
