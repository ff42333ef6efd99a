"""A small genome with tracks, written as files; and the same as plain arrays, for oracles."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pybigtools


@dataclass
class Made:
    """The files, and what is in them by base: sequence as letters, values with NaN where the bigWig has none."""

    folder: Path
    fasta: Path
    table: Path
    letters: dict[str, str]
    values: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)


def write_fasta(path: Path, letters: dict[str, str], width: int = 60) -> Path:
    lines = []
    for name, text in letters.items():
        lines += [f">{name} something", *(text[i : i + width] for i in range(0, len(text), width))]
    path.write_text("\n".join(lines) + "\n")
    return path


def write_bigwig(path: Path, values: dict[str, np.ndarray]) -> Path:
    """Runs of equal values as records, none where NaN."""
    records = []
    for name, own in values.items():
        start = 0
        for stop in range(1, len(own) + 1):
            if stop == len(own) or own[stop] != own[start]:
                if not np.isnan(own[start]):
                    records.append((name, start, stop, float(own[start])))
                start = stop
    writer = pybigtools.open(str(path), "w")
    writer.write({name: len(own) for name, own in values.items()}, iter(records))
    return path


def made_genome(folder: Path, lengths: dict[str, int] | None = None, seed: int = 0) -> Made:
    """Two chromosomes. Tracks: `gc` follows the sequence by nine bases, `fwd` and `rev` the motif TATAAA and TTTATA, with
    gaps; `half` lacks the second chromosome. In the bigWigs the chromosomes are called I and II."""
    rng = np.random.default_rng(seed)
    lengths = lengths or {"chrI": 4000, "chrII": 2500}
    letters = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in lengths.items()}
    first = next(iter(letters))
    letters[first] = "N" * 30 + letters[first][30:60].lower() + "RYK" + letters[first][63:]
    made = Made(folder, write_fasta(folder / "genome.fa", letters), folder / "tracks.tsv", letters)
    for track in ("gc", "fwd", "rev", "half"):
        own = {}
        for name, text in letters.items():
            if track == "half" and name != first:
                continue
            own[name[3:]] = _values(track, text.upper(), rng)
        made.values[track] = own
        write_bigwig(folder / f"{track}.bw", own)
    made.table.write_text(
        "name\tpath\tpair\taggregation\tgaps\n"
        "gc\tgc.bw\t\tmean\tzero\n"
        "fwd\tfwd.bw\trev\tsum\tzero\n"
        "rev\trev.bw\tfwd\tsum\tzero\n"
        "half\thalf.bw\t\tmean\tmissing\n"
    )
    return made


def _values(track: str, text: str, rng: np.random.Generator) -> np.ndarray:
    n = len(text)
    if track in ("gc", "half"):
        is_gc = np.array([letter in "GC" for letter in text], dtype=float)
        out = np.convolve(is_gc, np.ones(9), mode="same").astype(np.float32)
        if track == "half":
            out[100:140] = np.nan
        return out
    motif = "TATA" if track == "fwd" else "GCGC"
    out = np.zeros(n, dtype=np.float32)
    for i in range(n - 4):
        if text[i : i + 4] == motif:
            out[i : i + 20] += 3
    out[out == 0] = np.nan
    return out


def by_base(made: Made, track: str, name: str, start: int, stop: int, gaps: str) -> np.ndarray:
    """What a track has at each base, by the definition: beyond the ends and on missing chromosomes NaN."""
    out = np.full(stop - start, np.nan)
    own = made.values[track].get(name[3:])
    for i, place in enumerate(range(start, stop)):
        if own is not None and 0 <= place < len(made.letters[name]):
            out[i] = own[place]
            if np.isnan(out[i]) and gaps == "zero":
                out[i] = 0
    return out


def by_bin(values: np.ndarray, resolution: int, aggregation: str) -> np.ndarray:
    out = []
    for i in range(0, len(values), resolution):
        there = [v for v in values[i : i + resolution] if not np.isnan(v)]
        mean = sum(there) / len(there) if there else np.nan
        out.append(mean * resolution if aggregation == "sum" else mean)
    return np.array(out)
