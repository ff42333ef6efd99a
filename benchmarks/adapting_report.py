"""Table and plot of `benchmarks.adapting`: intervals by resampling folds and seeds, differences paired by both."""

from __future__ import annotations

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 10_000
REFERENCE = "full"


def report(out: Path, cells: list[dict[str, Any]], memory: dict[str, Any], ridge: list[float], rows: int) -> None:
    by = defaultdict(dict)
    for one in cells:
        by[one["method"]][one["fold"], one["seed"]] = one
    reference = by.get(REFERENCE, {})
    lines = []
    for method, made in by.items():
        scores = np.array([one["test"] for one in made.values()])
        paired = {key: one["test"] - reference[key]["test"] for key, one in made.items() if key in reference}
        lines.append({
            "method": method, "r": scores.mean(), "interval": interval(made), "sd": scores.std(ddof=1),
            "less": statistics.mean(paired.values()) if method != REFERENCE and paired else None,
            "less_interval": interval({k: {"test": paired[k]} for k in paired}),
            "beside_head": next(iter(made.values()))["beside_head"], "rate": next(iter(made.values()))["rate"],
            "seconds": statistics.median(one["seconds"] for one in made.values()),
            "memory": memory[method]["memory_mb"], "cells": len(made),
        })  # fmt: skip
    lines.sort(key=lambda line: -line["r"])
    text = [
        "| method | trains beside the head | test r | 95 % | minus full | rate | CPU s | memory, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        low, high = line["interval"]
        least, most = line["less_interval"]
        less = "" if line["less"] is None else f"{line['less']:+.3f} [{least:+.3f}, {most:+.3f}]"
        text.append(
            f"| {line['method']} | {line['beside_head']:,} | {line['r']:.3f} | {low:.3f} to {high:.3f} | {less} "
            f"| {line['rate']:g} | {line['seconds']:.0f} | {line['memory']:.0f} |"
        )
    text.append(f"| k-mer ridge | | {np.mean(ridge):.3f} | three folds {min(ridge):.3f} to {max(ridge):.3f} | | | | |")
    (out / "table.md").write_text("\n".join(text) + "\n")
    print("\n".join(text))
    plot(out / "adapting.png", lines, float(np.mean(ridge)), rows)


def interval(made: dict[Any, dict[str, Any]]) -> tuple[float, float]:
    """95 % of means over folds drawn with replacement, and seeds within them."""
    folds = defaultdict(list)
    for (fold, _), one in made.items():
        folds[fold].append(one["test"])
    if not folds:
        return float("nan"), float("nan")
    generator, names = np.random.default_rng(0), list(folds)
    means = []
    for _ in range(DRAWS):
        drawn = generator.choice(len(names), len(names))
        means.append(np.mean([np.mean(generator.choice(folds[names[i]], len(folds[names[i]]))) for i in drawn]))
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def plot(path: Path, lines: list[dict[str, Any]], ridge: float, rows: int) -> None:
    """A line a method, the best on top; parameters at the right."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(8, 0.24 * len(lines) + 1.2), constrained_layout=True)
    plain = {"from scratch", "random, frozen: head", "head", "full", "last layer", "both layers"}
    for place, line in enumerate(lines):
        base = line["method"] in plain or "decay" in line["method"]
        color, marker = ("#d55e00", "s") if base else ("#0072b2", "o")
        axis.plot(line["interval"], (place, place), color=color, lw=1.2)
        axis.plot(line["r"], place, color=color, marker=marker, ms=5)
        axis.annotate(
            f"{line['beside_head']:,}", (1.01, place), xycoords=("axes fraction", "data"), fontsize=7, va="center"
        )
    axis.axvline(ridge, color="0.4", ls=":", lw=1)
    axis.annotate("k-mer ridge", (ridge, len(lines) - 0.6), fontsize=7, color="0.3", ha="right", rotation=90)
    axis.set_yticks(range(len(lines)), [line["method"] for line in lines], fontsize=7)
    axis.set(ylim=(len(lines) - 0.4, -0.6), xlabel="test Pearson r")
    axis.set_title(
        f"STARR-seq to lentiMPRA, {rows or 'all'} rows: 3 folds x 3 seeds, 95 % intervals\n"
        "squares: no adapter; at the right: parameters that train beside the head",
        fontsize=9,
    )
    figure.savefig(path, dpi=140)
    plt.close(figure)
