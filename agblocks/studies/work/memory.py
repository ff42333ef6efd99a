"""The most memory that this process held since a moment."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Peak of resident memory from here on, where the system can say it; else since the process began. In MB."""

    def __init__(self) -> None:
        with suppress(OSError):
            _RESET.write_text("5")

    def mb(self) -> float:
        try:
            line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
            return round(int(line.split()[1]) / 1024, 1)
        except (OSError, StopIteration, ValueError):
            unit = 2**20 if sys.platform == "darwin" else 2**10
            return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)
