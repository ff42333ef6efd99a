"""Every point of the figures as a table row that leads to its cells."""

from __future__ import annotations

from collections.abc import Mapping

from .groups import Group, Grouped, control_name
from .html import Child, Markup, amount, interval, number, tag
from .means import Means
from .pareto import spending

_NUMBERS = ("Pearson r", "interval", "units", "Spearman ρ", "squared error", "mult-adds/bp", "ms at batch 1")


def points_table(grouped: Grouped, means: Means) -> Markup:
    """A row for each group and target: means with intervals, units, cost, and links to the cells."""
    results = grouped.results
    axes = [a for a in results.axes if a not in grouped.over and len(results.axes[a]) > 1]
    controls = any(group.control for group in grouped.groups)
    heads = [tag("th", "control", scope="col", data_select=True)] if controls else []
    heads += [tag("th", axis, scope="col", data_select=True) for axis in axes]
    heads += [tag("th", "target", scope="col", data_select=True)]
    heads += [tag("th", name, scope="col", class_="n") for name in _NUMBERS]
    heads += [tag("th", "cells", scope="col")]
    rows = []
    for group in grouped.groups:
        for i, target in enumerate(grouped.targets(group) or [""]):
            parts = [tag("td", control_name(group.control) if group.control else None)] if controls else []
            parts += [tag("td", group.labels.get(axis)) for axis in axes]
            parts += [tag("td", target), *_numbers(group, target, means)]
            parts += [_cost(grouped, group, cost) for cost in ("macs_per_base", "latency_1_ms")]
            rows.append(tag("tr", *parts, tag("td", _links(grouped, group)), id=None if i else group.anchor))
    body = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="data points")
    return tag("div", body, class_="scroll tall", tabindex=0, role="region", aria_label="Every point of the figures")


def _numbers(group: Group, target: str, means: Means) -> list[Markup]:
    made = {m: means.get((group.number, target, m)) for m in ("pearson", "spearman", "mse")}
    main = made["pearson"]
    planned = len(set(group.units.values()))
    units = next((m.units for m in made.values() if m), 0)
    said: list[Child] = [
        number(main.mean) if main else "–", interval(main.low, main.high) if main else "",
        str(units) if units == planned else f"{units} of {planned}",
        *(number(m.mean) if m else "–" for m in (made["spearman"], made["mse"])),
    ]  # fmt: skip
    return [tag("td", one, class_="n") for one in said]


def _cost(grouped: Grouped, group: Group, cost: str) -> Markup:
    spent = spending(grouped, group, cost)
    return tag("td", "" if spent is None else amount(spent), class_="n")


def _links(grouped: Grouped, group: Group) -> Markup:
    """A link for each cell, named by its unit; a cell of several units is named by what they share."""
    units: dict[str, list[Mapping[str, str]]] = {}
    for unit, cell in group.units.items():
        units.setdefault(cell, []).append(dict(zip(grouped.over, unit, strict=True)))
    links = []
    for cell, named in units.items():
        same = {a: v for a, v in named[0].items() if all(other[a] == v for other in named)}
        said = "/".join(same.values()) or cell[:8]
        full = ", ".join(f"{a} {v}" for a, v in same.items())
        state = grouped.results.cells[cell].state
        title = ": ".join(part for part in (full, "" if state == "done" else state) if part)
        class_ = None if state == "done" else "bad"
        links.append(tag("a", said, href=f"#cell-{cell}", title=title or None, class_=class_))
    return tag("span", *links, class_="links")
