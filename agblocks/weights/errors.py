"""What is wrong with weights or their source."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import AgblocksError

if TYPE_CHECKING:
    from .report import Report


class WeightsError(AgblocksError):
    """Weights that cannot be loaded; the model is as it was. `report` is what was found out by then, or None."""

    def __init__(self, message: str, report: Report | None = None):
        super().__init__(message)
        self.report = report


@contextmanager
def told(where: str) -> Iterator[None]:
    """Say of whatever libraries raise inside where it was, as a `WeightsError`."""
    try:
        yield
    except WeightsError:
        raise
    except (TypeError, ValueError, RuntimeError, AssertionError, LookupError, AttributeError, OSError) as error:
        said = str(error).partition("\n")[0][:200]
        raise WeightsError(f"{where}: {type(error).__name__}{': ' if said else ''}{said}") from error
