"""Tables of docs/studies/stage_transfer.md: `python -m benchmarks.stage_tables out`, after `agblocks study report out`.

A number is the mean test r of what is there, over folds and seeds; intervals stand in the report.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import polars

WAYS = ("frozen", "finetune")


def main() -> None:
    out = Path(sys.argv[1])
    at_home(out)
    frame = polars.read_parquet(out / "report" / "cells.parquet").filter(polars.col("pearson").is_not_null())
    frame = frame.with_columns(polars.col("control").fill_null("none"))
    curves(frame)
    deeper(frame)
    counted(polars.read_csv(out / "report" / "comparisons.csv"))


def at_home(out: Path) -> None:
    """What the models that others start from reached on rows of their own assay."""
    shown = {entry["cell"] for entry in json.loads((out / "plan.json").read_text())["entries"]}
    cells = {path.parent.name: json.loads(path.read_text()) for path in out.glob("cells/*/cell.json")}
    begun = {w["cell"] for c in shown & cells.keys() for w in cells[c]["given"].get("weights", []) if "cell" in w}
    found = defaultdict(list)
    for name in sorted(begun):
        result = json.loads((out / "cells" / name / "result.json").read_text())
        for score in result["scores"]["test"]:
            key = (cells[name]["given"]["recipe"]["name"].removeprefix("study_"), score["target"])
            found[key].append((score["pearson"], result["seconds"], result["parameters"]["all"]))
    rows = [
        (*key, len(made), f"{statistics.mean(r for r, *_ in made):.2f}", f"{made[0][2]:,}",
         f"{statistics.mean(seconds for _, seconds, _ in made):.0f}")
        for key, made in sorted(found.items())
    ]  # fmt: skip
    table(("encoder", "learnt", "seeds", "test r", "parameters", "CPU s"), rows)


def curves(frame: polars.DataFrame) -> None:
    """Probes by stage: taught and drawn."""
    probes = frame.filter(way="probe").with_columns(polars.col("tap").str.strip_prefix("encoder."))
    taps = [*(f"stage{i}" for i in range(1, 8)), "encoder"]
    for (target, encoder), part in probes.filter(control="none").group_by("target", "encoder", maintain_order=True):
        drawn = probes.filter(control="random", target=target, encoder=encoder)
        rows = [(f"learnt from {source}", by_tap(own, taps)) for (source,), own in part.group_by("from")]
        rows = [*sorted(rows), ("as drawn", by_tap(drawn, taps))]
        table((f"{encoder}, {target}", *taps), [(name, *values) for name, values in rows])


def by_tap(frame: polars.DataFrame, taps: list[str]) -> list[str]:
    means = dict(frame.group_by("tap").agg(polars.col("pearson").mean()).iter_rows())
    return [f"{means[tap]:.2f}" if tap in means else "" for tap in taps]


def deeper(frame: polars.DataFrame) -> None:
    """Beyond probes: a head on stage 3, everything up to stage 3, the whole model; with k-mers beside."""
    rows = []
    own = frame.filter(control="none")
    for encoder, source, target in own.select("encoder", "from", "target").unique(maintain_order=True).iter_rows():
        here = frame.filter(encoder=encoder, target=target)
        cells = []
        for way in WAYS:
            cells += [mean(here.filter(way=way, control="none", **{"from": source}))]
            cells += [mean(here.filter(way=way, control="random"))]
        whole = mean(here.filter(control="full", **{"from": source}))
        rows.append((target, encoder, source, *cells, whole, mean(frame.filter(control="kmer", target=target))))
    heads = ("target", "encoder", "from", "head alone", "(drawn)", "up to stage 3", "(drawn)", "whole model", "k-mers")
    table(heads, sorted(rows))


def mean(frame: polars.DataFrame) -> str:
    return f"{frame['pearson'].mean():.2f}" if len(frame) else ""


def counted(compared: polars.DataFrame) -> None:
    """What can be said, by what it was compared with."""
    keys = ("axis_to", "target", "against")
    verdicts = ("better", "worse", "none")
    rows = []
    for names, part in sorted(compared.group_by(*keys), key=lambda pair: pair[0]):
        rows.append((*names, *(len(part.filter(verdict=verdict)) for verdict in verdicts), part["family"].max()))
    table(("to", "target", "against", "better", "worse", "cannot be told", "compared at once"), rows)


def table(heads: tuple[str, ...], rows: list[tuple]) -> None:
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    print("\n".join(f"| {' | '.join(map(str, row))} |" for row in rows), end="\n\n")


if __name__ == "__main__":
    main()
