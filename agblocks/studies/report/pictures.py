"""The figures as PNG files, for slides and papers: the page's numbers, drawn by matplotlib."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...training.write import write_whole
from ..written import Similarity
from .curve_drawing import METRICS, y_limits
from .curves import Curves, Panel
from .heat import colour_of
from .look import Look
from .pareto import COSTS, Trade
from .svg import clipped, log_span, log_ticks, short

_MARKS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "down": "v", "cross": "X", "plus": "P"}
_A_FILE = 12  # panels


def picture_curves(folder: Path, made: Curves, known: Sequence[Look]) -> list[str]:
    """curves_<metric>.png, numbered where there are more than twelve panels. Gives the names of the files."""
    names = []
    limits = y_limits(made)
    for name, panels in _files(f"curves_{made.metric}", made.panels):
        figure, axes = _figure(len(panels), legend=0.25 + 0.19 * -(-len(known) // _columns(len(panels))))
        for axis, panel in zip(axes, panels, strict=True):
            _curve(axis, panel, made)
            axis.set_ylim(*limits[panel.target])
        _finish(folder / name, figure, axes, known)
        names.append(name)
    return names


def _curve(axis: Any, panel: Panel, made: Curves) -> None:
    for line in panel.lines:
        look = line.look
        style = _style(look)
        xs = [p.x for p in line.points]
        ys = [p.mean.mean for p in line.points]
        low = [p.mean.mean - p.mean.low for p in line.points]
        high = [p.mean.high - p.mean.mean for p in line.points]
        if line.flat:
            for p in line.points:
                axis.axhline(p.mean.mean, color=look.hex, linestyle=style["linestyle"], linewidth=1.2)
                axis.axhspan(p.mean.low, p.mean.high, color=look.hex, alpha=0.08, linewidth=0)
        else:
            axis.errorbar(xs, ys, yerr=(low, high), capsize=2, linewidth=1.3, elinewidth=0.9, markersize=5, **style)
    axis.set_xticks(range(len(made.xs)), [clipped(x.rpartition(".")[2] or x, 16) for x in made.xs], fontsize=8)
    if sum(len(x.rpartition(".")[2]) for x in made.xs) > 40:
        axis.tick_params(axis="x", rotation=35)
    axis.set(xlabel=_plain(made.axis), ylabel=METRICS[made.metric])
    axis.set_title(_plain(clipped(panel.title, 48)), fontsize=9)


def picture_trades(folder: Path, cost: str, made: Sequence[Trade], known: Sequence[Look]) -> list[str]:
    """cost_<name>.png: accuracy against one cost."""
    names = []
    for name, panels in _files(f"cost_{cost}", made):
        figure, axes = _figure(len(panels), legend=0.25 + 0.19 * -(-len(known) // _columns(len(panels))))
        for axis, trade in zip(axes, panels, strict=True):
            for spot in trade.spots:
                style = _style(spot.look) | {"linestyle": "none"}
                axis.plot(spot.cost, spot.mean.mean, **style, markersize=6, alpha=1 if spot.front else 0.4)
            front = sorted((s.cost, s.mean.mean) for s in trade.spots if s.front)
            axis.step(*zip(*front, strict=True), where="post", color="#777777", linewidth=1, linestyle="--", zorder=0)
            axis.set_xscale("log")
            limits = log_span([spot.cost for spot in trade.spots])
            values = log_ticks(*limits)
            axis.set_xticks(values, [short(value) for value in values], fontsize=8)
            axis.set_xticks([], minor=True)
            axis.set_xlim(*limits)
            axis.set(xlabel=COSTS[cost][0], ylabel="Pearson r")
            axis.set_title(_plain(clipped(trade.title, 48)), fontsize=9)
        _finish(folder / name, figure, axes, known)
        names.append(name)
    return names


def picture_similarity(folder: Path, name: str, made: Similarity) -> list[str]:
    """similarity_<name>.png, with the numbers where they can be read."""
    across, down = len(made.columns), len(made.rows)
    longest = max(map(len, (*made.rows, *made.columns)), default=0)
    room = 0.3 + 0.065 * min(longest, 30)
    below = room * 0.75 + 0.1
    size = (room + 0.3 + 0.46 * across, 0.4 + 0.36 * down + below)
    figure, (axis,) = _figure(1, size, room, below)
    values = [[float("nan") if v is None else v for v in line] for line in made.matrix]
    axis.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
    if across <= 24:
        for r, line in enumerate(made.matrix):
            for c, value in enumerate(line):
                said, dark = ("–", False) if value is None else (f"{value:.2f}", colour_of(value)[1])
                axis.text(c, r, said, ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
    axis.set_xticks(range(across), [_plain(x) for x in made.columns], rotation=40, ha="right", fontsize=8)
    axis.set_yticks(range(down), [_plain(x) for x in made.rows], fontsize=8)
    axis.set_title(_plain(made.title), fontsize=9)
    axis.spines[:].set_visible(False)
    file = f"similarity_{re.sub(r'[^A-Za-z0-9_.-]+', '_', name)}.png"
    _save(figure, folder / file)
    return [file]


def _style(look: Look) -> dict[str, Any]:
    dash = tuple(float(part) for part in look.dash.split())
    return {
        "color": look.hex, "marker": tuple(_MARKS.values())[look.mark], "linestyle": (0, dash) if dash else "-",
        "markerfacecolor": "white" if look.hollow else look.hex, "label": _plain(look.name),
    }  # fmt: skip


def _plain(said: str) -> str:
    """Dollar signs as they are: matplotlib takes a pair for mathematics."""
    return said.replace("$", r"\$")


def _files(name: str, panels: Sequence[Any]) -> list[tuple[str, Sequence[Any]]]:
    parts = [panels[i : i + _A_FILE] for i in range(0, len(panels), _A_FILE)]
    many = len(parts) > 1
    return [(f"{name}_{i + 1}.png" if many else f"{name}.png", part) for i, part in enumerate(parts)]


def _columns(panels: int) -> int:
    """Of the legend, by the width of the figure."""
    return 2 * min(panels, 3)


def _figure(
    panels: int, size: tuple[float, float] = (4.4, 3.2), left: float = 0.65, below: float = 0.5, legend: float = 0.0
) -> tuple[Any, list[Any]]:
    """A figure that no window system and no global state of pyplot knows."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(panels, 3)
    down = -(-panels // across)
    wide, high = size[0] * across, size[1] * down + legend
    figure = Figure(figsize=(wide, high))
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False).ravel().tolist()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[panels:]:
        axis.remove()
    # Margins in inches; a layout that matplotlib works out by itself draws everything twice.
    figure.subplots_adjust(left=left / wide, right=1 - 0.15 / wide, top=1 - 0.35 / high, bottom=(legend + below) / high,
                           wspace=0.22, hspace=0.4)  # fmt: skip
    return figure, axes[:panels]


def _finish(path: Path, figure: Any, axes: Sequence[Any], known: Sequence[Look]) -> None:
    from matplotlib.lines import Line2D

    for axis in axes:
        axis.grid(axis="y", color="#ececea", linewidth=0.8)
        axis.set_axisbelow(True)
    handles = [Line2D([], [], linewidth=1.3, markersize=5, **_style(look)) for look in known]
    figure.legend(handles=handles, loc="lower center", ncols=_columns(len(axes)), frameon=False, fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=140)
    write_whole(path, held.getvalue())
