"""Public data sets as tables: pooled, without repeats, and with folds that don't leak."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from .catalogue import LENTIMPRA, PUBLIC, STARRSEQ, YEAST_PROMOTERS
from .errors import DataError, near
from .fetch import PublicData, fetch
from .leaks import LENTIMPRA_STRAND, elements
from .read import read_table
from .splits import fold_groups, genomic_blocks
from .table import Table

_WINDOW = re.compile(r"^(?P<chrom>[^_]+)_(?P<start>\d+)_(?P<end>\d+)_")


def load(name: str, *, download: bool = True) -> Table:
    """A public data set as a table, ready to be split by fold.

    human_lentimpra_3k: three files pooled, 60 repeats dropped; target "mean_value"; the published folds "0"
        to "9"; group is the element (`seq1_F` and `seq1_Reversed:` are one).
    drosophila_starrseq_3k: three files pooled, 31 repeats dropped; targets "Dev_log2_enrichment" and
        "Hk_log2_enrichment"; group is the 250-kb block (overlapping windows stay together), and blocks are
        dealt into ten folds.
    yeast_random_promoters_6k: target "expression"; rows are dealt into ten folds; lengths vary.

    Errors: `DataError` if the name is not known (with near names), is not a table, or the files can't be had
    (see `fetch`).
    Use when: developing, testing, comparing with published baselines. Cite `PUBLIC[name].citation`.
    """
    if name not in PUBLIC:
        raise DataError(f"public data set {name!r} is not known; {near(name, list(PUBLIC))}")
    if name not in _LOADERS:
        hint = "cagi5() reads it" if name.startswith("cagi5") else "fetch(PUBLIC[name], file) gives its files"
        raise DataError(f"{name} is not a table of measured sequences; {hint}; tables: {', '.join(_LOADERS)}")
    data = PUBLIC[name]
    return _LOADERS[name](data, download)


def _paths(data: PublicData, download: bool) -> list[str]:
    return [str(fetch(data, file.name, download=download)) for file in data.files]


def _lentimpra(data: PublicData, download: bool) -> Table:
    table = read_table(_paths(data, download), sequence="seq", targets="mean_value", fold="fold", id="seq_id")
    return replace(table, group=np.array(elements(table.ids, LENTIMPRA_STRAND), dtype=np.str_))


def _starrseq(data: PublicData, download: bool) -> Table:
    table = read_table(
        _paths(data, download),
        sequence="Sequence",
        targets=("Dev_log2_enrichment", "Hk_log2_enrichment"),
        id="ID",
    )
    windows = [_WINDOW.match(name) for name in table.ids]
    found = [w for w in windows if w is not None]
    if len(found) < len(windows):
        raise DataError(f"{data.name}: ids should read chrom_start_end_strand_kind")
    blocks = genomic_blocks(
        [w["chrom"] for w in found], [int(w["start"]) for w in found], end=[int(w["end"]) for w in found]
    )
    return replace(table, group=blocks, fold=fold_groups(blocks))


def _yeast(data: PublicData, download: bool) -> Table:
    table = read_table(_paths(data, download), sequence=1, targets={"expression": 2})
    return replace(table, fold=fold_groups(np.array(table.sequences, dtype=np.str_)))


_LOADERS: dict[str, Callable[[PublicData, bool], Table]] = {
    LENTIMPRA.name: _lentimpra,
    STARRSEQ.name: _starrseq,
    YEAST_PROMOTERS.name: _yeast,
}
