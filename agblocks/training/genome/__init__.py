"""Whole chromosomes predicted window by window, as one long window would, and written as bigWigs.

    from agblocks.training import load_run
    from agblocks.training.genome import predict_genome
    predict_genome(load_run("run/"), "sacCer3.fa", "predicted/", chromosomes=["chrIV"], strands="both")

`tile` is the arithmetic of windows by itself: for whoever needs windows of a model along a sequence.
"""

from .agreement import Agreement
from .predict import Predicted, predict_genome
from .shape import Reads, reads
from .tiling import Shape, Span, Tiling, TilingError, Window, tile

__all__ = [
    "Agreement",
    "Predicted",
    "Reads",
    "Shape",
    "Span",
    "Tiling",
    "TilingError",
    "Window",
    "predict_genome",
    "reads",
    "tile",
]
