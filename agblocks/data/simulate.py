"""A simulated reporter assay: planted motifs, known rules, known noise. It needs no file.

Activity is a function of the sequence alone (`Truth.activity`), so chance occurrences of a motif count as
much as planted ones, and any designed or mutated sequence has a true value. The rules:

* each site adds its motif's weight, times `reverse` on the other strand; from the third site on a motif adds
  nothing (saturation);
* a pair of motifs adds its strength, times (1 + cos(2 pi d / 10.5)) / 2 (the same face of the helix), times
  exp(-d / 40), times `opposite` if they lie on different strands; d is the distance of their centres, and the
  best pair of sites counts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .construct import normal
from .errors import DataError
from .sequence import reverse_complement
from .splits import fold_groups
from .table import Table

_IUPAC = {
    "A": "A", "C": "C", "G": "G", "T": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT",
    "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip
_HELIX, _DECAY, _SATURATED = 10.5, 40.0, 2


@dataclass(frozen=True)
class Motif:
    """A consensus with degenerate positions, what a site adds, and the share of it on the other strand."""

    name: str
    consensus: str
    weight: float
    reverse: float = 1.0


@dataclass(frozen=True)
class Pair:
    """Two motifs that work together, how strongly, and the share of it on opposite strands."""

    first: str
    second: str
    strength: float
    opposite: float = 0.3


@dataclass(frozen=True)
class Site:
    """An occurrence: motif, centre (bases from the left, may be a half), and strand."""

    motif: str
    centre: float
    forward: bool


MOTIFS = (
    Motif("AP1", "TGASTCA", 1.0),
    Motif("ETS", "ACCGGAARY", 0.6, reverse=0.5),
    Motif("SP1", "KGGGCGGRRY", 0.8),
    Motif("CREB", "TGACGTMAY", 0.9),
    Motif("HNF4", "TGGACYTTGRMC", 1.1, reverse=0.7),
    Motif("SNAI", "RCAGGTGY", -0.9),
)
PAIRS = (Pair("AP1", "ETS", 1.5), Pair("SP1", "CREB", 1.2, opposite=1.0))


@dataclass(frozen=True, eq=False)
class Truth:
    """What the simulation knows: the rules, the noise, and each row's value without noise.

    clean (n,) float64; noise: standard deviation of what was added; ceiling: the Pearson correlation that a
    perfect prediction reaches on average.
    """

    motifs: tuple[Motif, ...]
    pairs: tuple[Pair, ...]
    clean: NDArray[np.float64]
    noise: float
    ceiling: float

    def sites(self, sequence: str) -> list[Site]:
        """All occurrences, on both strands, overlapping ones too; a palindrome counts once, forward."""
        text = normal(sequence)
        found: list[Site] = []
        for motif in self.motifs:
            places = set()
            for forward, consensus in ((True, motif.consensus), (False, reverse_complement(motif.consensus))):
                pattern = "(?=" + "".join(f"[{_IUPAC[c]}]" for c in consensus) + ")"
                for match in re.finditer(pattern, text):
                    if match.start() not in places:
                        places.add(match.start())
                        found.append(Site(motif.name, match.start() + (len(consensus) - 1) / 2, forward))
        return found

    def activity(self, sequences: str | Sequence[str]) -> NDArray[np.float64]:
        """The value without noise of any sequences. Shapes: n strings -> (n,) float64."""
        listed = [sequences] if isinstance(sequences, str) else sequences
        return np.array([self._activity(self.sites(s)) for s in listed], dtype=np.float64)

    def _activity(self, sites: Sequence[Site]) -> float:
        total = 0.0
        for motif in self.motifs:
            shares = sorted(1.0 if s.forward else motif.reverse for s in sites if s.motif == motif.name)
            total += motif.weight * sum(shares[::-1][:_SATURATED])
        for pair in self.pairs:
            best = 0.0
            for a in (s for s in sites if s.motif == pair.first):
                for b in (s for s in sites if s.motif == pair.second):
                    d = abs(a.centre - b.centre)
                    face = (1 + math.cos(2 * math.pi * d / _HELIX)) / 2
                    share = 1.0 if a.forward == b.forward else pair.opposite
                    best = max(best, face * math.exp(-d / _DECAY) * share)
            total += pair.strength * best
        return total


def simulate_mpra(
    n: int,
    length: int = 200,
    seed: int = 0,
    *,
    ceiling: float = 0.9,
    gc: float = 0.45,
    sites: float = 3.0,
    folds: int = 10,
    adapters: tuple[str, str] = ("", ""),
    motifs: Sequence[Motif] = MOTIFS,
    pairs: Sequence[Pair] = PAIRS,
    paired: float = 0.5,
) -> tuple[Table, Truth]:
    """n random sequences with planted motifs, their noisy activity, and the truth.

    length: bases of the insert; adapters: constant ends around it, as tables of real assays have them (the
    truth sees them too). sites: motifs planted on average; a share of the sequences, `paired`, also gets one of
    the pairs, 10 to 40 bases apart, each motif on a strand of its own. ceiling: sets the noise. Folds are "0" to
    str(folds - 1).

    The same arguments give the same table with the same numpy.
    Errors: `DataError` for impossible arguments, or a truth without variance (too few or too short
    sequences).
    Use when: a demo or a test must not depend on a file; a method is checked against a known answer.
    """
    longest = max(len(m.consensus) for m in motifs)
    if n < folds or folds < 2 or length < 2 * longest:
        raise DataError(
            f"simulate_mpra: n={n}, folds={folds}, length={length}; wanted at least 2 folds, a row for each, "
            f"and {2 * longest} bases"
        )
    if not 0 < ceiling <= 1 or not 0 < gc < 1 or sites < 0 or not 0 <= paired <= 1:
        raise DataError(
            f"simulate_mpra: ceiling={ceiling}, gc={gc}, sites={sites}, paired={paired}; wanted 0 < ceiling <= 1, "
            "0 < gc < 1, sites >= 0, 0 <= paired <= 1"
        )
    rng = np.random.default_rng(seed)
    chances = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
    letters = np.frombuffer(b"ACGT", dtype=np.uint8)
    by_name = {m.name: m for m in motifs}
    texts = []
    for background in letters[rng.choice(4, size=(n, length), p=chances)]:
        sequence = bytearray(background.tobytes())
        for _ in range(rng.poisson(sites)):
            _plant(sequence, motifs[int(rng.integers(len(motifs)))], int(rng.integers(length - longest)), rng)
        if pairs and rng.random() < paired:
            pair = pairs[int(rng.integers(len(pairs)))]
            gap = int(rng.integers(10, max(11, min(41, length - 2 * longest))))
            start = int(rng.integers(max(1, length - longest - gap)))
            _plant(sequence, by_name[pair.first], start, rng)
            _plant(sequence, by_name[pair.second], start + gap, rng)
        texts.append(adapters[0] + sequence.decode("ascii") + adapters[1])
    rules = Truth(tuple(motifs), tuple(pairs), np.zeros(0), 0.0, ceiling)
    clean = rules.activity(texts)
    spread = float(clean.std())
    if spread == 0:
        raise DataError("simulate_mpra: no sequence has a site; make more or longer sequences")
    noise = spread * math.sqrt(1 / ceiling**2 - 1)
    measured = clean + noise * rng.standard_normal(n)
    table = Table(
        sequences=tuple(texts),
        targets=measured[:, None].astype(np.float32),
        target_names=("activity",),
        ids=tuple(f"sim{i}" for i in range(n)),
        fold=fold_groups(np.arange(n), folds=folds, seed=seed),
    )
    return table, Truth(rules.motifs, rules.pairs, clean, noise, ceiling)


def _plant(sequence: bytearray, motif: Motif, start: int, rng: np.random.Generator) -> None:
    """Write one instance of a motif, either way round, over what is there; past the end it is left out."""
    site = "".join(_IUPAC[c][rng.integers(len(_IUPAC[c]))] for c in motif.consensus)
    if rng.random() < 0.5:
        site = reverse_complement(site)
    if start + len(site) <= len(sequence):
        sequence[start : start + len(site)] = site.encode("ascii")
