"""Measured sequences in memory, each row knowing where it came from."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..files import write_whole
from .errors import DataError
from .rows import BadRow


@dataclass(frozen=True, eq=False)
class Table:
    """n measured sequences. Every array has one entry a row; sequences are upper case with T for U.

    targets (n, t) float32, NaN where a value is missing and was allowed to be; fold and group text or None;
    files, file (n,) and row (n,): where each row came from; duplicates: exact repeats that were dropped;
    skipped: bad rows that were left out.

    Errors: `DataError` if the parts have different lengths.
    """

    sequences: tuple[str, ...]
    targets: NDArray[np.float32]
    target_names: tuple[str, ...]
    ids: tuple[str, ...]
    fold: NDArray[np.str_] | None = None
    group: NDArray[np.str_] | None = None
    files: tuple[str, ...] = ()
    file: NDArray[np.int64] | None = None
    row: NDArray[np.int64] | None = None
    duplicates: int = 0
    skipped: tuple[BadRow, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.sequences)
        if self.targets.shape != (n, len(self.target_names)):
            raise DataError(
                f"targets have shape {self.targets.shape}, wanted ({n}, {len(self.target_names)}): "
                "a row for each sequence, a column for each target name"
            )
        for name in ("ids", "fold", "group", "file", "row"):
            part = getattr(self, name)
            if part is not None and len(part) != n:
                raise DataError(f"{name} has {len(part)} entries, wanted {n}, one for each sequence")

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, rows: ArrayLike) -> Table:
        """The rows with these numbers (from 0), in this order."""
        index = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            sequences=tuple(self.sequences[i] for i in index),
            ids=tuple(self.ids[i] for i in index),
            targets=self.targets[index],
            **{
                name: getattr(self, name)[index]
                for name in ("fold", "group", "file", "row")
                if getattr(self, name) is not None
            },
        )

    def where(self, index: int) -> str:
        """How to find a row again: `id (file:line)`, as far as known."""
        if self.file is None or self.row is None:
            return f"{self.ids[index]!r} (row {index})"
        return f"{self.ids[index]!r} ({self.files[self.file[index]]}:{self.row[index]})"

    def write_skipped(self, path: str | os.PathLike[str]) -> None:
        """The rows left out, as TSV with file, row, id, reason; written beside and renamed, so never half.

        Errors: `DataError` if the folder does not exist or cannot be written.
        """
        lines = ["file\trow\tid\treason"]
        lines += ["\t".join((_cell(b.file), str(b.row), _cell(b.id), _cell(b.reason))) for b in self.skipped]
        write_whole(path, ("\n".join(lines) + "\n").encode(), DataError)


def _cell(text: str) -> str:
    return " ".join(text.split())
