"""What the commands that train share: options for data, settings and inputs, and tables of scores."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AgblocksError
from ..training.settings import Settings
from ..training.sources import Source

if TYPE_CHECKING:
    from ..training import Transfer
    from ..training.scores.metrics import Score

_SETTINGS = {
    "epochs": "passes over the training rows, at most",
    "batch_size": "sequences a step",
    "lr": "highest learning rate of AdamW",
    "weight_decay": "of AdamW; norms and biases don't decay",
    "tune": "what trains: full | head | last:2 | from:encoder.stage4 | names like encoder.stage6+tower.**; "
    "default: full, or head beside adapters",
    "unfreeze": "what joins later, like 3=encoder.stage6+encoder.stage7,6=full: after 3 epochs, after 6; or "
    "plateau=full, once validation stops improving (plateau:5x0.1=full: patience 5, then --lr times 0.1)",
    "reinit": "what of --weights is drawn anew, like from:encoder.stage5; terms as of --tune",
    "rates": "learning rates of parts, as multiples of --lr: encoder.**=0.01,head=2",
    "layer_decay": "learning rate of a layer, as a fraction of that of the one above; 1 for none",
    "head_lr": "learning rate of the heads, as a multiple of --lr",
    "min_scale": "least fraction of --lr that --layer-decay comes to",
    "schedule": "constant | cosine | onecycle",
    "warmup": "fraction of all steps in which the learning rate rises",
    "final_lr": "learning rate at the end, as a fraction of --lr",
    "clip": "largest norm of the gradient, 0 for none",
    "patience": "epochs without a better validation score before stopping, 0 never",
    "keep": "which weights: best (on the validation rows) | last (with patience 0)",
    "monitor": "what is better on the validation rows: pearson | loss",
    "ema": "decay of a moving average of the weights, like 0.99; 0 for none",
    "standardise": "train on targets scaled to mean 0, deviation 1",
    "reverse_complement": "probability of showing the other strand in training",
    "shift": "bases by which a training sequence may move either way",
    "shift_probability": "probability of moving at all",
    "shift_mode": "what comes in: n | roll | flanks",
    "shift_scope": "what moves and turns: construct | insert",
    "ambiguous": "IUPAC letters other than N: zeros | fraction",
    "strands": "both averages the predictions for both strands: one | both",
    "ensemble": "models of consecutive seeds, whose predictions are averaged",
    "precision": "32-true | bf16-mixed | 16-mixed",
    "device": "auto | cpu | gpu",
    "devices": "processes on each machine that train together; --batch-size stays that of all",
    "nodes": "machines that train together, by a cluster's srun or torchrun",
    "strategy": "auto | ddp | fsdp (parts of the model on each device)",
    "seed": "of weights, batches, augmentation and dropout",
}
_SOURCE: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "data": (list[str] | None, "a table (TSV, CSV, Parquet), several by repeating; a public data set; 'simulated'", ()),
    "sequence": (str, "column with the sequences (a number counts from 1 where there is no header)", ()),
    "fold": (str, "column with folds; without it ten are dealt, by group or insert", ()),
    "group": (str, "column of rows that stay together when folds are dealt", ()),
    "id": (str, "column with ids", ()),
    "valid_fold": (str, "validation fold, or several like 1,2", ()),
    "test_fold": (str, "test fold, or several", ()),
    "skip_bad_rows": (bool, "leave bad rows out, and list them in skipped.tsv", ("--skip-bad-rows",)),
    "allow_missing": (bool, "let a row lack some of its targets", ("--allow-missing",)),
}
_DEFAULTS: dict[str, Any] = {
    "data": None, "valid_fold": "1", "test_fold": "0", "skip_bad_rows": False, "allow_missing": False
}  # fmt: skip

Construct = Annotated[str, typer.Option(help="none, lentimpra[:mode], starrseq[:mode], yeast[:mode], or a JSON file")]
Targets = Annotated[
    str, typer.Option(help="columns with measurements, like a,b; or head=a+b,other=c to say which head learns which")
]
Inputs = Annotated[list[str] | None, typer.Option("--input", help="value of a whole-number input, like organism=0")]

Weights = Annotated[
    str, typer.Option(help="start from these: a file, a run, a hub repository owner/name; what they lack is drawn")
]
WeightsInto = Annotated[
    list[str] | None, typer.Option(help="load these nodes of --weights only: encoder, 'tower.layer*'")
]
Adapters = Annotated[
    list[str] | None,
    typer.Option("--adapter", help="like lora:role=attn.q,rank=8; several by repeating; default: the recipe's own"),
]

TransferFile = Annotated[
    Path | None,
    typer.Option("--transfer", help="a YAML file: weights, reinit, tune or freeze, unfreeze, rates, adapters in one"),
]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each of `Settings`, in place of its parameter `settings`."""
    made = []
    for f in fields(Settings):
        kind = {"int": int, "float": float, "bool": bool}.get(str(f.type), str)
        made.append((f.name, kind, f.default, typer.Option(help=_SETTINGS[f.name])))
    return _expanded(command, "settings", made, lambda values: Settings(**values))


