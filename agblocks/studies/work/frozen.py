"""Features of frozen models: every tap that the cells of one share want, in one pass over the rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...graph.model import GraphModel
from ...graph.resolved import Resolved
from ...training.settings import Settings
from ...training.tuning.initial import Initial
from ..errors import WorkError
from ..features import Store as FeatureStore
from ..features import Tap, extract
from ..planning import models
from ..planning.cell import Cell, digest
from ..planning.rows import Rows
from ..store import Store
from .gradient import sources

BATCH = 64


@dataclass(frozen=True)
class Frozen:
    """Features by tap and pool, the weights that were loaded (sha256), and how many parameters each tap needs."""

    features: Mapping[str, NDArray[np.float32]]
    weights: str | None
    sizes: Mapping[str, int]

    def of(self, cell: Cell) -> NDArray[np.float32]:
        return self.features[_key(cell)]

    def parameters(self, cell: Cell) -> int:
        return self.sizes[cell.given["tap"]]


def frozen_features(cells: Sequence[Cell], rows: Rows, store: Store) -> Frozen:
    """Features of all rows at every tap of the cells, which share one model.

    Drawn weights are those that a model cut at the tap draws, whatever else is asked for: where a larger model would
    draw others, the tap gets a pass of its own.
    """
    first = cells[0]
    recipe = models.whole(first.given["recipe"], {}, None)
    taps = tuple(dict.fromkeys(cell.given["tap"] for cell in cells))
    drawn = "seed" in first.document
    made: dict[str, NDArray[np.float32]] = {}
    sizes: dict[str, int] = {}
    left, loaded = list(taps), None
    while left:
        model, loaded = started_model(models.tapped(recipe, tuple(left)), first, store)
        state, alike = model.state_dict(), []
        for tap in left:
            alone = state
            if drawn and len(left) > 1:
                alone = started_model(models.tapped(recipe, (tap,)), first, store)[0].state_dict()
            if all(torch.equal(value, state[name]) for name, value in alone.items() if name in state):
                alike.append(tap)
        if not alike:
            raise WorkError(f"taps {', '.join(left)}: no model draws the weights that one of them alone draws")
        wanted = {_key(cell): cell for cell in cells if cell.given["tap"] in alike}
        made |= _pass(model, wanted, rows, first.document.get("inputs", {}), store.features)
        for tap in alike:
            sizes[tap] = _size(model, tap)
        left = [tap for tap in left if tap not in alike]
    return Frozen(made, loaded, sizes)


def started_model(resolved: Resolved, cell: Cell, store: Store) -> tuple[GraphModel, str | None]:
    """The model that a probe reads, in evaluation mode, and the sha256 of what was loaded into it."""
    tops = {node.partition(".")[0] for node in resolved.nodes}
    loads = [
        # A model cut at its tap lacks nodes that the whole one has.
        {**source, "into": [name for name in source["into"] if name.partition(".")[0] in tops] or source["into"]}
        for source in sources(cell, store)
    ]
    initial = Initial(resolved, loads)
    reinit = "+".join(cell.document.get("reinit", ()))
    return initial.model(Settings(seed=cell.document.get("seed", 0), reinit=reinit)).eval(), initial.sha256


def _pass(
    model: GraphModel, wanted: Mapping[str, Cell], rows: Rows, inputs: Mapping[str, int], kept: FeatureStore
) -> dict[str, NDArray[np.float32]]:
    """Features by the names of the taps; what was kept before is not computed again."""
    taps = {name: Tap(cell.given["tap"], **cell.document["pool"]) for name, cell in wanted.items()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = extract(model.to(device), taps, rows.table.sequences, rows.construct, kept, inputs=inputs, batch_size=BATCH)
    model.cpu()
    return {name: features.array for name, features in made.items()}


def _size(model: GraphModel, tap: str) -> int:
    nodes = tuple(f"{node.name}." for node in model.resolved.needed([tap]))
    return sum(p.numel() for name, p in model.named_parameters() if name.startswith(nodes))


def _key(cell: Cell) -> str:
    return f"{cell.given['tap']} {digest(cell.document['pool'])}"
