"""Named constructs of published assays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from .construct import Construct
from .errors import DataError, near

LENTIMPRA_ADAPTERS = ("AGGACCGGATCAACT", "CATTGCGTGAACCGA")
LENTIMPRA_PROMOTER = "TCCATTATATACCCTCTAGTGTCGGTTCACGCAATG"
LENTIMPRA_BARCODE = "AGAGACTGAGGCCAC"
LENTIMPRA_FLANKS = (
    "GGCCCGCTCTAGACCTGCAGG",
    "CACTAGAGGGTATATAATGGAAGCTCGACTTCCAGCTTGGCAATCCGGTACTGT",
)
STARRSEQ_ADAPTERS = ("TCCCTACACGACGCTCTTCCGATCT", "AGATCGGAAGAGCACACGTCTGAACT")
YEAST_FLANKS = ("TGCATTTTTTTCACATC", "GGTTACGGCTGTT")

LentiMode = Literal["none", "adapters", "promoter", "promoter_barcode", "all"]


def lentimpra(mode: LentiMode = "all") -> Construct:
    """Human lentiMPRA: tables hold adapter (15) + insert (200) + adapter (15).

    mode: what the model reads. "none": the insert; "adapters": 230 bases; "promoter", "promoter_barcode": the
    insert followed by a 36-bp promoter piece, and a 15-bp barcode; "all": adapters, promoter and barcode, 281
    bases, the input of the published AlphaGenome MPRA models.

    Beware: the 36-bp piece that those models append is, base for base, the reverse complement of the right
    adapter and the 21 bases that follow it on the plasmid. As input it is the same constant for every row;
    but it is not what lies there. `adapters` with shifts into the flanks is the physical neighbourhood, so
    the modes with a promoter have no right flank.

    Source: facts of Al-Murphy/alphagenome_FT_MPRA and MasayukiNagai/alphagenome-encoder-ft (adapters,
    promoter, barcode, modes); flanks from autosome-ru/human_legnet.
    """
    if mode not in get_args(LentiMode):
        raise DataError(f"lentimpra: mode {mode!r}; {near(str(mode), get_args(LentiMode))}")
    a, b = LENTIMPRA_ADAPTERS
    before, after = LENTIMPRA_FLANKS
    kept = mode in ("adapters", "all")
    tail = {"promoter": LENTIMPRA_PROMOTER, "promoter_barcode": LENTIMPRA_PROMOTER + LENTIMPRA_BARCODE}
    tail["all"] = tail["promoter_barcode"]
    return Construct(
        left=a if kept else "",
        right=(b if kept else "") + tail.get(mode, ""),
        strip_left=a,
        strip_right=b,
        flank_left=before if kept else before + a,
        flank_right="" if mode in tail else (after if kept else b + after),
    )


def starrseq(mode: Literal["none", "adapters"] = "adapters") -> Construct:
    """Drosophila UMI-STARR-seq: tables hold the 249-bp insert; with both adapters the model reads 300 bases.

    Source: Al-Murphy/alphagenome_FT_MPRA (25 + 249 + 26). The adapters are the ends of Illumina's read
    primers.
    """
    if mode not in ("none", "adapters"):
        raise DataError(f"starrseq: mode {mode!r}; wanted 'none' or 'adapters'")
    a, b = STARRSEQ_ADAPTERS
    if mode == "none":
        return Construct(flank_left=a, flank_right=b)
    return Construct(left=a, right=b)


def yeast(mode: Literal["none", "flanks"] = "flanks") -> Construct:
    """Yeast random promoters: tables hold flank (17) + random core (about 80, it varies) + flank (13).

    Source: the sample of the DREAM challenge 2022, where every row has these ends.
    """
    if mode not in ("none", "flanks"):
        raise DataError(f"yeast: mode {mode!r}; wanted 'none' or 'flanks'")
    a, b = YEAST_FLANKS
    if mode == "none":
        return Construct(strip_left=a, strip_right=b, flank_left=a, flank_right=b)
    return Construct(left=a, right=b, strip_left=a, strip_right=b)


CONSTRUCTS: dict[str, Callable[..., Construct]] = {
    "none": Construct,
    "lentimpra": lentimpra,
    "starrseq": starrseq,
    "yeast": yeast,
}


def named_construct(name: str) -> Construct:
    """A construct by name, with its mode after a colon: `lentimpra`, `lentimpra:adapters`, `none`.

    Errors: `DataError` for an unknown name or mode, with what would fit.
    Use when: a command line names a construct.
    """
    kind, _, mode = name.partition(":")
    if kind not in CONSTRUCTS:
        raise DataError(f"construct {kind!r} is not known; {near(kind, list(CONSTRUCTS))}")
    if mode and kind == "none":
        raise DataError(f"construct 'none' has no modes, found {mode!r}")
    return CONSTRUCTS[kind](mode) if mode else CONSTRUCTS[kind]()
