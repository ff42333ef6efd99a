"""Where a training starts: weights drawn by a seed, those of files put in, and what of these is drawn anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...graph.model import GraphModel
from ...graph.resolved import Resolved
from ..run import weights_sum
from ..settings import Settings
from .loads import Load, as_loads
from .plan import DRAWN, REDRAWN
from .reinit import redrawn_names

if TYPE_CHECKING:
    from ...weights.report import Report


class Initial:
    """Builds members of a run. With weights, each gets the same ones, and the rest drawn by its seed.

    weights: sources as `as_loads` takes them, each over what those before it left; into: the nodes that take them,
        where there is one source.
    reports: of every source what became of its tensors, once a model was built; sha256: of all that was loaded, None
    without weights; origins: where the values of each parameter come from.
    Errors: `WeightsError` as `agblocks.load_weights`; `RunError` for terms that fit nothing.
    """

    def __init__(self, resolved: Resolved, weights: Any = None, into: str | Sequence[str] | None = None):
        self.resolved = resolved
        self.loads = as_loads(weights)
        if into is not None:
            names = (into,) if isinstance(into, str) else tuple(into)
            self.loads = tuple(Load(load.source, names, load.revision) for load in self.loads)
        self.reports: tuple[Report, ...] = ()
        self.sha256: str | None = None
        self.origins: dict[str, str] = {}

    def model(self, settings: Settings) -> GraphModel:
        """The model of the settings' seed, built anew.

        What `reinit` names keeps the values that were drawn, whatever is loaded: those of a fresh model of the seed, so
        what else is drawn anew makes no difference.
        """
        from ...graph.build import build

        model = build(self.resolved, seed=settings.seed)
        names = redrawn_names(model, settings.redrawn)
        if self.loads:
            state = model.state_dict()
            fresh = {name: state[name].clone() for name in names}
            reports = tuple(self._load(model, load) for load in self.loads)
            state = model.state_dict()
            if not self.reports:
                loaded = {name for report in reports for name in report.loaded}
                self.reports = reports
                self.sha256 = weights_sum({name: state[name] for name in loaded})
            with torch.no_grad():
                for name, value in fresh.items():
                    state[name].copy_(value)
        self._note(model, names)
        return model

    def _note(self, model: GraphModel, names: Sequence[str]) -> None:
        self.origins = dict.fromkeys(model.state_dict(), DRAWN)
        called = [load.name for load in self.loads]
        for load, name, report in zip(self.loads, called, self.reports, strict=True):
            odd = name in ("", DRAWN, REDRAWN) or called.count(name) > 1
            self.origins.update(dict.fromkeys(report.loaded, load.place if odd else name))
        self.origins.update({name: REDRAWN for name in names if self.origins[name] != DRAWN})

    def _load(self, model: GraphModel, load: Load) -> Report:
        from ... import load_weights
        from ...weights import WeightsError

        options: dict[str, Any] = {"into": load.into or None, "revision": load.revision}
        try:
            return load_weights(model, load.source, **options)
        except WeightsError as error:
            # A run of the same recipe but for its heads' names holds all, it says; heads by other names are new ones.
            if error.report is None or not self._heads_alone(error.report):
                raise
            return load_weights(model, load.source, allow=("missing", "unexpected"), **options)

    def _heads_alone(self, report: Report) -> bool:
        """Whether all that one of our files lacks is heads, and all that is too much is of nodes that are not here."""
        heads = tuple(f"{head}." for head in self.resolved.heads)
        here = {node.partition(".")[0] for node in self.resolved.nodes}
        strange = {key.rpartition("/")[2].partition(".")[0] for key in report.unexpected}
        lacks = all(name.startswith(heads) for name in report.missing)
        return report.format == "agblocks" and not report.wrong_shape and lacks and not strange & here

    @property
    def record(self) -> dict[str, Any]:
        """What is stored of it with the run; nothing without weights. Of several sources each, under `sources`."""
        if not self.reports:
            return {}
        each = [_told(report) for report in self.reports]
        if len(each) == 1:
            return {**each[0], "sha256": self.sha256}
        return {"sha256": self.sha256, "loaded": len({n for r in self.reports for n in r.loaded}), "sources": each}


def _told(report: Report) -> dict[str, Any]:
    return {
        "source": report.source, "format": report.format, "revision": report.revision, "loaded": len(report.loaded),
        "numbers": report.numbers, "cut": len(report.cut), "left": [*report.left, *report.absent, *report.missing],
        "other_block": dict(report.other_block), "assumed": list(report.assumed),
    }  # fmt: skip
