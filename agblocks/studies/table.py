"""A study's folder as one flat table: a row for each place of the plan and target, numbers or the reason for none."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import polars

from ..training.scores.metrics import METRICS
from .results import Cell, Results
from .written import Cost, Entry, Scored

COUNTS = ("rows_train", "rows_valid", "rows_test")
COSTS = ("macs_per_base", "latency_1_ms", "latency_32_ms", "peak_mb")
SCORES = tuple(f"{m}{end}" for m in METRICS for end in ("", "_low", "_high"))
# Every column but those of the axes, which stand after `control`.
COLUMNS: dict[str, Any] = {
    "state": polars.String, "control": polars.String, "target": polars.String,
    **dict.fromkeys(SCORES, polars.Float64), "n": polars.Int64,
    **{f"valid_{m}": polars.Float64 for m in METRICS}, **dict.fromkeys(COUNTS, polars.Int64),
    "parameters": polars.Int64, "parameters_trained": polars.Int64, **dict.fromkeys(COSTS, polars.Float64),
    "seconds": polars.Float64, "run_peak_mb": polars.Float64, "chosen": polars.String, "reason": polars.String,
    "where": polars.String, "cell": polars.String, "recipe": polars.String, "weights": polars.String,
    "command": polars.String, "agblocks": polars.String, "host": polars.String,
}  # fmt: skip


def table(results: Results) -> polars.DataFrame:
    """One row for each place of the plan and target; for one without numbers a single row, its target null.

    The columns of the axes have their names (`axis_` before a name that another column has). A cell that stands for
    several places of a control is one row, with null under the axes it does not depend on.
    Units: seconds, MB; latencies in ms a sequence; multiply-adds for a base. Intervals: 95 %, bootstrap over rows.
    """
    names = axis_columns(results.axes)
    columns = list(COLUMNS)
    schema: dict[str, Any] = {c: COLUMNS[c] for c in columns[:2]}
    schema |= dict.fromkeys(names.values(), polars.String)
    schema |= {c: COLUMNS[c] for c in columns[2:]}
    rows: list[dict[str, Any]] = []
    for entry in places(results):
        cell = results.cells[entry.cell]
        start = {"control": entry.control, **{names[a]: label for a, label in entry.labels.items()}}
        rows += ({**start, **row} for row in _rows(cell, results.costs))
    return polars.DataFrame(rows, schema=schema, orient="row")


def axis_columns(axes: Mapping[str, Any]) -> dict[str, str]:
    """The column of each axis."""
    return {name: f"axis_{name}" if name in COLUMNS else name for name in axes}


def places(results: Results) -> list[Entry]:
    """The plan's entries, those of one control with the same cell put together: labels they share are kept."""
    made: list[Entry] = []
    at: dict[tuple[str, str], int] = {}
    for entry in results.plan.entries:
        key = (entry.control or "", entry.cell)
        if entry.control is None or key not in at:
            at[key] = len(made)
            made.append(entry)
        else:
            before = made[at[key]]
            labels = {a: v for a, v in before.labels.items() if entry.labels.get(a) == v}
            if labels != before.labels:
                made[at[key]] = before.model_copy(update={"labels": labels})
    return made


def _rows(cell: Cell, costs: Mapping[str, Cost]) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {
        "cell": cell.id,
        "state": cell.state,
        "reason": cell.reason or None,
        "where": cell.where or None,
    }
    result = cell.result
    if result is None:
        yield row
        return
    cost = costs.get(result.cost) if result.cost else None
    row |= {name: result.rows.get(name.removeprefix("rows_")) for name in COUNTS}
    row |= {"parameters": result.parameters.get("all"), "parameters_trained": result.parameters.get("trained")}
    row |= {name: getattr(cost, name, None) for name in COSTS}
    row |= {
        "seconds": result.seconds,
        "run_peak_mb": result.peak_mb,
        "recipe": result.recipe,
        "weights": result.weights,
    }
    row |= {"command": result.command, "agblocks": result.agblocks, "host": result.host}
    row["chosen"] = json.dumps(result.chosen, sort_keys=True) if result.chosen else None
    valid = {score.target: score for score in result.scores.get("valid", ())}
    scores = result.scores.get("test", ())
    for score in scores:
        more = {f"valid_{m}": getattr(valid.get(score.target), m, None) for m in METRICS}
        yield {**row, **more, **_numbers(score), "reason": score.reason or None}
    if not scores:
        yield {**row, "reason": "no scores of test rows"}


def _numbers(score: Scored) -> dict[str, Any]:
    numbers: dict[str, Any] = {"target": score.target, "n": score.n}
    for name in METRICS:
        numbers[name] = getattr(score, name)
        numbers[f"{name}_low"], numbers[f"{name}_high"] = getattr(score, f"{name}_interval")
    return numbers
