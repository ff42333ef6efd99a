"""What is wrong with weights or their source."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import AgblocksError

if TYPE_CHECKING:
    from .report import Report


class WeightsError(AgblocksError):
    """Weights that cannot be loaded; the model is as it was. `report` is what was found out by then, or None."""

    def __init__(self, message: str, report: Report | None = None):
        super().__init__(message)
        self.report = report
