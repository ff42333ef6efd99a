"""A genome with its tracks: sequence and targets of any stretch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from .bigwig import BigWig
from .bins import binned
from .genome import Genome
from .splits import merged
from .table import Track, check_tracks, swapped
from .windows import Whole, Windows

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Layout:
    """The targets of one head: which tracks, by number, at which resolution; bins from `offset` bases on."""

    tracks: tuple[int, ...]
    resolution: int
    offset: int
    bins: int


class GenomeTracks:
    """A genome and bigWigs along it.

    missing: for each track that lacks some, the genome's chromosomes that its bigWig does not have. There its targets
    are NaN, as they are beyond the ends. A base without a value on a chromosome that is there is what `Track.gaps`
    says.
    Errors: `DataError` for tracks that don't go together, bigWigs that cannot be read or have none of the chromosomes,
    and a chromosome that is longer or shorter in a bigWig than in the FASTA: another assembly.
    """

    def __init__(self, genome: Genome, tracks: Sequence[Track]):
        self.genome, self.tracks = genome, tuple(tracks)
        check_tracks(self.tracks)
        self._files = [BigWig(track.path) for track in self.tracks]
        self._named = [{name: genome.names.find(name, file.lengths) for name in genome.lengths} for file in self._files]
        self.missing: dict[str, tuple[str, ...]] = {}
        for track, file, named in zip(self.tracks, self._files, self._named, strict=True):
            for name, own in named.items():
                if own is not None and file.lengths[own] != genome.lengths[name]:
                    raise DataError(
                        f"{file.path}: {own!r} has {file.lengths[own]:,} bases, but {name!r} of {genome.path} has "
                        f"{genome.lengths[name]:,}: not the same assembly, or not the same chromosome"
                    )
            lacking = tuple(name for name, own in named.items() if own is None)
            if len(lacking) == len(named):
                raise DataError(
                    f"{file.path}: it has {', '.join(list(file.lengths)[:5])}, and none of the genome's chromosomes "
                    f"{', '.join(list(named)[:5])}; a file of names says which is which"
                )
            if lacking:
                self.missing[track.name] = lacking

    def values(self, track: int, chromosome: str, start: int, stop: int) -> NDArray[np.float32]:
        """A track's value at each base, NaN where it is missing. Shapes: -> (stop - start,).

        Errors: `DataError` for a value that is not finite, and as `BigWig.values`.
        """
        what, name = self.tracks[track], self._named[track][chromosome]
        if name is None:
            return np.full(stop - start, np.nan, dtype=np.float32)
        found = self._files[track].values(name, start, stop)
        if np.isinf(found).any():
            first = start + int(np.argmax(np.isinf(found)))
            raise DataError(f"{what.path}: {name}, position {first + 1:,}: an infinite value")
        if what.gaps == "zero":
            place = np.arange(start, stop)
            inside = (place >= 0) & (place < self.genome.lengths[chromosome])
            found = np.where(np.isnan(found) & inside, np.float32(0), found)
        return found if what.scale == 1 else found * np.float32(what.scale)

    def targets(self, layouts: Sequence[Layout], chromosome: str, start: int) -> list[NDArray[np.float32]]:
        """For each layout the targets of a window that begins there; every base of a track is read once.

        Shapes: -> (tracks, bins) each.
        """
        first = min(layout.offset for layout in layouts)
        last = max(layout.offset + layout.bins * layout.resolution for layout in layouts)
        read = {
            track: self.values(track, chromosome, start + first, start + last)
            for track in sorted({track for layout in layouts for track in layout.tracks})
        }
        out = []
        for layout in layouts:
            here = slice(layout.offset - first, layout.offset - first + layout.bins * layout.resolution)
            rows = [binned(read[t][here], layout.resolution, self.tracks[t].aggregation) for t in layout.tracks]
            out.append(np.stack(rows))
        return out

    def swap(self, layout: Layout) -> tuple[int, ...]:
        """For each column of a layout the one of the other strand."""
        return swapped(self.tracks[track] for track in layout.tracks)

    def means(self, windows: Windows, rows: Whole, *, counts: bool = True) -> NDArray[np.float64]:
        """The mean of each track over the bases of these windows that have more than zero, each base once.

        Shapes: -> (tracks,). That is the scale of AlphaGenome's heads, and what others are divided by.
        counts: whether the tracks are for heads of counts, which say nothing below zero.
        Errors: `DataError` naming tracks without a value above zero there; and the first value below, of counts.
        """
        total, seen = np.zeros(len(self.tracks)), np.zeros(len(self.tracks))
        for chromosome, start, stop in merged(windows, rows):
            for begin in range(start, stop, _CHUNK):
                for track in range(len(self.tracks)):
                    found = self.values(track, chromosome, begin, min(stop, begin + _CHUNK)).astype(np.float64)
                    if counts and (found < 0).any():
                        place = begin + int(np.argmax(found < 0))
                        where = f"{self.tracks[track].path}: {chromosome}, position {place + 1:,}"
                        raise DataError(
                            f"{where}: {found[place - begin]:.6g}; heads of counts learn values from 0 on (is it a "
                            "logarithm, or a ratio to an input?)"
                        )
                    above = found > 0
                    total[track] += found[above].sum()
                    seen[track] += above.sum()
        if (seen == 0).any():
            names = ", ".join(track.name for track, n in zip(self.tracks, seen, strict=True) if n == 0)
            raise DataError(f"nothing above zero in the training windows: {names}; there is nothing to learn")
        return total / seen

    def fingerprint(self, windows: Windows, layouts: Sequence[Layout], rows: Whole, samples: int = 32) -> str:
        """A checksum of what some of these windows hold, evenly over them, and of how all of them lie: 16 digits.

        Use when: another run must be on the same data; a bigWig of another experiment differs, one that differs in a
        single place may not.
        """
        digest = hashlib.sha256(json.dumps([t.to_dict() | {"path": ""} for t in self.tracks]).encode())
        digest.update(json.dumps([windows.names, windows.length]).encode())
        digest.update(np.stack([windows.chromosome[rows], windows.start[rows]]).astype("<i8").tobytes())
        for row in rows[np.unique(np.linspace(0, len(rows) - 1, samples).astype(np.int64))] if len(rows) else rows:
            name, start = windows.names[windows.chromosome[row]], int(windows.start[row])
            digest.update(self.genome.codes(name, start, start + windows.length).tobytes())
            for values in self.targets(layouts, name, start):
                digest.update(values.astype("<f4").tobytes())
        return digest.hexdigest()[:16]

    def to_dict(self) -> list[dict[str, Any]]:
        """The tracks, as plain values."""
        return [track.to_dict() for track in self.tracks]
