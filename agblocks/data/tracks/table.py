"""The table of tracks: which bigWig is which track, and how its values are meant."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import DataError, near

Aggregation = Literal["mean", "sum"]
Gaps = Literal["zero", "missing"]
Squash = Literal["none", "old", "new"]


@dataclass(frozen=True)
class Track:
    """One track of a genome.

    name, path: what it is called, and its bigWig.
    pair: the track of the other strand, itself ("") for one without strand. Pairs name each other.
    organism: the number that a model's `organism` input has for it.
    scale: what its values are multiplied with.
    aggregation: a bin is the mean of its bases, or their sum (counts).
    gaps: what bases without a value are where the bigWig has the chromosome: zero (most writers leave zeros out), or
        missing. A chromosome that the bigWig lacks is missing either way, and so is what lies beyond the ends.
    resolutions: bins, in bp, of the heads that learn it; () for all.
    squash: Borzoi's scale (`layers.squash`, in its old or new form), for heads that don't scale targets themselves.
    Errors: `DataError` for a value that none of these can be.
    """

    name: str
    path: str
    pair: str = ""
    organism: int = 0
    scale: float = 1.0
    aggregation: Aggregation = "mean"
    gaps: Gaps = "zero"
    resolutions: tuple[int, ...] = ()
    squash: Squash = "none"

    def __post_init__(self) -> None:
        for what, options in _CHOICES.items():
            if getattr(self, what) not in options:
                raise DataError(
                    f"track {self.name!r}: {what} is {getattr(self, what)!r}; {near(str(getattr(self, what)), options)}"
                )
        if not self.name or not self.path:
            raise DataError(f"track {self.name!r}: wanted a name and a path")
        if not 0 < self.scale < float("inf"):
            raise DataError(f"track {self.name!r}: scale is {self.scale}, wanted a number above 0")
        if self.organism < 0 or any(r < 1 for r in self.resolutions):
            raise DataError(f"track {self.name!r}: organism and resolutions are whole numbers from 0 and from 1")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "resolutions": list(self.resolutions)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Track:
        """What `to_dict` wrote."""
        return cls(**{**values, "resolutions": tuple(values["resolutions"])})


_CHOICES = {"aggregation": get_args(Aggregation), "gaps": get_args(Gaps), "squash": get_args(Squash)}
COLUMNS = tuple(f.name for f in fields(Track))


def read_tracks(path: str | Path) -> tuple[Track, ...]:
    """Tracks of a table (.tsv, .csv) with a header: `name` and `path`, and any other field of `Track`.

    Paths count from the table's folder. Empty cells are defaults; resolutions are apart by commas or spaces.
    Errors: `DataError` with file, line and column of everything that is wrong, all at once.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    rows = csv.reader(text.splitlines(), delimiter="," if file.suffix.lower() == ".csv" else "\t")
    header = [cell.strip() for cell in next(rows, [])]
    if {"name", "path"} - set(header):
        raise DataError(
            f"{file}: the header is {header}; wanted columns name and path, and any of {', '.join(COLUMNS[2:])}"
        )
    if strange := [name for name in header if name not in COLUMNS]:
        raise DataError(f"{file}: there is no column {strange[0]!r}; {near(strange[0], COLUMNS)}")
    if twice := [name for name in COLUMNS if header.count(name) > 1]:
        raise DataError(f"{file}: the column {twice[0]!r} is there twice")
    problems: list[str] = []
    tracks: list[Track] = []
    for cells in rows:
        if not any(cell.strip() for cell in cells) or cells[0].startswith("#"):
            continue
        where = f"line {rows.line_num}"
        if len(cells) != len(header):
            problems.append(f"{where}: {len(cells)} cells, the header has {len(header)}")
            continue
        try:
            tracks.append(_track({k: v.strip() for k, v in zip(header, cells, strict=True) if v.strip()}, file.parent))
        except DataError as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise DataError(f"{file}: {len(problems)} of its rows are no tracks", problems)
    if not tracks:
        raise DataError(f"{file}: no tracks in it")
    check_tracks(tracks, str(file))
    return tuple(tracks)


def check_tracks(tracks: Sequence[Track], where: str = "tracks") -> None:
    """Names are there once; pairs name each other and are alike. Errors: `DataError`, all of them."""
    names = [track.name for track in tracks]
    by_name = dict(zip(names, tracks, strict=True))
    problems = [f"{name!r} is there twice" for name in dict.fromkeys(n for n in names if names.count(n) > 1)]
    alike = lambda t: (t.aggregation, t.organism, t.resolutions, t.scale, t.gaps, t.squash)  # noqa: E731
    for track in tracks:
        if not track.pair or track.pair == track.name:
            continue
        other = by_name.get(track.pair)
        if other is None:
            problems.append(f"{track.name!r} pairs with {track.pair!r}, which is not there; {near(track.pair, names)}")
        elif other.pair != track.name:
            problems.append(f"{track.name!r} pairs with {track.pair!r}, which pairs with {other.pair or 'none'!r}")
        elif alike(other) != alike(track):
            problems.append(f"{track.name!r} and {track.pair!r} pair, but differ in how they are learnt")
    if problems:
        raise DataError(f"{where}: tracks that don't go together", dict.fromkeys(problems))


def swapped(tracks: Iterable[Track]) -> tuple[int, ...]:
    """For each track the place of the one on the other strand: its pair, or itself.

    Errors: `DataError` if a pair is not among them.
    """
    listed = list(tracks)
    place = {track.name: i for i, track in enumerate(listed)}
    out = []
    for track in listed:
        if (pair := track.pair or track.name) not in place:
            raise DataError(f"track {track.name!r} is learnt without its other strand {pair!r}; wanted both or none")
        out.append(place[pair])
    return tuple(out)


def _track(cells: dict[str, str], folder: Path) -> Track:
    values: dict[str, Any] = dict(cells)
    if missing := [name for name in ("name", "path") if name not in cells]:
        raise DataError(f"column {missing[0]} is empty")
    values["path"] = str(folder / cells["path"])
    for name, kind, wanted in (("organism", int, "a whole number"), ("scale", float, "a number")):
        if name in cells:
            values[name] = _number(cells[name], kind, name, wanted)
    if "resolutions" in cells:
        parts = cells["resolutions"].replace(",", " ").split()
        values["resolutions"] = tuple(_number(part, int, "resolutions", "whole numbers") for part in parts)
    return Track(**values)


def _number(text: str, kind: Any, column: str, wanted: str) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise DataError(f"column {column}: found {text!r}, wanted {wanted}") from None
