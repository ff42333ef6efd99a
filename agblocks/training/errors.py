"""What can go wrong with a run."""

from __future__ import annotations

from ..errors import AgblocksError


class RunError(AgblocksError):
    """A run that cannot be started, taken up again, or read: what was found, what was wanted, what would fit."""


class ResumeError(RunError):
    """A run that was begun cannot be gone on with: by another recipe, other settings or rows, or damaged."""
