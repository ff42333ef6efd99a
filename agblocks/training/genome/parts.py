"""What is predicted of each chromosome, on disk until all of it is there: a killed prediction goes on.

One file a chromosome and output, float32 (tracks, bins), is filled as windows come. A chromosome is done when its JSON
file is there. The folder is named by everything that the values hang on.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import RunError
from ..write import write_whole


class Parts:
    """The folder of one prediction within the folder of its results. Costs: 4 bytes a bin and track, on disk."""

    def __init__(self, out: Path, key: Mapping[str, Any]):
        name = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()[:16]
        self.folder = out / ".parts" / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{out}: cannot be written: {error.strerror}") from None

    def array(self, number: int, output: str, shape: tuple[int, int], new: bool = False) -> np.memmap[Any, Any]:
        """The values of a chromosome's output."""
        file = self.folder / f"{number}.{output}.f32"
        return np.memmap(file, np.float32, "w+" if new else "r", shape=shape)

    def done(self, number: int, codes: str) -> dict[str, Any] | None:
        """What was noted of a chromosome, if it is done: its sequence (a checksum) the same, its values all there."""
        try:
            noted: dict[str, Any] = json.loads((self.folder / f"{number}.json").read_text())
            whole = all((self.folder / name).stat().st_size == size for name, size in noted["sizes"].items())
        except (OSError, ValueError, KeyError):
            return None
        return noted if whole and noted.get("codes") == codes else None

    def note(self, number: int, noted: Mapping[str, Any]) -> None:
        """Say that a chromosome is done, once its values are on the disk."""
        sizes = {}
        for file in self.folder.glob(f"{number}.*.f32"):
            with open(file, "rb+") as handle:
                os.fsync(handle.fileno())
            sizes[file.name] = file.stat().st_size
        write_whole(self.folder / f"{number}.json", json.dumps({**noted, "sizes": sizes}).encode())

    def remove(self) -> None:
        """Delete the folder, and the one around it if no other prediction has parts there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()
