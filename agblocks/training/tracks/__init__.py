"""Training on genome tracks: a recipe, a genome, bigWigs; and the scores of what comes out.

source = GenomeSource("sacCer3.fa", "tracks.tsv", window=4096, block=50_000)
run = fit_tracks("yeast_alphagenome", source, "run/", Settings(epochs=30))
"""

from .evaluate import TrackEvaluation, evaluate_run, evaluate_windows
from .fit import fit_tracks
from .heads import HeadTracks
from .moments import AcrossScore, TrackScore
from .ridge import fit_bins
from .source import GenomeSource
from .wiring import TrackWiring, wire_tracks

__all__ = [
    "AcrossScore",
    "GenomeSource",
    "HeadTracks",
    "TrackEvaluation",
    "TrackScore",
    "TrackWiring",
    "evaluate_run",
    "evaluate_windows",
    "fit_bins",
    "fit_tracks",
    "wire_tracks",
]
