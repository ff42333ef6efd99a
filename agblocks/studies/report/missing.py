"""What a report cannot show: cells that failed, were not run, or whose files were refused."""

from __future__ import annotations

from collections import Counter

from ..results import Cell, Results
from ..table import places
from .groups import control_name
from .html import Markup, join, tag

_MOST = 200


def missing(results: Results) -> Markup | None:
    """Failures by their reason, cells not run by their labels, files that were refused; None where all is there."""
    by_cell: dict[str, str] = {}
    for entry in places(results):
        labels = [control_name(entry.control)] if entry.control else []
        by_cell.setdefault(entry.cell, ", ".join([*labels, *(f"{a} {v}" for a, v in entry.labels.items())]))
    parts: list[Markup] = []
    for state, title in (("failed", "Failed"), ("refused", "Unreadable"), ("missing", "Not run")):
        cells = [cell for cell in results.cells.values() if cell.state == state]
        if cells:
            parts += [tag("h3", f"{title}: {len(cells):,}"), _list(cells, by_cell, state)]
    known = {cell.reason for cell in results.cells.values()}
    others = [problem for problem in results.problems if problem not in known]
    if others:
        parts += [tag("h3", "Files that were refused"), tag("ul", [tag("li", tag("code", one)) for one in others])]
    absent = [name for name in results.plan.similarity if name not in results.similarity]
    if absent:
        parts += [tag("h3", "Similarities not computed"), tag("p", ", ".join(absent))]
    costless = Counter(c.result.cost for c in results.cells.values() if c.result and c.result.cost)
    lost = sorted(key for key in costless if key not in results.costs)
    if lost:
        said = f"{sum(costless[key] for key in lost):,} cells have no cost: {len(lost)} measurements are not in costs/."
        parts += [tag("h3", "Costs not measured"), tag("p", said)]
    if parts and results.strangers:
        said = (
            f"{results.strangers:,} more cells lie in this folder that no place of the plan shows: what was trained "
            "first, or cells of an earlier form of the study."
        )
        parts.append(tag("p", said, class_="quiet"))
    return join(parts) if parts else None


def _list(cells: list[Cell], labels: dict[str, str], state: str) -> Markup:
    """One line a reason, with its cells; the cells of a reason that many share are folded away."""
    reasons: dict[str, list[Cell]] = {}
    for cell in cells:
        reasons.setdefault(f"{cell.where}: {cell.reason}" if cell.where else cell.reason, []).append(cell)
    items = []
    for reason, group in reasons.items():
        links = [
            tag("li", tag("a", cell.id[:8], href=f"#cell-{cell.id}"), f" {labels[cell.id]}") for cell in group[:_MOST]
        ]
        if len(group) > _MOST:
            links.append(tag("li", f"and {len(group) - _MOST:,} more, in cells.csv"))
        many = tag("details", tag("summary", f"{len(group):,} cell{'s' if len(group) != 1 else ''}"), tag("ul", *links))
        items.append(many if state == "missing" else tag("div", tag("p", tag("code", reason)), many))
    return join(items)
