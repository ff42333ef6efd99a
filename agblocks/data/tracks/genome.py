"""A genome: stretches of a FASTA file as codes, read where they are needed."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ...files import beside
from ..errors import DataError
from ..sequence import Codes, N, look_up
from .names import ChromosomeNames

_UNKNOWN = 255


class Genome:
    """A FASTA file, read by its index; any part of it as codes, and N beyond the ends.

    lengths: bases of each chromosome, in the file's order. names: what else a chromosome may be called.
    Lower case (soft mask) is read as upper case; IUPAC letters have codes of their own (`data.sequence`). The index
    `<file>.fai` is made where it is missing or older than the file: beside it, or in the system's temporary folder
    where that is not allowed.
    Errors: `DataError` for a file that is missing, compressed other than by bgzip, or no FASTA.
    Costs: nothing is held in memory; a process and a thread may share it, each process opens the file itself.
    """

    def __init__(self, fasta: str | Path, names: ChromosomeNames | None = None):
        self.path, self.names = Path(fasta), names or ChromosomeNames()
        self._open()
        self.lengths = {str(name): int(record.rlen) for name, record in self._fasta.faidx.index.items()}

    def codes(self, chromosome: str, start: int, stop: int) -> Codes:
        """Codes of a stretch, from 0, without its end; N where it passes the chromosome's ends.

        Shapes: -> (stop - start,) uint8.
        Errors: `DataError` for an unknown chromosome, an empty stretch, a letter that is not DNA (with its place).
        """
        name = self.names.want(chromosome, self.lengths, str(self.path))
        if start >= stop:
            raise DataError(f"{self.path}: {name}:{start:,}-{stop:,} is empty; wanted a start below its stop")
        first, last = max(0, start), min(self.lengths[name], stop)
        out = np.full(stop - start, N, dtype=np.uint8)
        if first < last:
            if os.getpid() != self._process:
                self._open()
            read = look_up(str(self._fasta.faidx.fetch(name, first + 1, last).seq))
            if len(read) != last - first:
                raise DataError(
                    f"{self.path}: {name}:{first:,}-{last:,} has {len(read):,} letters: not what its index says"
                )
            if len(bad := np.flatnonzero(read == _UNKNOWN)):
                place = first + int(bad[0])
                raise DataError(f"{self.path}: {name}, position {place + 1:,}: a letter that is not DNA")
            out[first - start : last - start] = read
        return out

    def _open(self) -> None:
        from pyfaidx import Fasta, FastaIndexingError, FastaNotFoundError, UnsupportedCompressionFormat

        try:
            index, fresh = self._index()
            if not fresh:  # whole or absent: other processes may read it, and this one may be killed
                with beside(index) as part:
                    Fasta(str(self.path), indexname=str(part)).close()
            self._fasta: Any = Fasta(str(self.path), indexname=str(index), as_raw=False)
        except FastaNotFoundError:
            raise DataError(f"{self.path}: there is no such FASTA file") from None
        except (
            FastaIndexingError,
            UnsupportedCompressionFormat,
            ImportError,
            OSError,
            ValueError,
            UnicodeDecodeError,
        ) as error:
            raise DataError(f"{self.path}: cannot be read as FASTA: {str(error).strip()}") from None
        if not len(self._fasta.faidx.index):
            raise DataError(f"{self.path}: no sequence in it; wanted FASTA, a line '>name' before each sequence")
        self._process = os.getpid()

    def _index(self) -> tuple[Path, bool]:
        """Where the index is, or can be made; and whether it is there (or cannot be: there is no file)."""
        usual = self.path.with_name(f"{self.path.name}.fai")
        if not self.path.is_file():
            return usual, True
        fresh = usual.is_file() and usual.stat().st_mtime >= self.path.stat().st_mtime
        writable = bool(self.path.parent.stat().st_mode & 0o222)  # a folder that is read-only is so for root too
        if fresh or (writable and os.access(self.path.parent, os.W_OK)):
            return usual, fresh
        folder = Path(tempfile.gettempdir()) / f"agblocks-fai-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        state = self.path.stat()
        key = hashlib.sha256(f"{self.path.resolve()}\0{state.st_size}\0{state.st_mtime_ns}".encode()).hexdigest()[:16]
        index = folder / f"{key}.fai"
        return index, index.is_file() and index.stat().st_mtime >= state.st_mtime

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "names": self.names, "lengths": self.lengths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()
