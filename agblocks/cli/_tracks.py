"""What commands on genome tracks share: the options that name genome, tracks and windows, and tables of scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from ._training import _expanded, listed

if TYPE_CHECKING:
    from ..training.tracks import TrackEvaluation

_GENOME: dict[str, tuple[Any, Any, str]] = {
    "fasta": (str, "", "the genome, a FASTA file"),
    "tracks": (str, "", "table of tracks (.tsv): name, path, and pair, scale, aggregation, gaps, ... as they need"),
    "window": (int, 0, "bases of a window"),
    "stride": (int, 0, "bases from one window to the next; default: side by side"),
    "bed": (str, "", "windows around the middles of these intervals instead"),
    "ends": (str, "drop", "windows that pass a chromosome's end: drop | pad"),
    "names": (str, "", "file of chromosome names that mean the same, apart by tabs; chrIV = IV is known"),
    "valid_chromosomes": (str, "", "chromosomes held out for validation, like chr8,chr9"),
    "test_chromosomes": (str, "", "chromosomes held out for test"),
    "block": (int, 0, "or: blocks of so many bases along the chromosomes, dealt to folds in turn"),
    "folds": (int, 10, "how many folds blocks are dealt to"),
    "valid_folds": (str, "1", "validation fold, or several like 1,2"),
    "test_folds": (str, "0", "test fold, or several"),
}
_LISTS = ("valid_chromosomes", "test_chromosomes", "valid_folds", "test_folds")


def with_genome(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name a genome, its tracks and windows, in place of its parameter `source`."""
    options = [(name, kind, default, typer.Option(help=words)) for name, (kind, default, words) in _GENOME.items()]
    return _expanded(command, "source", options, _source)


def _source(values: dict[str, Any]) -> Any:
    """What was typed, as a `GenomeSource`; None where nothing of it was."""
    from ..training.tracks import GenomeSource

    if all(values[name] == default for name, (_, default, _) in _GENOME.items()):
        return None
    return GenomeSource(**{**values, **{name: listed(values[name]) for name in _LISTS}})


def tracks_table(title: str, made: TrackEvaluation) -> None:
    """Print scores with 95% intervals, a line for each track of each head, and one across tracks."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for name in ("head", "track", "bins", "Pearson r", "r of log(1 + x)", "MSE"):
        table.add_column(name, justify="right" if name in ("bins", "MSE") else "left")
    for s in made.tracks:
        cells = _with_interval(s.pearson, s.pearson_interval), _with_interval(s.log_pearson, s.log_interval)
        table.add_row(s.head, s.track, f"{s.n:,}", *map(escape, cells), f"{s.mse:.4g}")
        if s.reason:
            table.add_row("", "", "", f"({s.reason})")
    for a in made.across:
        table.add_row(a.head, "across tracks", f"{a.n:,}", "", escape(_with_interval(a.pearson, a.interval)), "")
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    shown = f"{value:.3f}"
    return shown if interval[0] != interval[0] else f"{shown} [{interval[0]:.2f}, {interval[1]:.2f}]"
