"""DNA as text, as compact codes, and as one-hot: table look-ups in both directions.

Conventions of the whole project: channels in the order A C G T, N is all zeros, U is read as T, lower case
(soft mask) is read as upper case. Codes are uint8: 0-3 for A C G T, 4 for N, 5-14 for the other ambiguity
letters of IUPAC; a sequence of a million bases takes a megabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .errors import DataError, count

Codes = NDArray[np.uint8]
Ambiguous = Literal["zeros", "fraction"]

ALPHABET = "ACGTNRYSWKMBDHV"
"""The letter of each code."""

N = 4
"""The code of N."""

_BASES = {
    "A": "A", "C": "C", "G": "G", "T": "T", "N": "", "R": "AG", "Y": "CT", "S": "CG", "W": "AT",
    "K": "GT", "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
}  # fmt: skip
_UNKNOWN = 255

_ENCODE = np.full(256, _UNKNOWN, dtype=np.uint8)
for _code, _letter in enumerate(ALPHABET):
    _ENCODE[[ord(_letter), ord(_letter.lower())]] = _code
_ENCODE[[ord("U"), ord("u")]] = ALPHABET.index("T")
_DECODE = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)

_PAIRS = dict(zip("ACGTNRYSWKMBDHV", "TGCANYRSWMKVHDB", strict=True))
_COMPLEMENT = np.array([ALPHABET.index(_PAIRS[letter]) for letter in ALPHABET], dtype=np.uint8)
_TRANSLATE = str.maketrans(
    {**_PAIRS, **{k.lower(): v.lower() for k, v in _PAIRS.items()}, "U": "A", "u": "a"},
)

_FRACTION = np.zeros((len(ALPHABET), 4), dtype=np.float32)
for _code, _letter in enumerate(ALPHABET):
    for _base in _BASES[_letter]:
        _FRACTION[_code, "ACGT".index(_base)] = 1 / len(_BASES[_letter])
_LETTER_OF_SET = {frozenset(bases): letter for letter, bases in _BASES.items()}


def look_up(text: str) -> Codes:
    """Codes of any text, 255 where the character is no letter of DNA; never raises.

    Shapes: text of n characters -> (n,) uint8.
    Use when: bad letters are to be collected rather than raised.
    """
    return _ENCODE[np.frombuffer(text.encode("latin-1", errors="replace"), dtype=np.uint8)]


def unknown_letter(sequence: str) -> tuple[int, str] | None:
    """The first character that is no IUPAC letter: its position (from 1) and itself; None if all are."""
    bad = np.flatnonzero(look_up(sequence) == _UNKNOWN)
    return (int(bad[0]) + 1, sequence[int(bad[0])]) if len(bad) else None


def encode(sequences: str | Sequence[str]) -> Codes:
    """Sequences of equal length as codes; one string counts as one sequence.

    Shapes: batch strings of one length -> (batch, length) uint8.
    Errors: `DataError` for gaps and unknown characters, with row (from 0), position (from 1) and letter of
    the first in every bad row; for lengths that differ; for an empty list or an empty sequence.
    Use when: sequences are stored or augmented; `one_hot_codes` turns codes into the model's input.
    Costs: one byte a base.
    """
    batch = [sequences] if isinstance(sequences, str) else list(sequences)
    if not batch:
        raise DataError("no sequence to encode: found an empty list, wanted at least one sequence")
    length = len(batch[0])
    for row, sequence in enumerate(batch):
        if len(sequence) != length:
            raise DataError(
                f"sequences of one length are wanted, but row 0 has {count(length, 'base')} and row {row} "
                f"has {len(sequence):,}; group them by length, or pad to a stated one (Construct)"
            )
    if length == 0:
        raise DataError("row 0: found an empty sequence, wanted at least one base")
    codes = look_up("".join(batch)).reshape(len(batch), length)
    if codes.max() == _UNKNOWN:
        wrong = np.flatnonzero((codes == _UNKNOWN).any(axis=1))
        problems = []
        for row in wrong.tolist():
            place = int(np.argmax(codes[row] == _UNKNOWN))
            problems.append(f"row {row}, position {place + 1}: unknown letter {batch[row][place]!r}")
        raise DataError(
            f"{count(len(problems), 'sequence')} with letters that are not DNA; "
            "wanted A C G T N U or an IUPAC ambiguity letter, either case",
            problems,
        )
    return codes


def one_hot(
    sequences: str | Sequence[str],
    *,
    dtype: torch.dtype = torch.float32,
    ambiguous: Ambiguous = "zeros",
) -> Tensor:
    """One-hot of sequences of equal length, channels A C G T; one string counts as a batch of one.

    Shapes: batch strings of one length -> (batch, 4, length).
    N is all zeros. The other ambiguity letters are zeros too, or with `ambiguous="fraction"` spread evenly
    over the bases they stand for (R: A 0.5, G 0.5; B: C, G and T one third each); N stays zeros either way.
    Errors: `DataError` as `encode`.
    Use when: sequences go straight into a model.
    """
    return one_hot_codes(encode(sequences), dtype=dtype, ambiguous=ambiguous)


def one_hot_codes(codes: Codes, *, dtype: torch.dtype = torch.float32, ambiguous: Ambiguous = "zeros") -> Tensor:
    """One-hot from codes, as `one_hot`.

    Shapes: (batch, length) uint8 -> (batch, 4, length), contiguous.
    Errors: `DataError` for an unknown value of `ambiguous` or a code above 14.
    """
    if ambiguous not in get_args(Ambiguous):
        raise DataError(f"ambiguous is {ambiguous!r}, wanted 'zeros' or 'fraction'")
    if codes.size and int(codes.max()) >= len(ALPHABET):
        raise DataError(f"found code {int(codes.max())}, wanted codes from 0 to {len(ALPHABET) - 1}")
    plain = codes[:, None, :] == np.arange(4, dtype=np.uint8)[None, :, None]
    out = torch.from_numpy(plain).to(dtype)
    if ambiguous == "fraction" and codes.size and int(codes.max()) > N:
        rows, places = np.nonzero(codes > N)
        parts = torch.from_numpy(_FRACTION[codes[rows, places]]).to(dtype)
        out[torch.from_numpy(rows), :, torch.from_numpy(places)] = parts
    return out


def decode_codes(codes: Codes) -> list[str]:
    """Codes as upper-case text. Shapes: (batch, length) uint8 -> batch strings."""
    text = _DECODE[codes]
    return [row.tobytes().decode("ascii") for row in text]


def decode(encoded: Tensor) -> list[str]:
    """One-hot back to upper-case text: all zeros is N, an even spread over two or three bases its IUPAC
    letter.

    Shapes: (batch, 4, length) or (4, length) -> batch strings.
    Errors: `DataError` for another shape, and for a column that is no one-hot column, with its place.
    Use when: designed or perturbed inputs have to be read; probabilities are not sequences and are refused.
    """
    x = encoded.detach().to("cpu", torch.float32)
    x = x[None] if x.ndim == 2 else x
    if x.ndim != 3 or x.shape[1] != 4:
        raise DataError(f"found shape {tuple(encoded.shape)}, wanted (batch, 4, length) or (4, length), channels ACGT")
    values = x.numpy()
    present = values != 0
    share = present.sum(axis=1, keepdims=True)
    even = np.abs(values * np.maximum(share, 1) - present) < 0.02
    good = (even | ~present).all(axis=1) & (share[:, 0] < 4)
    if not good.all():
        row, place = (int(i) for i in np.argwhere(~good)[0])
        raise DataError(
            f"row {row}, position {place + 1}: the column {values[row, :, place].tolist()} is not one-hot; "
            "wanted one 1, all zeros (N), or equal parts of two or three bases"
        )
    bits = (present * np.array([1, 2, 4, 8]).reshape(1, 4, 1)).sum(axis=1)
    letters = np.zeros(16, dtype=np.uint8)
    for value in range(15):
        bases = frozenset(b for i, b in enumerate("ACGT") if value >> i & 1)
        letters[value] = ALPHABET.index(_LETTER_OF_SET[bases])
    return decode_codes(letters[bits])


def reverse_complement(sequence: str) -> str:
    """The other strand, 5' to 3': IUPAC letters by their complements (R and Y, K and M, B and V, D and H).

    Case is kept; U becomes A, so twice gives the same text but with T for U.
    Errors: `DataError` for an unknown character, with its position.
    """
    if (bad := unknown_letter(sequence)) is not None:
        raise DataError(f"position {bad[0]}: unknown letter {bad[1]!r} has no complement")
    return sequence.translate(_TRANSLATE)[::-1]


def reverse_complement_codes(codes: Codes) -> Codes:
    """The other strand of codes. Shapes: (..., length) uint8 -> the same."""
    return np.ascontiguousarray(_COMPLEMENT[codes][..., ::-1])


def complement_codes(codes: Codes) -> Codes:
    """The complement of each code, order kept. Shapes: any -> the same."""
    return _COMPLEMENT[codes]


def reverse_complement_tensor(encoded: Tensor) -> Tensor:
    """The other strand of one-hot sequences: both the channels (A C G T becomes T G C A) and the positions
    flip.

    Shapes: (..., 4, length) -> the same, a copy.
    Errors: `DataError` if the axis before the last has not four channels.
    Use when: predictions of both strands are averaged.
    """
    if encoded.ndim < 2 or encoded.shape[-2] != 4:
        raise DataError(f"found shape {tuple(encoded.shape)}, wanted (..., 4, length)")
    return encoded.flip(-1, -2)
