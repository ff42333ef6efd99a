"""Tables from files: everything wrong is found, with its line, and nothing else."""

import gzip
import math
import os

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from agblocks.data import DataError, read_sequences, read_table

HEADER = "name\tseq\ty\tfold\n"


def write(folder, text, name="t.tsv"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def problems(path, **kwargs):
    kwargs = {"sequence": "seq", "targets": "y", "fold": "fold", "id": "name", **kwargs}
    with pytest.raises(DataError) as error:
        read_table(path, **kwargs)
    base = path if isinstance(path, str) else None
    return [p.replace(base, "t") if base else p for p in error.value.problems]


GOOD: SearchStrategy = st.tuples(
    st.text("ACGTNacgtu", min_size=1, max_size=9), st.floats(-100, 100, width=32), st.integers(0, 9)
)
BAD = st.sampled_from(
    ["\tACGT\t1\t0", "x{}\t\t1\t0",
     "x{}\tAC-T\t1\t0", "x{}\tACGT\t\t0", "x{}\tACGT\tNA\t0", "x{}\tACGT\tinf\t0",
     "x{}\tACGT\t1e99\t0", "x{}\tACGT\tfive\t0", "x{}\tACGT\t1,5\t0", "x{}\tACGT\t1_0\t0", "x{}\tACGT\t1\t",
     "x{}\tACGT\t1", "x{}\tACGT\t1\t0\t0", "x{}", "x{}\tAC GT\t1\t0", "x{}\tAC\u00e9GT\t1\t0"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(GOOD, BAD), min_size=1, max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_good_and_bad_rows_are_told_apart(tmp_path_factory, rows, end):
    lines = [HEADER.strip()]
    good = []
    bad = []
    for i, row in enumerate(rows):
        if isinstance(row, str):
            lines.append(row.format(i))
            bad.append(i + 2)
        else:
            sequence, value, fold = row
            lines.append(f"g{i}\t{sequence}\t{value!r}\t{fold}")
            good.append((f"g{i}", sequence.upper().replace("U", "T"), np.float32(value), str(fold), i + 2))
    path = str(tmp_path_factory.mktemp("t") / "t.tsv")
    with open(path, "w", encoding="utf-8", newline="") as handle:
        handle.write(end.join(lines) + end)
    columns = {"sequence": "seq", "targets": "y", "fold": "fold", "id": "name"}
    if bad:
        with pytest.raises(DataError) as error:
            read_table(path, **columns)
        assert [int(p.removeprefix(path + ":").split(":")[0]) for p in error.value.problems] == bad
        assert f"{len(bad)} bad row" in str(error.value) and f"of {len(rows)}" in str(error.value)
    if not good:
        with pytest.raises(DataError, match="no good row"):
            read_table(path, **columns, skip_bad_rows=True)
        return
    table = read_table(path, **columns, skip_bad_rows=True)
    found = zip(table.ids, table.sequences, table.targets[:, 0], table.fold, table.row, strict=True)
    assert [tuple(r) for r in found] == good
    assert [b.row for b in table.skipped] == bad
    assert table.targets.dtype == np.float32


def test_every_reason_is_said(tmp_path):
    path = write(
        tmp_path,
        HEADER + "a\tACXT\tinf\t\n" + "b\t\t\t1\n" + "c\tACGT\tlow\t1\n" + "d\tACGT\t1\n" + "e\tACGT\t1\t1\n"
        "e\tACGT\t2\t1\n" + "e\tACGT\t1\t1\n" + "\tACGT\t1\t1\n",
    )
    assert problems(path) == [
        "t:2: column 'seq', position 3: unknown letter 'X'; column 'y': target 'inf' is not finite in "
        "float32; column 'fold': no fold",
        "t:3: column 'seq': empty sequence; column 'y': missing target",
        "t:4: column 'y': target 'low' is not a number",
        "t:5: found 3 columns, wanted 4",
        "t:6: id 'e' stands for other content at t:7",
        "t:7: id 'e' stands for other content at t:6",
        "t:9: column 'name': no id",
    ]


def test_files_are_pooled_and_repeats_counted(tmp_path):
    one = write(tmp_path, HEADER + "a\tACGT\t1\t0\nb\tACGA\t2\t1\n", "one.tsv")
    two = write(tmp_path, "fold,y,seq,name,more\n0,1.0,acgt,a,z\n2,3,ACGC,c,z\n", "two.csv")
    table = read_table([one, two], sequence="seq", targets=["y"], fold="fold", id="name")
    assert table.ids == ("a", "b", "c") and table.duplicates == 1
    assert table.fold.tolist() == ["0", "1", "2"] and table.where(2) == f"'c' ({two}:3)"
    assert table.take([2, 0]).ids == ("c", "a") and table.take([2, 0]).targets.tolist() == [[3], [1]]


def test_conflicts_across_files_leave_out_all_copies(tmp_path):
    one = write(tmp_path, HEADER + "a\tACGT\t1\t0\nb\tACGA\t2\t1\n", "one.tsv")
    two = write(tmp_path, HEADER + "a\tACGT\t1.5\t0\n", "two.tsv")
    columns = {"sequence": "seq", "targets": "y", "id": "name"}
    with pytest.raises(DataError, match="2 bad rows of 3"):
        read_table([one, two], **columns)
    table = read_table([one, two], **columns, skip_bad_rows=True)
    assert table.ids == ("b",) and [(b.file, b.row, b.id) for b in table.skipped] == [
        (one, 2, "a"),
        (two, 2, "a"),
    ]


def test_columns_that_are_not_there(tmp_path):
    path = write(tmp_path, HEADER + "a\tACGT\t1\t0\n")
    found = problems(path, sequence="sequence", targets=["y", "Fold2"])
    assert found == [
        "t: there is no column 'sequence'; there are 'name', 'seq', 'y', 'fold'",
        "t: there is no column 'Fold2'; did you mean 'fold'?",
    ]
    assert "there is no such file" in problems(str(tmp_path / "no.tsv"))[0]
    doubled = write(tmp_path, "name\tseq\ty\ty\tfold\na\tA\t1\t1\t1\n", "d.tsv")
    assert problems(doubled) == ["t: the header names column 'y' 2 times"]


def test_without_a_header(tmp_path):
    path = write(tmp_path, "ACGT\t1\nACGA\t2\n", "t.txt")
    table = read_table(path, sequence=1, targets={"expression": 2})
    assert table.target_names == ("expression",) and table.ids == ("t.txt:1", "t.txt:2")
    assert read_table(path, sequence=1, targets=2).target_names == ("column2",)
    with pytest.raises(DataError, match="columns are counted from 1 to 2"):
        read_table(path, sequence=0, targets=2)
    with pytest.raises(DataError, match="both by name and by number"):
        read_table(path, sequence=1, targets="y")


def test_missing_targets_may_be_allowed(tmp_path):
    path = write(tmp_path, "seq\tu\tv\nAC\t1\tNA\nAG\t\t2\nAT\tnan\t\n")
    table = read_table(path, sequence="seq", targets=("u", "v"), allow_missing=True, skip_bad_rows=True)
    assert table.targets[0, 0] == 1 and math.isnan(table.targets[0, 1]) and math.isnan(table.targets[1, 0])
    assert [b.reason for b in table.skipped] == ["all targets are missing"]


@pytest.mark.parametrize("kind", ["gz", "bom", "blank", "quoted", "spaces", "parquet"])
def test_forms_of_files(tmp_path, kind):
    text = HEADER + "a\tACGT\t1\t0\nb\tACGA\t2\t1\n"
    path = str(tmp_path / "t.tsv")
    if kind == "gz":
        path += ".gz"
        with gzip.open(path, "wt") as handle:
            handle.write(text)
    elif kind == "bom":
        write(tmp_path, "\ufeff" + text)
    elif kind == "blank":
        write(tmp_path, text.replace("\nb", "\n\nb") + "\n\n")
    elif kind == "quoted":
        write(tmp_path, text.replace("\tACGT\t", '\t"ACGT"\t'))
    elif kind == "spaces":
        write(tmp_path, text.replace("\t", " \t "))
    else:
        path = str(tmp_path / "t.parquet")
        pl.DataFrame({"name": ["a", "b"], "seq": ["ACGT", "ACGA"], "y": [1.0, 2.0], "fold": [0, 1]}).write_parquet(path)
    table = read_table(path, sequence="seq", targets="y", fold="fold", id="name")
    assert table.ids == ("a", "b") and table.sequences == ("ACGT", "ACGA")
    assert table.fold.tolist() == ["0", "1"] and table.targets[:, 0].tolist() == [1, 2]
    assert table.row.tolist() == {"blank": [2, 4], "parquet": [1, 2]}.get(kind, [2, 3])


def test_parquet_rows_are_checked_too(tmp_path):
    path = str(tmp_path / "t.parquet")
    pl.DataFrame({"seq": ["AC", None, "AX"], "y": [1.0, float("inf"), None], "fold": [1.0, 2.0, None]}).write_parquet(
        path
    )
    assert problems(path, id=None) == [
        "t:2: column 'seq': empty sequence; column 'y': target 'inf' is not finite in float32",
        "t:3: column 'seq', position 2: unknown letter 'X'; column 'y': missing target; column 'fold': no fold",
    ]
    assert read_table(path, sequence="seq", targets="y", fold="fold", skip_bad_rows=True).fold.tolist() == ["1"]


def test_a_lone_quote_mark_is_found(tmp_path):
    path = write(tmp_path, HEADER + 'a\t"ACGT\t1\t0\nb\tACGA\t2\t1\nc\tACGA"\t2\t1\nd\tAC\t1\t1\n')
    assert problems(path) == ["t:2: a quoted field runs over 3 lines; a lone quote mark?"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.tsv", b"", "the file is empty"),
        ("t.tsv", b"\xff\xfe\x00seq", "not UTF-8 text"),
        ("t.tsv.gz", b"not gzip", "cannot be read"),
        ("t.parquet", b"PAR1 nothing PAR1", "cannot be read"),
        ("t.tsv", b"seq\ty\n", "no good row"),
        ("t.fa", b">a\nACGT\n", "FASTA holds no targets"),
    ],
)
def test_files_that_are_no_tables(tmp_path, name, data, message):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(DataError, match=message) as error:
        read_table(str(path), sequence="seq", targets="y")
    assert str(path) in str(error.value)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        read_table(str(tmp_path), sequence="seq", targets="y")


def test_skipped_rows_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = write(tmp_path, HEADER + "a\tACGT\t1\t0\nb\tACXA\t2\t1\n")
    table = read_table(path, sequence="seq", targets="y", id="name", skip_bad_rows=True)
    out = tmp_path / "skipped.tsv"
    table.write_skipped(out)
    want = f"file\trow\tid\treason\n{path}\t3\tb\tcolumn 'seq', position 3: unknown letter 'X'\n"
    assert out.read_text() == want

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(DataError, match="No space left"):
        table.write_skipped(out)
    assert out.read_text() == want and sorted(os.listdir(tmp_path)) == ["skipped.tsv", "t.tsv"]
    with pytest.raises(DataError, match="cannot be written"):
        table.write_skipped(tmp_path / "no" / "skipped.tsv")


def test_all_problems_are_kept_and_a_thousand_printed(tmp_path):
    path = write(tmp_path, HEADER + "".join(f"a{i}\tAX\t1\t0\n" for i in range(1500)))
    with pytest.raises(DataError) as error:
        read_table(path, sequence="seq", targets="y")
    assert len(error.value.problems) == 1500
    assert len(str(error.value).splitlines()) == 1002 and "and 500 more" in str(error.value)


def test_sequences_for_prediction(tmp_path):
    fasta = write(tmp_path, ">a one\nACgt\nNN\n\n>b\nACGT\n>a again\nAC\n", "s.fa")
    table = read_sequences(fasta)
    assert table.ids == ("a", "b", "a") and table.sequences == ("ACGTNN", "ACGT", "AC")
    assert table.targets.shape == (3, 0) and table.row.tolist() == [1, 5, 7]
    listed = write(tmp_path, "id\tSequence\nx\tAC\nx\tAC\n", "s.tsv")
    assert read_sequences(listed).sequences == ("AC", "AC")
    assert read_sequences(listed, id="id").ids == ("x", "x")
    with pytest.raises(DataError, match="which column holds the sequence"):
        read_sequences(write(tmp_path, "id\tdna\nx\tAC\n", "u.tsv"))


def test_bad_fasta(tmp_path):
    path = write(tmp_path, "ACGT\n>a\n>b\nAC-T\n>c\nAC\n>\nAC\n", "s.fa")
    with pytest.raises(DataError) as error:
        read_sequences(path)
    assert [p.removeprefix(path) for p in error.value.problems] == [
        ":1: text before the first '>' of a FASTA file",
        ":2: column 'sequence': empty sequence",
        ":3: column 'sequence', position 3: unknown letter '-'",
        ":7: column 'id': no id",
    ]
    assert read_sequences(path, skip_bad_rows=True).ids == ("c",)
