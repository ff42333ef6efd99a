"""Genome tracks: sequence from FASTA, windows along it, and targets by bin from bigWigs.

    genome = Genome("sacCer3.fa")
    data = GenomeTracks(genome, read_tracks("tracks.tsv"))
    windows = tile(genome.lengths, 4096)
    labels = by_block(windows, block=100_000, folds=10, valid=[1], test=[0])
    splits, dropped = separate(windows, labels, Sight(0, 4096))
    batches = WindowLoader(data, windows, splits.train, {"coverage": Layout((0, 1), 128, 0, 32)})

pyfaidx and pybigtools are imported where files are opened.
"""

from .bigwig import BigWig
from .bins import binned
from .genome import Genome
from .loader import WindowLoader
from .names import ChromosomeNames
from .splits import Sight, by_block, by_chromosome, by_part, check_windows, merged, separate
from .table import Track, check_tracks, read_tracks, swapped
from .values import GenomeTracks, Layout
from .windows import Windows, read_bed, tile

__all__ = [
    "BigWig",
    "ChromosomeNames",
    "Genome",
    "GenomeTracks",
    "Layout",
    "Sight",
    "Track",
    "WindowLoader",
    "Windows",
    "binned",
    "by_block",
    "by_chromosome",
    "by_part",
    "check_tracks",
    "check_windows",
    "merged",
    "read_bed",
    "read_tracks",
    "separate",
    "swapped",
    "tile",
]
