"""Matrices of similarity that a study asks for: stages of one model against those of another, on the same sequences."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

from ..data import Loader
from ..errors import near
from ..graph.source import Tree
from ..training.wiring import FLAG, Wiring, model_inputs
from ..training.write import write_whole
from .errors import WorkError
from .planning import models
from .planning.cell import Cell, digest
from .planning.making import Maker
from .planning.rows import Rows, described, read_rows
from .similarity import LEAST, POOLS, compare_models
from .store import Store

SIDES = ("rows", "columns")
KEYS = ("data", *SIDES, "pool", "about")
SIDE = ("recipe", "set", "inputs", "weights", "reinit", "seed", "fold", "tap")
BATCH, STAGES = 256, "encoder.stage*"
_NAME = re.compile(r"[\w-][\w.-]*")  # of a file in out/similarity


@dataclass(frozen=True)
class Side:
    """One of the two models: the cell that a probe of its last tap would be, and its taps."""

    cell: Cell
    taps: tuple[str, ...]


@dataclass(frozen=True)
class Likeness:
    """One matrix: two models, the rows that both see, how positions are pooled. `id` says what it depends on."""

    name: str
    rows: Side
    columns: Side
    data: Mapping[str, Any]
    pool: str
    about: str

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.rows.cell.needs, *self.columns.cell.needs)))

    @property
    def id(self) -> str:
        sides = [[dict(side.cell.document), side.taps] for side in (self.rows, self.columns)]
        return digest([sides, self.pool])


def likeness(name: str, tree: Tree, maker: Maker) -> Likeness:
    """A matrix as a study writes it. Errors: `WorkError` for another form; those of making cells.

    Each side says `recipe`, and may say `set`, `inputs`, `weights`, `reinit`, `seed`, `fold` (for models that are
    pretrained for each fold) and `tap`, a pattern, by default every stage of the encoder.
    """
    values = tree.plain()
    if not _NAME.fullmatch(name):
        raise WorkError(f"similarity: {name!r} is to be a file's name; wanted letters, digits, '_', '-' and '.'")
    if not isinstance(values, dict) or not {"data", "rows", "columns"} <= set(values):
        raise WorkError(f"similarity.{name} says data, rows and columns")
    for key in values:
        if key not in KEYS:
            raise WorkError(f"similarity.{name} has no {key!r}; {near(str(key), KEYS)}")
    if values.get("pool", "mean") not in POOLS:
        raise WorkError(f"similarity.{name}: pool is {values['pool']!r}; {near(str(values['pool']), POOLS)}")
    study = maker.study
    if not isinstance(values["data"], str) or values["data"] not in study.data:
        raise WorkError(
            f"similarity.{name}: there are no rows called {values['data']!r}; {near(str(values['data']), study.data)}"
        )
    spec = described({k: t.plain() for k, t in study.data[values["data"]].items()}, study.folder)
    free = replace(maker, scored=False)  # nothing is held out here
    table = read_rows(spec)
    if len(table.table) < LEAST:
        raise WorkError(f"similarity.{name}: {len(table.table)} rows in {values['data']!r}; wanted at least {LEAST}")
    one, other = (_side(f"similarity.{name}.{key}", values[key], values["data"], table, free) for key in SIDES)
    return Likeness(name, one, other, spec, values.get("pool", "mean"), values.get("about", ""))


def write_likenesses(asked: Mapping[str, Likeness], store: Store, say: Callable[[str], None]) -> None:
    """Work out every matrix whose models are there and that is not there yet, into out/similarity.

    One that cannot be worked out is told and left out, as a cell that fails is.
    """
    for name, one in asked.items():
        file = store.out / "similarity" / f"{name}.json"
        if _there(file) == one.id or any(store.result(need) is None for need in one.needs):
            continue
        with store.claim(f"similarity-{one.id}") as mine:
            if mine and _there(file) != one.id:
                try:
                    made = {**_compared(one, store), "id": one.id}
                except Exception as error:
                    say(f"similarity {name} failed: {type(error).__name__}: {str(error).partition(chr(10))[0]}")
                    continue
                file.parent.mkdir(exist_ok=True)
                write_whole(file, (json.dumps(made, indent=1) + "\n").encode())
                say(f"similarity {name}: done")


def _side(path: str, values: Any, data: str, rows: Rows, maker: Maker) -> Side:
    if not isinstance(values, dict) or not isinstance(values.get("recipe"), str | dict):
        raise WorkError(f"{path} says which recipe, like {{recipe: tiny, weights: base}}")
    for key in values:
        if key not in SIDE:
            raise WorkError(f"{path} has no {key!r}; {near(str(key), SIDE)}")
    for section in ("set", "inputs"):
        if not isinstance(values.get(section, {}), dict):
            raise WorkError(f"{path}: {section} maps names to values, not {values[section]!r}")
    if not isinstance(values.get("tap", STAGES), str):
        raise WorkError(f"{path}: tap is {values['tap']!r}; wanted an edge or a pattern")
    pattern = values.get("tap", STAGES)
    resolved = models.whole(values["recipe"], values.get("set", {}), maker.study.folder)
    taps = (
        tuple(t for t in models.outputs(resolved) if fnmatchcase(t, pattern))
        if "*" not in pattern
        else models.taps(resolved, pattern)
    )
    if not taps:
        raise WorkError(f"{path}: no edge is like {pattern!r}; {near(pattern, models.outputs(resolved))}")
    flat = {"data": data, "fit": "ridge", "recipe": values["recipe"], "tap": taps[-1], "seed": values.get("seed", 0)}
    flat["fold"] = str(values.get("fold", rows.folds[0]))
    for section in ("set", "inputs"):
        flat |= {f"{section}.{key}": value for key, value in values.get(section, {}).items()}
    flat |= {f"transfer.{key}": values[key] for key in ("weights", "reinit") if key in values}
    return Side(maker.cell(flat), taps)


def _compared(one: Likeness, store: Store) -> dict[str, Any]:
    from .work.frozen import started_model

    rows = read_rows(one.data)
    built = {}
    for which, side in (("rows", one.rows), ("columns", one.columns)):
        resolved = models.tapped(models.whole(side.cell.given["recipe"], {}, None), side.taps)
        built[which] = started_model(resolved, side.cell, store)[0]
    taps = {"rows": one.rows.taps, "columns": one.columns.taps}
    made = compare_models(built, taps, _batches(built, one, rows), pool=one.pool, about=one.about)  # type: ignore[arg-type]
    return {**made["rows vs columns"], "title": one.name}


def _batches(built: Mapping[str, Any], one: Likeness, rows: Rows) -> Iterator[dict[str, Tensor]]:
    """Batches under the names that either model has for its inputs.

    Shuffled, because a batch of alike sequences (a table sorted by where they come from) says little.
    """
    wirings = []
    for which, side in (("rows", one.rows), ("columns", one.columns)):
        dna, reverse, constants = model_inputs(built[which].resolved, dict(side.cell.document.get("inputs", {})))
        wirings.append(Wiring(dna, reverse, constants, ()))
    flag = FLAG if any(w.reverse for w in wirings) else None
    with torch.inference_mode():
        loader = Loader(
            rows.table, construct=rows.construct, targets={}, batch_size=BATCH, shuffle=True, reverse_input=flag
        )
        for batch in loader:
            yield {name: value for wiring in wirings for name, value in wiring.inputs(batch["inputs"]).items()}


def _there(file: Any) -> str | None:
    try:
        return json.loads(file.read_text(encoding="utf-8")).get("id")
    except (OSError, ValueError, AttributeError):
        return None
