"""What can be wrong with a study."""

from __future__ import annotations

from ..errors import AgblocksError, RecipeError


class StudyError(RecipeError):
    """Everything that is wrong with a study file, in the order of its lines. `problems` holds the pieces."""


class WorkError(AgblocksError):
    """A cell, a store or an engine that cannot do what it was asked for; the message says why."""
