"""What doing a cell gives, and what of it is written."""

from __future__ import annotations

import platform
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...training.scores.metrics import Score
from ..planning.cell import Cell
from ..store import Predictions


@dataclass(frozen=True)
class Done:
    """A finished cell: scores by part, the test rows' predictions, and what it took.

    chosen: what validation chose (a penalty, an epoch). parameters: of the model, all and trained.
    """

    scores: Mapping[str, Sequence[Score]]
    rows: Mapping[str, int]
    predictions: Predictions
    seconds: float
    chosen: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, int | None] = field(default_factory=dict)
    weights: str | None = None

    def to_dict(self, cell: Cell, command: str, peak_mb: float | None) -> dict[str, Any]:
        """result.json."""
        from ... import __version__

        return {
            "format": "agblocks-cell", "version": 1, "cell": cell.id, "fit": cell.fit,
            "seconds": round(self.seconds, 3), "peak_mb": peak_mb, "rows": dict(self.rows),
            "scores": {part: [score.to_dict() for score in scores] for part, scores in self.scores.items()},
            "chosen": dict(self.chosen), "parameters": dict(self.parameters),
            "recipe": cell.document.get("recipe", cell.document.get("tap")), "weights": self.weights,
            "cost": cell.given.get("cost"), "command": command, "agblocks": __version__, "host": platform.node(),
        }  # fmt: skip


def failure(cell: Cell, error: BaseException) -> dict[str, Any]:
    """failed.json: the reason in one line, the node or the file it comes from, and the traceback."""
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    notes = [note for note in getattr(error, "__notes__", ()) if note.startswith(("in node", "building node"))]
    frames = traceback.extract_tb(error.__traceback__)
    where = notes[0] if notes else f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None
    return {
        "format": "agblocks-cell", "version": 1, "cell": cell.id, "error": said, "where": where,
        "traceback": "".join(traceback.format_exception(error)),
    }  # fmt: skip
