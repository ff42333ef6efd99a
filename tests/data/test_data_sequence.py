"""Sequences, codes, one-hot: against loops written apart."""

import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agblocks.data import (
    DataError,
    decode,
    decode_codes,
    encode,
    one_hot,
    reverse_complement,
    reverse_complement_codes,
    reverse_complement_tensor,
)

BASES = {
    "A": "A", "C": "C", "G": "G", "T": "T", "U": "T", "N": "ACGT", "R": "AG", "Y": "CT", "S": "CG",
    "W": "AT", "K": "GT", "M": "AC", "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG",
}  # fmt: skip
LETTERS = "".join(BASES) + "".join(BASES).lower()
dna = st.text(LETTERS, min_size=1, max_size=40)
batches = st.integers(1, 30).flatmap(
    lambda n: st.lists(st.text(LETTERS, min_size=n, max_size=n), min_size=1, max_size=5)
)


def loop_one_hot(sequences, fraction):
    out = torch.zeros(len(sequences), 4, len(sequences[0]))
    for b, sequence in enumerate(sequences):
        for i, letter in enumerate(sequence.upper()):
            bases = BASES[letter]
            if letter != "N" and (len(bases) == 1 or fraction):
                for base in bases:
                    out[b, "ACGT".index(base), i] = 1 / len(bases)
    return out


def loop_reverse_complement(sequence):
    sets = {frozenset(v): k for k, v in BASES.items() if k != "U"}
    out = ""
    for letter in reversed(sequence):
        other = sets[frozenset("TGCA"["ACGT".index(b)] for b in BASES[letter.upper()])]
        out += other if letter.isupper() else other.lower()
    return out


@given(batches, st.booleans())
def test_one_hot_is_the_loop(sequences, fraction):
    found = one_hot(sequences, ambiguous="fraction" if fraction else "zeros")
    torch.testing.assert_close(found, loop_one_hot(sequences, fraction), rtol=0, atol=1e-7)
    assert found.is_contiguous()


@given(batches)
def test_decode_gives_the_text_back(sequences):
    want = [s.upper().replace("U", "T") for s in sequences]
    assert decode_codes(encode(sequences)) == want
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert decode(one_hot(sequences, ambiguous="fraction", dtype=dtype)) == want


@given(dna)
def test_reverse_complement_of_text(sequence):
    other = reverse_complement(sequence)
    assert other == loop_reverse_complement(sequence)
    assert reverse_complement(other) == sequence.replace("U", "T").replace("u", "t")


@given(batches, st.sampled_from(["zeros", "fraction"]))
def test_text_codes_and_tensors_turn_alike(sequences, ambiguous):
    turned = [reverse_complement(s) for s in sequences]
    x = one_hot(sequences, ambiguous=ambiguous)
    assert torch.equal(reverse_complement_tensor(x), one_hot(turned, ambiguous=ambiguous))
    assert (reverse_complement_codes(encode(sequences)) == encode(turned)).all()


@given(dna, st.integers(0, 40), st.characters().filter(lambda c: c not in LETTERS))
def test_an_unknown_character_is_named_with_its_place(sequence, at, letter):
    at = min(at, len(sequence))
    bad = sequence[:at] + letter + sequence[at:]
    with pytest.raises(DataError) as error:
        one_hot(["A" * len(bad), bad])
    assert error.value.problems == (f"row 1, position {at + 1}: unknown letter {letter!r}",)
    with pytest.raises(DataError, match=f"position {at + 1}"):
        reverse_complement(bad)


def test_conventions():
    assert one_hot("ACGTNacgtnUu").argmax(1).tolist() == [[0, 1, 2, 3, 0, 0, 1, 2, 3, 0, 3, 3]]
    assert one_hot("ACGTN").sum(1).tolist() == [[1, 1, 1, 1, 0]]
    assert one_hot("RN", ambiguous="fraction")[0].T.tolist() == [[0.5, 0, 0.5, 0], [0, 0, 0, 0]]
    assert one_hot("R").abs().sum() == 0
    assert one_hot("AC", dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "no sequence to encode: found an empty list, wanted at least one sequence"),
        ([""], "row 0: found an empty sequence, wanted at least one base"),
        (
            ["AC", "ACG"],
            "sequences of one length are wanted, but row 0 has 2 bases and row 1 has 3; "
            "group them by length, or pad to a stated one (Construct)",
        ),
        (
            ["AC-G", "ACGT", "A?*G"],
            "2 sequences with letters that are not DNA; wanted A C G T N U or an IUPAC ambiguity letter, "
            "either case\n  row 0, position 3: unknown letter '-'\n  row 2, position 2: unknown letter '?'",
        ),
    ],
)
def test_messages(sequences, message):
    with pytest.raises(DataError) as error:
        one_hot(sequences)
    assert str(error.value) == message


@pytest.mark.parametrize("column", [[0.7, 0.1, 0.1, 0.1], [2, 0, 0, 0], [-1, 1, 1, 0], [0.25] * 4])
def test_decode_refuses_what_is_not_one_hot(column):
    x = one_hot("ACG")
    x[0, :, 1] = torch.tensor(column)
    with pytest.raises(DataError, match="row 0, position 2"):
        decode(x)


def test_shapes_are_checked():
    with pytest.raises(DataError, match=r"found shape \(1, 3, 4\)"):
        decode(torch.zeros(1, 3, 4))
    with pytest.raises(DataError, match=r"found shape \(2, 5, 4\)"):
        reverse_complement_tensor(torch.zeros(2, 5, 4))
    with pytest.raises(DataError, match="'zeros' or 'fraction'"):
        one_hot("A", ambiguous="half")


def test_importing_is_light():
    code = "import sys, agblocks.data; print([m for m in sys.modules])"
    names = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for heavy in ("polars", "pooch", "pyfaidx", "h5py", "lightning", "pandas"):
        assert f"'{heavy}'" not in names
