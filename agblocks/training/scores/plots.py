"""Pictures of a run, as PNG files: predictions against measurements, and the curves of training."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..write import write_whole
from .metrics import Score

_BLUE, _RED, _GREY = "#3465a4", "#cc0000", "#888a85"


def scatter(
    path: str | Path, predicted: NDArray[np.float64], observed: NDArray[np.float32], scores: Sequence[Score]
) -> None:
    """Predicted against measured, one panel a target. Shapes: (rows, targets) twice."""
    shown = list(range(min(len(scores), 12)))
    across = min(len(shown), 4)
    figure, axes = _figure(across, -(-len(shown) // across), 3.6)
    for i, axis in zip(shown, axes, strict=False):
        axis.scatter(observed[:, i], predicted[:, i], s=8, alpha=0.5, linewidths=0, color=_BLUE)
        there = np.isfinite(observed[:, i])
        if there.any():
            ends = [float(f(observed[there, i])) for f in (np.min, np.max)]
            axis.plot(ends, ends, color=_GREY, linewidth=1)
        axis.set(xlabel="measured", ylabel="predicted")
        said = f"r {scores[i].pearson:.3f}, rho {scores[i].spearman:.3f}" if not scores[i].reason else scores[i].reason
        axis.set_title(f"{scores[i].target}: {said}, n {scores[i].n:,}", fontsize=9)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    _save(figure, path)


def curves(path: str | Path, histories: Sequence[Path]) -> None:
    """Losses and validation Pearson by epoch, from the CSV files of the members."""
    figure, (left, right) = _figure(2, 1, 3.6)
    for number, file in enumerate(histories):
        with open(file, newline="") as handle:
            rows = list(csv.DictReader(handle))
        first = number == 0
        for axis, column, color in (
            (left, "train_loss", _BLUE), (left, "valid_loss", _RED), (right, "valid_pearson", _RED),
        ):  # fmt: skip
            points = [(int(r["epoch"]), float(r[column])) for r in rows if r[column]]
            if points:
                label = column.replace("_", " ") if first else None
                axis.plot(*zip(*points, strict=True), color=color, label=label, linewidth=1.2, marker=".", markersize=3)
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel="Pearson r")
    for axis in (left, right):
        axis.xaxis.get_major_locator().set_params(integer=True)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def bars(path: str | Path, labels: Sequence[str], series: Mapping[str, Sequence[float]], ylabel: str) -> None:
    """Grouped bars: one group a label, one bar a series."""
    figure, (axis,) = _figure(1, 1, 3.6, wide=max(1.0, len(labels) / 5))
    width = 0.8 / len(series)
    for i, ((name, values), color) in enumerate(zip(series.items(), (_BLUE, _GREY, _RED), strict=False)):
        places = np.arange(len(labels)) + (i - (len(series) - 1) / 2) * width
        axis.bar(places, values, width, label=name, color=color)
    axis.set_xticks(range(len(labels)), labels)
    axis.set_ylabel(ylabel)
    axis.margins(y=0.2)  # room for the legend
    axis.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _figure(across: int, down: int, size: float, wide: float = 1.0) -> tuple[Any, list[Any]]:
    """A figure that no window system and no global state of pyplot knows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size * across * 1.1 * wide, size * down), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Any, path: str | Path) -> None:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=130)
    write_whole(path, held.getvalue())
