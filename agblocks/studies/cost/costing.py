"""What the models of a study cost: one measurement for each that is another computation, when its cells are done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...graph.resolved import Resolved
from ...training.write import write_whole
from ..planning import models
from ..planning.cell import Cell, digest
from ..store import Store
from .measure import measure

SECONDS = 3.0  # of rounds for the latency of one model


def cost_name(resolved: Resolved, edges: tuple[str, ...], length: int, adapters: Any = None) -> str:
    """What a cost hangs on apart from the machine: what is computed, and on how many bases. Weights don't matter."""
    return digest([[resolved.info(edge).digest for edge in edges], length, adapters])


def measure_costs(cells: Iterable[Cell], store: Store, say: Callable[[str], None]) -> int:
    """Measure what is not measured of the finished cells' models, into out/costs. Returns how many were.

    Each process measures what no other does at that moment; what else runs on the machine is measured too.
    """
    distinct = {c.given["cost"]: c for c in cells if c.given.get("cost") and store.result(c.id) is not None}
    left = {name: cell for name, cell in distinct.items() if not _file(store, name).exists()}
    if left:
        say(f"{len(left)} models to be measured")
    done = 0
    for name, cell in left.items():
        with store.claim(f"cost-{name}") as mine:
            if mine and not _file(store, name).exists():
                _file(store, name).parent.mkdir(exist_ok=True)
                write_whole(_file(store, name), (json.dumps(_measured(cell), indent=1) + "\n").encode())
                done += 1
    return done


def _measured(cell: Cell) -> Mapping[str, Any]:
    resolved = models.whole(cell.given["recipe"], {}, None)
    if "tap" in cell.given:
        tapped = models.tapped(resolved, (cell.given["tap"],))
        return measure(tapped, [cell.given["tap"]], lengths=cell.given["bases"], seconds=SECONDS)
    if adapters := cell.given["transfer"].get("adapters"):
        from ...adapters import adapt
        from ...graph.build import build

        return measure(adapt(build(resolved, seed=0), adapters), lengths=cell.given["bases"], seconds=SECONDS)
    return measure(resolved, lengths=cell.given["bases"], seconds=SECONDS)


def _file(store: Store, name: str) -> Any:
    return store.out / "costs" / f"{name}.json"
