"""One bigWig file: values of any stretch, read where they are needed."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError

Values = NDArray[np.float32]


class BigWig:
    """Values of a bigWig by base. lengths: bases of each of its chromosomes.

    Errors: `DataError` for a file that is missing, damaged, or no bigWig.
    Costs: nothing is held in memory; each process and thread opens the file itself.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._own = threading.local()
        self.lengths: dict[str, int] = {str(k): int(v) for k, v in self._reader().chroms().items()}

    def values(self, chromosome: str, start: int, stop: int) -> Values:
        """Value of each base from `start` (from 0) to before `stop`; NaN where the file has none, and beyond the ends.

        Shapes: -> (stop - start,) float32. chromosome: one of `lengths`.
        Errors: `DataError` for an empty stretch, another chromosome, or a file that cannot be read there.
        """
        if chromosome not in self.lengths:
            raise DataError(f"{self.path}: there is no chromosome {chromosome!r}")
        if start >= stop:
            raise DataError(f"{self.path}: {chromosome}:{start:,}-{stop:,} is empty; wanted a start below its stop")
        out = np.full(stop - start, np.nan, dtype=np.float32)
        first, last = max(0, start), min(self.lengths[chromosome], stop)
        if first < last:
            try:
                read = self._reader().values(chromosome, first, last, fillna=None)
            except BaseException as error:  # a damaged block raises whatever its decompression does
                if not _of_the_file(error):
                    raise
                raise DataError(f"{self.path}: {chromosome}:{first:,}-{last:,} cannot be read: {error}") from None
            out[first - start : last - start] = read
        return out

    def _reader(self) -> Any:
        if getattr(self._own, "process", None) != os.getpid():
            import pybigtools

            if not self.path.is_file():
                raise DataError(f"{self.path}: there is no such bigWig file")
            try:
                reader = pybigtools.open(str(self.path))
                if not reader.is_bigwig:
                    raise DataError(f"{self.path}: a bigBed; wanted a bigWig")
            except DataError:
                raise
            except BaseException as error:  # whatever the header of a foreign file makes of it
                if not _of_the_file(error):
                    raise
                raise DataError(f"{self.path}: cannot be read as bigWig: {error}") from None
            self._own.reader, self._own.process = reader, os.getpid()
        return self._own.reader

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "lengths": self.lengths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own = threading.local()


def _of_the_file(error: BaseException) -> bool:
    """Whether it is the reader's: its Rust panics on damaged blocks, and a panic is no `Exception`."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
