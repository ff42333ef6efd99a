"""Public data: found where they should be, verified, and never waited for."""

import hashlib
import re
import time

import numpy as np
import pytest

from agblocks.data import (
    PUBLIC,
    DataError,
    PublicData,
    PublicFile,
    cagi5,
    check_leaks,
    decode_codes,
    fetch,
    load,
)

DATA = b"seq\ty\nACGT\t1\n"
TINY = PublicData(
    "tiny",
    "a test",
    (PublicFile("t.tsv", hashlib.sha256(DATA).hexdigest(), "owner/repo", "c" * 40, "a/t.tsv"),),
    "none",
    "nobody",
    "none",
)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    import pooch

    folder = tmp_path / "cache"
    monkeypatch.setattr(pooch, "os_cache", lambda name: folder / name)
    monkeypatch.delenv("AGBLOCKS_DATA", raising=False)
    return folder


def network(monkeypatch, answer):
    """Put a stand-in for pooch's downloader; `answer` writes the file or raises."""
    import pooch

    asked = []

    class Downloader:
        def __init__(self, **kwargs):
            asked.append(kwargs)

        def __call__(self, url, output_file, pooch):
            asked.append(url)
            with open(output_file, "wb") as handle:
                handle.write(answer())

    monkeypatch.setattr(pooch, "HTTPDownloader", Downloader)
    return asked


def offline():
    raise ConnectionError("no route")


def test_a_local_folder_comes_first_and_is_verified(tmp_path, monkeypatch, cache):
    asked = network(monkeypatch, offline)
    (tmp_path / "tiny").mkdir()
    local = tmp_path / "tiny" / "t.tsv"
    local.write_bytes(DATA)
    monkeypatch.setenv("AGBLOCKS_DATA", str(tmp_path))
    assert fetch(TINY, "t.tsv") == local and not asked
    local.write_bytes(DATA + b"x")
    with pytest.raises(DataError, match="found sha256 .*, wanted "):
        fetch(TINY, "t.tsv")


def test_then_the_cache_then_the_network(monkeypatch, cache):
    asked = network(monkeypatch, lambda: DATA)
    path = fetch(TINY, "t.tsv")
    assert path.read_bytes() == DATA and path.is_relative_to(cache)
    assert asked == [
        {"timeout": (5.0, 20.0)},
        f"https://raw.githubusercontent.com/owner/repo/{'c' * 40}/a/t.tsv",
    ]
    network(monkeypatch, offline)
    assert fetch(TINY, "t.tsv", download=False) == path


def test_what_cannot_be_had_is_said_at_once(tmp_path, monkeypatch, cache):
    network(monkeypatch, offline)
    monkeypatch.setenv("AGBLOCKS_DATA", str(tmp_path))
    began = time.monotonic()
    with pytest.raises(DataError) as error:
        fetch(TINY, "t.tsv")
    assert time.monotonic() - began < 5
    folder, cached, download = error.value.problems
    assert folder == f"AGBLOCKS_DATA: there is no {tmp_path / 'tiny' / 't.tsv'}"
    assert cached.startswith("cache: there is no ") and download.endswith("ConnectionError: no route")
    assert not [p for p in cache.rglob("*") if p.is_file()]
    with pytest.raises(DataError, match="downloading is off"):
        fetch(TINY, "t.tsv", download=False)
    with pytest.raises(DataError, match="did you mean 't.tsv'"):
        fetch(TINY, "t.tsw")


def test_a_changed_download_is_refused(monkeypatch, cache):
    network(monkeypatch, lambda: b"something else")
    with pytest.raises(DataError, match="cannot be had"):
        fetch(TINY, "t.tsv")
    assert not [p for p in cache.rglob("*") if p.is_file()]


def test_the_catalogue_is_complete():
    assert set(PUBLIC) == {
        "human_lentimpra_3k",
        "drosophila_starrseq_3k",
        "yeast_random_promoters_6k",
        "cagi5_satmut_squid",
        "yeast_genome_tracks",
    }
    for name, data in PUBLIC.items():
        assert data.name == name and data.files and data.licence and data.citation and data.cautions
        for file in data.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256) and re.fullmatch("[0-9a-f]{40}", file.commit)
            assert file.url.startswith("https://raw.githubusercontent.com/")
    with pytest.raises(DataError, match="did you mean 'human_lentimpra_3k'"):
        load("human_lentimpra")
    with pytest.raises(DataError, match=r"cagi5\(\) reads it"):
        load("cagi5_satmut_squid")


def test_every_file_of_the_folder_is_the_pinned_one(real_data):
    for data in PUBLIC.values():
        for file in data.files:
            assert str(fetch(data, file.name, download=False)).startswith(real_data)


@pytest.mark.parametrize(
    ("name", "rows", "repeats", "targets"),
    [
        ("human_lentimpra_3k", 2940, 60, ("mean_value",)),
        ("drosophila_starrseq_3k", 2969, 31, ("Dev_log2_enrichment", "Hk_log2_enrichment")),
        ("yeast_random_promoters_6k", 6370, 0, ("expression",)),
    ],
)
def test_tables(real_data, name, rows, repeats, targets):
    table = load(name)
    assert (len(table), table.duplicates, table.target_names) == (rows, repeats, targets)
    folds = {f: np.flatnonzero(table.fold == f) for f in "0123456789"}
    assert sum(map(len, folds.values())) == rows and min(map(len, folds.values())) > 0.08 * rows
    check_leaks(table, folds)
    if table.group is not None:
        assert all(len(set(table.fold[table.group == g])) == 1 for g in set(table.group.tolist()))


def test_no_two_overlapping_windows_of_starrseq_are_in_two_folds(real_data):
    table = load("drosophila_starrseq_3k")
    windows = sorted((*_window(name), fold) for name, fold in zip(table.ids, table.fold, strict=True))
    for (chrom, _, end, fold), (other, start, _, next_fold) in zip(windows, windows[1:], strict=False):
        assert chrom != other or start > end or fold == next_fold


def _window(name):
    chrom, start, end = name.split("_")[:3]
    return chrom, int(start), int(end)


def test_cagi5(real_data):
    pytest.importorskip("h5py", reason="the windows of CAGI5 are HDF5")
    data = cagi5()
    assert len(data) == 18330 and len(data.loci) == 15 and data.windows.shape == (15, 2048)
    assert (~data.matches).sum() == 3 == len(data.problems)
    assert data.problems[0] == "combined_HBG1.tsv:830: 11:5271309 states G, the window has T"
    there = data.windows[data.locus, data.column]
    assert ((there == data.ref) == data.matches).all() and (data.alt != data.ref).all()
    some = data.of("SORT1")[::100]
    reference, alternative = data.alleles(some, width=101)
    assert reference.shape == (len(some), 101)
    differs = reference != alternative
    assert (differs.sum(axis=1) == 1).all() and differs[:, 50].all()
    window = decode_codes(data.windows[data.loci.index("SORT1")][None])[0]
    assert all(text in window for text in decode_codes(reference))
    wide, _ = data.alleles(data.of("SORT1")[:1], width=4096)
    assert "N" in decode_codes(wide)[0]
    with pytest.raises(DataError, match="did you mean 'SORT1'"):
        data.of("SORT2")
