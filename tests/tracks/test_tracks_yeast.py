"""The baseline on real tracks: PolII on chrIV, whose known Pearson is 0.43."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from agblocks import resolve
from agblocks.data.tracks import Genome, GenomeTracks, Track, by_block, separate, tile
from agblocks.training.tracks import fit_bins, wire_tracks

FOLDER = Path(os.environ.get("AGBLOCKS_DATA", "/nowhere")) / "yeast_genome_tracks"
RECIPE = {
    "recipe": 1,
    "name": "bins",
    "inputs": {"dna": "B 4 L"},
    "nodes": {"encoder": {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": 8, "growth": 0}}},
    "heads": {"bins": {"block": "head.coverage", "in": "encoder", "args": {"tracks": 1}}},
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="the yeast tracks are not at AGBLOCKS_DATA"),
]


def test_ridge_on_4_mers_reaches_the_known_number():
    """The mean over five folds of 50-kb blocks, of log(1 + PolII) in bins of 128 bp; single folds are 0.3 to 0.6."""
    data = GenomeTracks(Genome(FOLDER / "sacCer3_chrIV.fa"), [Track("PolII", str(FOLDER / "PolII.bw"))])
    assert data.missing == {}  # IV of the bigWig is chrIV of the FASTA
    resolved = resolve(RECIPE)
    windows = tile(data.genome.lengths, 4096)
    wiring = wire_tracks(resolved, data.tracks, 4096)
    found = []
    for fold in range(5):
        labels = by_block(windows, block=50_000, folds=5, valid=[(fold + 1) % 5], test=[fold])
        splits, _ = separate(windows, labels, wiring.sight(resolved))
        known = wiring.with_means(data.means(windows, splits.train))
        (score,) = fit_bins(data, windows, splits, known).evaluate(splits.test, bootstrap=100).tracks
        assert score.log_interval[0] < score.log_pearson < score.log_interval[1]
        found.append(score.log_pearson)
    print(np.round(found, 3), np.mean(found))
    assert np.mean(found) == pytest.approx(0.43, abs=0.03)
