"""Where genome tracks come from, in words that a run can store: files, windows, what is held out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...data.tracks import (
    ChromosomeNames,
    Genome,
    GenomeTracks,
    Windows,
    by_block,
    by_chromosome,
    by_part,
    read_bed,
    read_tracks,
    tile,
)
from ...data.tracks.windows import Ends, Whole
from ..errors import RunError


@dataclass(frozen=True)
class GenomeSource:
    """A genome, its tracks and windows, and which windows are held out.

    fasta, tracks: files; see `data.tracks.Genome` and `read_tracks`. names: a file of chromosome names that mean the
    same, if `chrIV` = `IV` and the like are not enough.
    window: bases of a window. stride: from one window to the next (default: side by side); or bed: a file whose
    intervals' middles are the windows'. ends: windows that pass a chromosome's end: drop | pad (with N).
    Held out are the chromosomes that valid_chromosomes and test_chromosomes name; or blocks of `block` bases, dealt to
    `folds` folds, of which valid_folds and test_folds are; or what the BED's fourth column says.
    """

    fasta: str
    tracks: str
    window: int
    stride: int = 0
    bed: str = ""
    ends: Ends = "drop"
    names: str = ""
    valid_chromosomes: tuple[str, ...] = ()
    test_chromosomes: tuple[str, ...] = ()
    block: int = 0
    folds: int = 10
    valid_folds: tuple[str, ...] = ("1",)
    test_folds: tuple[str, ...] = ("0",)

    def data(self) -> GenomeTracks:
        """Genome and tracks, opened. Errors: `DataError`."""
        return GenomeTracks(Genome(self.fasta, self._names()), read_tracks(self.tracks))

    def windows(self, genome: Genome) -> Windows:
        """The windows. Errors: `DataError`; `RunError` without their length."""
        if self.window < 1:
            raise RunError(f"window is {self.window}; wanted the bases of a window, like 4096")
        if self.bed and self.stride:
            raise RunError("windows lie around the intervals of bed, or one every stride bases; wanted one of them")
        if self.bed:
            return read_bed(self.bed, genome.lengths, self.window, names=genome.names, ends=self.ends)
        return tile(genome.lengths, self.window, self.stride or None, ends=self.ends)

    def labels(self, windows: Windows) -> Whole:
        """0, 1, 2 for training, validation and test windows. Errors: `DataError`; `RunError` if nothing says which."""
        if self.block and (self.valid_chromosomes or self.test_chromosomes):
            raise RunError("held out are whole chromosomes, or blocks along them; wanted one of them, found both")
        if self.valid_chromosomes or self.test_chromosomes:
            return by_chromosome(
                windows, valid=self.valid_chromosomes, test=self.test_chromosomes, names=self._names()
            )  # fmt: skip
        if self.block:
            valid, test = ([_fold(fold) for fold in named] for named in (self.valid_folds, self.test_folds))
            return by_block(windows, block=self.block, folds=self.folds, valid=valid, test=test)
        if windows.part:
            return by_part(windows)
        raise RunError(
            "nothing says which windows are held out: name chromosomes (valid_chromosomes, test_chromosomes), or the "
            "length of a block, or train, valid and test in the BED's fourth column"
        )

    def absolute(self) -> GenomeSource:
        """The same with paths that hold from any folder."""
        paths = {
            name: str(Path(path).resolve())
            for name in ("fasta", "tracks", "bed", "names")
            if (path := getattr(self, name))
        }
        return GenomeSource(**{**{k: getattr(self, k) for k in self.to_dict()}, **paths})

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> GenomeSource:
        """What `to_dict` wrote. Errors: `RunError` for anything else."""
        try:
            kept: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
            return cls(**kept)
        except TypeError as error:
            raise RunError(f"the run does not say where its tracks came from: {error}") from None

    def _names(self) -> ChromosomeNames:
        return ChromosomeNames.read(self.names) if self.names else ChromosomeNames()


def _fold(text: str) -> int:
    if not str(text).isdecimal():
        raise RunError(f"fold {text!r}: wanted a number from 0")
    return int(text)