def with_source(*leave_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options that name measured rows, in place of its parameter `source`."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        made = [
            (name, kind, _DEFAULTS.get(name, ""), typer.Option(*names, help=words))
            for name, (kind, words, names) in _SOURCE.items()
            if name not in leave_out
        ]
        return _expanded(command, "source", made, _source)

    return decorate


def _source(values: dict[str, Any]) -> Source:
    valid, test = (listed(values.pop(f"{part}_fold", "")) for part in ("valid", "test"))
    return Source(data=tuple(values.pop("data") or ()), valid_folds=valid, test_folds=test, **values)


def targets_of(targets: str) -> tuple[tuple[str, ...], dict[str, list[str]] | None]:
    """`a,b` as the targets' names; `head=a+b,other=c` as the names and the heads that learn them."""
    parts = [part.rpartition("=") for part in listed(targets)]
    heads = {head: names.split("+") for head, named, names in parts if named}
    if not heads:
        return listed(targets), None
    if not all(named for _, named, _ in parts):
        raise AgblocksError(f"--targets {targets}: some name a head (head=column+column), some don't; name it for all")
    return tuple(name for names in heads.values() for name in names), heads


def transfer_of(file: Path | None, recipe: str, overrides: Sequence[str] | None) -> Transfer | None:
    """The transfer of a file, checked against the recipe; sources that are files here by their whole path."""
    from dataclasses import replace

    from ..graph.resolve import resolve
    from ..training.tuning.text import read_transfer_file

    if file is None:
        return None
    found = read_transfer_file(file, resolve(recipe, *(overrides or ())))
    whole = tuple(replace(load, source=absolute(load.source)) for load in found.weights)
    return replace(found, weights=whole)


def absolute(source: Any) -> Any:
    """The whole path of what is there as a file or folder; anything else as it is."""
    return str(Path(source).resolve()) if source and Path(source).exists() else source


def inputs_of(inputs: Iterable[str] | None) -> dict[str, int]:
    """`organism=0` as a mapping."""
    found = {}
    for text in inputs or ():
        name, _, value = text.partition("=")
        if not value.isdigit():
            raise AgblocksError(f"--input {text}: wanted name=number, like organism=0")
        found[name] = int(value)
    return found


def listed(text: str) -> tuple[str, ...]:
    """`a, b` as ("a", "b")."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _expanded(
    command: Callable[..., None],
    parameter: str,
    options: Sequence[tuple[str, Any, Any, Any]],
    collect: Callable[[dict[str, Any]], Any],
) -> Callable[..., None]:
    """The command with one parameter replaced by keyword options, which `collect` puts together again."""
    names = [name for name, *_ in options]

    def run(**values: Any) -> None:
        command(**{parameter: collect({name: values.pop(name) for name in names})}, **values)

    signature = inspect.signature(command, eval_str=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [p.replace(kind=keyword) for p in signature.parameters.values() if p.name != parameter]
    parameters += [
        inspect.Parameter(name, keyword, default=default, annotation=Annotated[kind, option])
        for name, kind, default, option in options
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run


def scores_table(title: str, rows: Sequence[tuple[str, Score]]) -> None:
    """Print scores with 95% intervals, one line for each (label, score)."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for name in ("", "target", "n", "Pearson r", "Spearman rho", "MSE"):
        table.add_column(name, justify="right" if name in ("n", "MSE") else "left")
    for label, s in rows:
        cells = _with_interval(s.pearson, s.pearson_interval), _with_interval(s.spearman, s.spearman_interval)
        table.add_row(label, s.target, f"{s.n:,}", *map(escape, cells), f"{s.mse:.3f}")
        if s.reason:
            table.add_row("", "", "", f"({s.reason})")
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    shown = f"{value:.3f}"
    return shown if interval[0] != interval[0] else f"{shown} [{interval[0]:.2f}, {interval[1]:.2f}]"
