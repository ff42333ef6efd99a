"""CAGI5 saturation mutagenesis: measured effects of single-base changes, with the genome around them."""

from __future__ import annotations

import csv
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .catalogue import CAGI5
from .errors import DataError, near
from .fetch import fetch
from .sequence import Codes, N, decode_codes, encode

_WIDTH = 2048


@dataclass(frozen=True, eq=False)
class Variants:
    """v measured variants in w windows of real sequence.

    loci (w names), chrom (w,), center (w,) and windows (w, 2048) uint8 codes of hg19: position p of the
    genome (from 1) is column p - (center - 1024) - 1. locus (v,) is the window of a variant; position (v,) on
    the genome; column (v,) in the window; ref, alt (v,) codes; effect, confidence (v,) float32.
    matches (v,) is False where the window does not hold the stated reference; `problems` says which and what.
    """

    loci: tuple[str, ...]
    chrom: tuple[str, ...]
    center: NDArray[np.int64]
    windows: Codes
    locus: NDArray[np.int64]
    position: NDArray[np.int64]
    column: NDArray[np.int64]
    ref: Codes
    alt: Codes
    effect: NDArray[np.float32]
    confidence: NDArray[np.float32]
    matches: NDArray[np.bool_]
    problems: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.locus)

    def of(self, locus: str) -> NDArray[np.int64]:
        """The variants of a locus. Errors: `DataError` with near names."""
        if locus not in self.loci:
            raise DataError(f"there is no locus {locus!r}; {near(locus, self.loci)}")
        return np.flatnonzero(self.locus == self.loci.index(locus))

    def alleles(self, variants: ArrayLike, width: int = _WIDTH) -> tuple[Codes, Codes]:
        """Sequences with the reference and with the alternative, the variant at column width // 2.

        Shapes: variants (k,) -> (k, width) uint8 codes twice; N beyond the window. The reference is the
        window's own base, also where the table states another (`matches`).
        Errors: `DataError` for a width below 1.
        """
        if width < 1:
            raise DataError(f"width is {width}, wanted at least 1")
        index = np.asarray(variants, dtype=np.int64)
        columns = self.column[index][:, None] - width // 2 + np.arange(width)
        inside = (columns >= 0) & (columns < self.windows.shape[1])
        taken = self.windows[self.locus[index][:, None], np.clip(columns, 0, self.windows.shape[1] - 1)]
        reference = np.where(inside, taken, np.uint8(N))
        alternative = reference.copy()
        alternative[:, width // 2] = self.alt[index]
        return reference, alternative


def cagi5(*, download: bool = True) -> Variants:
    """The 15 loci and 18,330 variants of CAGI5, rows as measured; none is left out.

    Three rows of HBG1 state a reference that the window does not have: they stay, with `matches` False, and
    `problems` names them.
    Errors: `DataError` if the files can't be had or are not what they should be.
    Use when: predicted effects of variants are compared with measured ones; nothing is trained on it.
    """
    import h5py  # type: ignore[import-untyped, import-not-found, unused-ignore]

    with h5py.File(fetch(CAGI5, "CAGI5_onehots_centered_2048.h5", download=download), "r") as handle:
        encoded = np.asarray(handle["reference"], dtype=np.float32)
    windows = np.where(encoded.sum(axis=2) > 0, encoded.argmax(axis=2), N).astype(np.uint8)
    centers = fetch(CAGI5, "centered_combined_cagi.csv", download=download)
    with open(centers, encoding="utf-8-sig", newline="") as text:
        regions = list(csv.DictReader(text))
    if windows.shape != (len(regions), _WIDTH):
        raise DataError(f"{CAGI5.name}: {windows.shape} windows for {len(regions)} loci")
    rows: list[tuple[int, int, str, str, float, float]] = []
    problems: list[str] = []
    columns: list[int] = []
    matches: list[bool] = []
    for locus, region in enumerate(regions):
        name = f"combined_{region['locus']}.tsv"
        path = fetch(CAGI5, name, download=download)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("#") or not line.strip():
                continue
            chrom, position, ref, alt, effect, confidence = line.split("\t")
            column = int(position) - (int(region["center"]) - _WIDTH // 2) - 1
            if chrom != region["chr"] or not 0 <= column < _WIDTH:
                raise DataError(f"{path}:{number}: {chrom}:{position} lies outside the window of {region['locus']}")
            there = decode_codes(windows[locus, column].reshape(1, 1))[0]
            if there != ref:
                problems.append(f"{name}:{number}: {chrom}:{position} states {ref}, the window has {there}")
            matches.append(there == ref)
            columns.append(column)
            rows.append((locus, int(position), ref, alt, float(effect), float(confidence)))
    loci, positions, refs, alts, effects, confidences = zip(*rows, strict=True)
    return Variants(
        loci=tuple(r["locus"] for r in regions),
        chrom=tuple(r["chr"] for r in regions),
        center=np.array([int(r["center"]) for r in regions], dtype=np.int64),
        windows=windows,
        locus=np.array(loci, dtype=np.int64),
        position=np.array(positions, dtype=np.int64),
        column=np.array(columns, dtype=np.int64),
        ref=encode("".join(refs))[0],
        alt=encode("".join(alts))[0],
        effect=np.array(effects, dtype=np.float32),
        confidence=np.array(confidences, dtype=np.float32),
        matches=np.array(matches, dtype=np.bool_),
        problems=tuple(problems),
    )
