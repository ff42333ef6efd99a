"""Features of frozen encoders, computed once and kept: for probes, and for training what reads them."""

from .extract import extract
from .pool import Pool
from .store import Gone, Memory, NoRoom, Store
from .tap import Features, Tap
from .usable import frozen_edges, needed_variants, usable
from .variants import Variant, Variants

__all__ = [
    "Features", "Gone", "Memory", "NoRoom", "Pool", "Store", "Tap", "Variant", "Variants", "extract", "frozen_edges",
    "needed_variants", "usable"
]  # fmt: skip
