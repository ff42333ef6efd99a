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
            from .. import load_weights

            report = load_weights(model, self.weights, into=self.into)
            if self.report is None:
                state = model.state_dict()
                self.report, self.sha256 = report, weights_sum({name: state[name] for name in report.loaded})
        return model

    @property
    def record(self) -> dict[str, Any]:
        """What is stored of it with the run; nothing without weights."""
        if self.report is None:
            return {}
        report = self.report
        return {
            "source": report.source, "format": report.format, "revision": report.revision, "sha256": self.sha256,
            "loaded": len(report.loaded), "numbers": report.numbers, "cut": len(report.cut),
            "left": [*report.left, *report.absent], "other_block": dict(report.other_block),
            "assumed": list(report.assumed),
        }  # fmt: skip
