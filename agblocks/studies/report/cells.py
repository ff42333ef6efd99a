"""The table of all cells, and what stands behind each row: digest, weights, command, files."""

from __future__ import annotations

import json
from typing import Any

import polars

from ..results import Results
from ..table import axis_columns
from .html import Markup, amount, interval, number, tag

# Column of the flat table -> its header. Numbers to the right.
NUMBERS = {
    "pearson": "Pearson r", "spearman": "Spearman ρ", "mse": "squared error", "n": "rows", "parameters": "parameters",
    "macs_per_base": "mult-adds/bp", "latency_1_ms": "ms at batch 1", "seconds": "seconds",
}  # fmt: skip
DETAILS = (
    "state", "reason", "where", "recipe", "weights", "command", "chosen", "rows_train", "rows_valid", "rows_test",
    "parameters", "parameters_trained", "seconds", "run_peak_mb", "macs_per_base", "latency_1_ms", "latency_32_ms",
    "peak_mb", "agblocks", "host",
)  # fmt: skip


def cells_table(results: Results, flat: polars.DataFrame) -> Markup:
    """A row for each place of the plan and target. The page's script sorts, filters and unfolds it."""
    axes = axis_columns(results.axes)
    # An axis that never changes says nothing a row.
    shown = {a: c for a, c in axes.items() if len(results.axes[a]) > 1 or len(axes) == 1}
    controls = flat["control"].n_unique() > 1
    heads = [tag("th", "cell", scope="col"), tag("th", "state", scope="col", data_select=True)]
    heads += [tag("th", "control", scope="col", data_select=True)] if controls else []
    heads += [tag("th", axis, scope="col", data_select=True) for axis in shown]
    heads += [tag("th", "target", scope="col", data_select=True)]
    heads += [tag("th", name, scope="col", class_="n") for name in NUMBERS.values()]
    seen: set[str] = set()
    rows = []
    for row in flat.iter_rows(named=True):
        cell = row["cell"]
        anchor = None if cell in seen else f"cell-{cell}"
        seen.add(cell)
        parts = [tag("td", tag("a", cell[:8], href=f"#cell-{cell}"), class_="id", data_cell=cell)]
        parts += [tag("td", row["state"], class_=None if row["state"] == "done" else "bad")]
        parts += [tag("td", row["control"])] if controls else []
        parts += [tag("td", row[column]) for column in (*shown.values(), "target")]
        parts += [tag("td", _shown(row, column), class_="n") for column in NUMBERS]
        rows.append(tag("tr", *parts, id=anchor))
    body = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="data cells")
    return tag("div", body, class_="scroll tall", tabindex=0, role="region", aria_label="All cells")


def _shown(row: dict[str, Any], column: str) -> Markup | str:
    value = row[column]
    if f"{column}_low" not in row:
        return "" if value is None else amount(value)
    if value is None:
        return "–" if row["state"] == "done" else ""
    ends = interval(row[f"{column}_low"], row[f"{column}_high"], 2)
    return tag("span", number(value), title=f"rows resampled: {ends}" if ends else None)


def cells_data(results: Results, flat: polars.DataFrame) -> Markup:
    """What the page unfolds under a row, as JSON: columns once, then a list a cell."""
    once = flat.unique("cell", keep="first", maintain_order=True)
    values = {row["cell"]: [row[name] for name in DETAILS] for row in once.iter_rows(named=True)}
    content = {"columns": DETAILS, "cells": values}
    # `</script>` and `<!--` inside a string would end the element that holds it.
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    return Markup(f'<script type="application/json" id="cells-data">{text}</script>')
