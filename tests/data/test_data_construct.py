"""Constructs: what is taken off, what is put on, and that it survives being stored."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.data import CONSTRUCTS, Construct, DataError, lentimpra, named_construct, reverse_complement
from agblocks.data import starrseq as starr
from agblocks.data.constructs import LENTIMPRA_ADAPTERS, LENTIMPRA_FLANKS, LENTIMPRA_PROMOTER

part = st.text("ACGTN", max_size=8)
insert = st.text("ACGTRN", min_size=1, max_size=20)


@st.composite
def constructs(draw):
    values = {n: draw(part) for n in ("left", "right", "strip_left", "strip_right", "flank_left", "flank_right")}
    return Construct(**values)


@given(constructs(), insert)
def test_assemble_and_insert(construct, core):
    row = construct.strip_left + core + construct.strip_right
    assert construct.insert(row) == core
    assert construct.insert(row.lower()) == core
    whole = construct.assemble(row)
    assert whole == construct.left + core + construct.right
    start, stop = construct.insert_span(len(core))
    assert whole[start:stop] == core
    assert construct.bare().assemble(core) == whole


@given(constructs(), insert, st.sampled_from(["left", "right", "both"]), st.integers(0, 9))
def test_padding(construct, core, pad, extra):
    from dataclasses import replace

    bare = construct.bare()
    length = len(bare.assemble(core)) + extra
    padded = replace(bare, length=length, pad=pad)
    whole = padded.assemble(core)
    start, stop = padded.insert_span(len(core))
    assert len(whole) == length and whole[start:stop] == core
    before = start - len(bare.left)
    assert before == {"left": extra, "right": 0, "both": extra // 2}[pad]
    assert whole == "N" * before + bare.assemble(core) + "N" * (extra - before)
    with pytest.raises(DataError, match="nothing is ever cut"):
        padded.assemble(core + "A" * (extra + 1))


@given(constructs(), st.none() | st.integers(1, 99))
def test_json_round_trip(construct, length):
    from dataclasses import replace

    construct = replace(construct, length=length, pad="both" if length else "none")
    assert Construct.from_dict(json.loads(json.dumps(construct.to_dict()))) == construct


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lenght": 3}, "construct: unknown key 'lenght'; did you mean 'length'?"),
        ({"left": 3}, "construct: left is 3, wanted a sequence (text)"),
        ({"left": "AXC"}, "construct: left, position 2: unknown letter 'X'"),
        ({"length": "281"}, "construct: length is '281', wanted a whole number of bases above 0"),
        ({"length": True}, "construct: length is True, wanted a whole number of bases above 0"),
        ({"pad": "centre"}, "construct: pad is 'centre', wanted one of none, left, right, both"),
        ({"pad": "left"}, "construct: pad='left' needs a length to pad to"),
        ({"construct": 2}, "construct: format 2, this version reads 1"),
    ],
)
def test_from_dict_is_strict(change, message):
    with pytest.raises(DataError) as error:
        Construct.from_dict({**Construct().to_dict(), **change})
    assert str(error.value) == message


def test_from_dict_wants_every_key():
    values = Construct().to_dict()
    del values["pad"]
    with pytest.raises(DataError, match="missing 1 key: pad"):
        Construct.from_dict(values)
    with pytest.raises(DataError, match="found list, wanted a mapping"):
        Construct.from_dict([])


def test_a_stated_length_without_padding_is_checked():
    assert Construct(left="AC", length=5).assemble("GGG") == "ACGGG"
    with pytest.raises(DataError) as error:
        Construct(left="AC", length=6).assemble("GGG")
    assert str(error.value) == (
        "the assembled construct has 5 bases (2 + 3 + 0), but its stated length is 6; "
        "pad='left', 'right' or 'both' would add N"
    )


def test_missing_adapters_are_an_error():
    construct = Construct(strip_left="ACGT", strip_right="TTTT")
    with pytest.raises(DataError) as error:
        construct.insert("ACGAGGTTTT")
    assert str(error.value) == (
        "the sequence should start with the constant adapter ACGT, found 'ACGA' (ACGAGGTTTT); "
        "bare inserts are read by Construct.bare()"
    )
    with pytest.raises(DataError, match="should end with"):
        construct.insert("ACGTGGTTT")
    with pytest.raises(DataError, match="nothing is left"):
        construct.insert("ACGTTTTT")
    with pytest.raises(DataError):
        Construct(strip_left="AAA", strip_right="AAA").insert("AAAA")


def test_lentimpra():
    a, b = LENTIMPRA_ADAPTERS
    row = a + "C" * 200 + b
    assert len(row) == 230
    lengths = {m: len(lentimpra(m).assemble(row)) for m in ("none", "adapters", "promoter", "promoter_barcode")}
    assert lengths == {"none": 200, "adapters": 230, "promoter": 236, "promoter_barcode": 251}
    whole = lentimpra().assemble(row)
    assert len(whole) == 281 and whole.startswith(row) and lentimpra().insert_span(200) == (15, 215)
    assert whole.endswith("TCCATTATATACCCTCTAGTGTCGGTTCACGCAATG" + "AGAGACTGAGGCCAC")
    assert named_construct("lentimpra") == lentimpra("all")
    assert named_construct("lentimpra:adapters") == lentimpra("adapters")


def test_the_published_promoter_piece_is_the_other_strand_of_what_stands_there():
    assert reverse_complement(LENTIMPRA_PROMOTER) == LENTIMPRA_ADAPTERS[1] + LENTIMPRA_FLANKS[1][:21]


def test_other_named_constructs():
    assert len(starr().assemble("A" * 249)) == 300
    assert starr("none").assemble("ACG") == "ACG"
    assert set(CONSTRUCTS) == {"none", "lentimpra", "starrseq", "yeast"}
    for name in CONSTRUCTS:
        assert Construct.from_dict(named_construct(name).to_dict()) == named_construct(name)
    with pytest.raises(DataError, match="did you mean 'lentimpra'"):
        named_construct("lentimpa")
    with pytest.raises(DataError, match="did you mean 'adapters'"):
        named_construct("lentimpra:adapter")
    with pytest.raises(DataError, match="wanted 'none' or 'flanks'"):
        named_construct("yeast:all")
