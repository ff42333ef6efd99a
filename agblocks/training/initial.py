"""Where a training starts: weights drawn by a seed, and those of a file put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..graph.model import GraphModel
from ..graph.resolved import Resolved
from .run import weights_sum

if TYPE_CHECKING:
    from ..weights.report import Report


class Initial:
    """Builds members of a run. With weights, each gets the same ones, and the rest drawn by its seed.

    report: what became of every tensor, once a model was built; sha256: of what was loaded, None without weights.
    Errors: `WeightsError` as `agblocks.load_weights`.
    """

    def __init__(
        self,
        resolved: Resolved,
        weights: str | Path | Mapping[str, Any] | None = None,
        into: str | Sequence[str] | None = None,
    ):
        self.resolved, self.weights, self.into = resolved, weights, into
        self.report: Report | None = None
        self.sha256: str | None = None

    def model(self, seed: int) -> GraphModel:
        """The model of a seed, built anew."""
        from ..graph.build import build

        model = build(self.resolved, seed=seed)
        if self.weights is not None:
            report = self._load(model)
            if self.report is None:
                state = model.state_dict()
                self.report, self.sha256 = report, weights_sum({name: state[name] for name in report.loaded})
        return model

    def _load(self, model: GraphModel) -> Report:
        from .. import load_weights
        from ..weights import WeightsError

        try:
            return load_weights(model, self.weights, into=self.into)  # type: ignore[arg-type]
        except WeightsError as error:
            # A run of the same recipe but for its heads' names holds all, it says; heads by other names are new ones.
            if error.report is None or not self._heads_alone(error.report):
                raise
            return load_weights(model, self.weights, into=self.into, allow=("missing", "unexpected"))  # type: ignore[arg-type]

    def _heads_alone(self, report: Report) -> bool:
        """Whether all that one of our files lacks is heads, and all that is too much is of nodes that are not here."""
        heads = tuple(f"{head}." for head in self.resolved.heads)
        here = {node.partition(".")[0] for node in self.resolved.nodes}
        strange = {key.rpartition("/")[2].partition(".")[0] for key in report.unexpected}
        lacks = all(name.startswith(heads) for name in report.missing)
        return report.format == "agblocks" and not report.wrong_shape and lacks and not strange & here

    @property
    def record(self) -> dict[str, Any]:
        """What is stored of it with the run; nothing without weights."""
        if self.report is None:
            return {}
        report = self.report
        return {
            "source": report.source, "format": report.format, "revision": report.revision, "sha256": self.sha256,
            "loaded": len(report.loaded), "numbers": report.numbers, "cut": len(report.cut),
            "left": [*report.left, *report.absent, *report.missing], "other_block": dict(report.other_block),
            "assumed": list(report.assumed),
        }  # fmt: skip
