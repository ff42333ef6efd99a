"""Sequences and measurements: from a file to batches that a model reads.

    table = read_table("mpra.tsv", sequence="seq", targets="activity", fold="fold", id="name")
    splits = split_by_fold(table, valid=1, test=10)
    check_leaks(table, splits.parts(), construct=lentimpra())
    batches = Loader(table, splits.train, construct=lentimpra(), shuffle=True, augment=Augment(0.5))

Polars, pooch and h5py are imported by the functions that use them.
"""

from .affix import common_affixes
from .augment import Augment
from .batches import plan_batches
from .catalogue import PUBLIC
from .construct import Construct
from .constructs import CONSTRUCTS, lentimpra, named_construct, starrseq, yeast
from .errors import DataError
from .fetch import PublicData, PublicFile, fetch
from .leaks import LENTIMPRA_STRAND, check_leaks, find_leaks, insert_groups, inserts
from .loader import Loader
from .public import load
from .read import read_sequences, read_table
from .rows import BadRow
from .sequence import (
    decode,
    decode_codes,
    encode,
    one_hot,
    one_hot_codes,
    reverse_complement,
    reverse_complement_codes,
    reverse_complement_tensor,
)
from .simulate import Motif, Pair, Truth, simulate_mpra
from .splits import Splits, fold_groups, genomic_blocks, split_by_fold, split_by_group, split_random
from .table import Table
from .variants import Variants, cagi5

__all__ = [
    "CONSTRUCTS",
    "LENTIMPRA_STRAND",
    "PUBLIC",
    "Augment",
    "BadRow",
    "Construct",
    "DataError",
    "Loader",
    "Motif",
    "Pair",
    "PublicData",
    "PublicFile",
    "Splits",
    "Table",
    "Truth",
    "Variants",
    "cagi5",
    "check_leaks",
    "common_affixes",
    "decode",
    "decode_codes",
    "encode",
    "fetch",
    "find_leaks",
    "fold_groups",
    "genomic_blocks",
    "insert_groups",
    "inserts",
    "lentimpra",
    "load",
    "named_construct",
    "one_hot",
    "one_hot_codes",
    "plan_batches",
    "read_sequences",
    "read_table",
    "reverse_complement",
    "reverse_complement_codes",
    "reverse_complement_tensor",
    "simulate_mpra",
    "split_by_fold",
    "split_by_group",
    "split_random",
    "starrseq",
    "yeast",
]
