"""What can go wrong with a run."""

from __future__ import annotations

from ..errors import AgblocksError


class RunError(AgblocksError):
    """A run that cannot be started, taken up again, or read: what was found, what was wanted, what would fit."""
