"""What is read from files: names of chromosomes, FASTA, bigWig, the table of tracks, BED."""

from __future__ import annotations

import os
import pickle
import threading

import numpy as np
import pytest
from tracks_helpers import write_bigwig, write_fasta

from agblocks.data import DataError, decode_codes
from agblocks.data.tracks import BigWig, ChromosomeNames, Genome, GenomeTracks, Track, read_bed, read_tracks, tile


@pytest.mark.parametrize(
    ("name", "there", "found"),
    [
        ("chrIV", ["IV", "V"], "IV"),
        ("IV", ["chrIV", "chrV"], "chrIV"),
        ("1", ["Chr1"], "Chr1"),
        ("chrM", ["MT", "1"], "MT"),
        ("Mito", ["chrI", "chrM"], "chrM"),
        ("chrX", ["X"], "X"),
        ("X", ["10"], None),
        ("IV", ["4"], None),
        ("chr", ["chr"], "chr"),
        ("chr1", ["1", "chr1"], "chr1"),
    ],
)
def test_names_that_mean_the_same(name, there, found):
    assert ChromosomeNames().find(name, there) == found


def test_names_of_ones_own(tmp_path):
    file = tmp_path / "names.tsv"
    file.write_text("# ucsc\tensembl\trefseq\nchrIV\tIV\tNC_001136.10\nchrV\t\tNC_001137.3\n")
    names = ChromosomeNames.read(file)
    assert names.find("chrIV", ["NC_001136.10", "NC_001137.3"]) == "NC_001136.10"
    assert names.find("NC_001137.3", ["V"]) is None
    assert names.find("NC_001136.10", ["chrIV", "chrV"]) == "chrIV"
    with pytest.raises(DataError, match=r"could be 'IV' or 'NC_001136.10'"):
        names.find("chrIV", ["IV", "NC_001136.10"])
    file.write_text("chrIV\tIV\nonly\n")
    with pytest.raises(DataError, match=r"names.tsv, line 2: found one name"):
        ChromosomeNames.read(file)
    file.write_text("chrIV\tIV\n4\tIV\n")
    with pytest.raises(DataError, match=r"line 2: 'IV' was there before, in line 1"):
        ChromosomeNames.read(file)
    with pytest.raises(DataError, match=r"two sets"):
        ChromosomeNames([["a", "b"], ["b", "c"]])


def test_a_genome_gives_any_stretch(made):
    genome = Genome(made.fasta)
    assert genome.lengths == {name: len(text) for name, text in made.letters.items()}
    for name, text in made.letters.items():
        for start, stop in ((0, 100), (25, 70), (-7, 3), (len(text) - 5, len(text) + 9), (-3, len(text) + 3)):
            padded = "N" * max(0, -start) + text[max(0, start) : stop].upper() + "N" * max(0, stop - len(text))
            assert decode_codes(genome.codes(name, start, stop)[None])[0] == padded
    assert decode_codes(genome.codes("I", 60, 63)[None])[0] == "RYK"
    assert (genome.codes("chrI", 9000, 9010) == 4).all()
    assert (pickle.loads(pickle.dumps(genome)).codes("chrII", 0, 50) == genome.codes("chrII", 0, 50)).all()
    with pytest.raises(DataError, match=r"no chromosome 'chrIII'; did you mean"):
        genome.codes("chrIII", 0, 5)
    with pytest.raises(DataError, match=r"is empty"):
        genome.codes("chrI", 5, 5)


def test_a_genome_in_a_folder_that_is_read_only(tmp_path, monkeypatch):
    folder = tmp_path / "shared"
    folder.mkdir()
    file = write_fasta(folder / "g.fa", {"a": "ACGTACGT"})
    folder.chmod(0o555)
    try:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        assert decode_codes(Genome(file).codes("a", 2, 6)[None]) == ["GTAC"]
        assert os.listdir(folder) == ["g.fa"]
    finally:
        folder.chmod(0o755)


def test_genomes_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"nothing.fa: there is no such FASTA"):
        Genome(tmp_path / "nothing.fa")
    file = tmp_path / "bad.fa"
    file.write_text("ACGT\n")
    with pytest.raises(DataError, match=r"bad.fa: "):
        Genome(file)
    genome = Genome(write_fasta(tmp_path / "odd.fa", {"a": "ACGT!ACGT"}))
    with pytest.raises(DataError, match=r"odd.fa: a, position 5: a letter that is not DNA"):
        genome.codes("a", 0, 9)


def test_a_bigwig_says_where_it_has_nothing(made):
    for track, own in made.values.items():
        file = BigWig(made.folder / f"{track}.bw")
        assert file.lengths == {name: len(values) for name, values in own.items()}
        for name, values in own.items():
            np.testing.assert_array_equal(file.values(name, 0, len(values)), values)
            got = file.values(name, -3, len(values) + 4)
            assert np.isnan(got[:3]).all() and np.isnan(got[-4:]).all()
            np.testing.assert_array_equal(got[3:-4], values)
    with pytest.raises(DataError, match=r"no chromosome 'chrI'"):
        file.values("chrI", 0, 3)
    assert (pickle.loads(pickle.dumps(file)).values("I", 0, 9) == file.values("I", 0, 9)).all()


def test_threads_share_a_bigwig(made):
    file, wrong = BigWig(made.folder / "gc.bw"), []

    def read(seed):
        rng = np.random.default_rng(seed)
        for start in rng.integers(0, 3000, 200).tolist():
            if not (file.values("I", start, start + 500) == made.values["gc"]["I"][start : start + 500]).all():
                wrong.append(start)  # noqa: PERF401

    threads = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_bigwigs_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match=r"no such bigWig"):
        BigWig(tmp_path / "nothing.bw")
    (tmp_path / "bad.bw").write_bytes(b"not a bigwig" * 100)
    with pytest.raises(DataError, match=r"bad.bw: cannot be read as bigWig"):
        BigWig(tmp_path / "bad.bw")


def test_the_table_of_tracks(made, tmp_path):
    tracks = read_tracks(made.table)
    assert [track.name for track in tracks] == ["gc", "fwd", "rev", "half"]
    assert tracks[1] == Track("fwd", str(made.folder / "fwd.bw"), pair="rev", aggregation="sum")
    assert [Track.from_dict(track.to_dict()) for track in tracks] == list(tracks)
    file = tmp_path / "t.csv"
    file.write_text('name,path,organism,scale,resolutions,squash\na,a.bw,1,0.5,"1,128",old\n\n# no\n')
    assert read_tracks(file) == (
        Track("a", str(tmp_path / "a.bw"), organism=1, scale=0.5, resolutions=(1, 128), squash="old"),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name\tfile\na\tb\n", "the header is"),
        ("name\tpath\tscales\na\tb\t1\n", r"no column 'scales'; did you mean 'scale'"),
        (
            "name\tpath\tscale\na\tb\tx\nc\td\t-1\ne\tf\n",
            r"line 2: column scale: found 'x'[\s\S]*line 3: [\s\S]*above 0[\s\S]*line 4: 2 cells",
        ),
        ("name\tpath\taggregation\na\tb\tmaen\n", r"line 2: [\s\S]*aggregation is 'maen'; did you mean 'mean'"),
        ("name\tpath\na\tb\na\tc\n", "'a' is there twice"),
        ("name\tpath\tpair\na\tb\tc\n", "'a' pairs with 'c', which is not there"),
        ("name\tpath\tpair\na\tb\tc\nc\td\t\n", "'a' pairs with 'c', which pairs with 'none'"),
        ("name\tpath\tpair\taggregation\na\tb\tc\tsum\nc\td\ta\tmean\n", "differ in how they are learnt"),
        ("name\tpath\n", "no tracks"),
    ],
)
def test_tables_that_are_wrong(tmp_path, text, said):
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(DataError, match=said):
        read_tracks(tmp_path / "t.tsv")


def test_tracks_must_be_of_the_genome(made, tmp_path):
    genome = Genome(made.fasta)
    write_bigwig(tmp_path / "other.bw", {"I": np.ones(3999, np.float32)})
    with pytest.raises(DataError, match=r"'I' has 3,999 bases, but 'chrI'.* has 4,000"):
        GenomeTracks(genome, [Track("a", str(tmp_path / "other.bw"))])
    write_bigwig(tmp_path / "none.bw", {"V": np.ones(10, np.float32)})
    with pytest.raises(DataError, match=r"it has V, and none of the genome's chromosomes chrI, chrII"):
        GenomeTracks(genome, [Track("a", str(tmp_path / "none.bw"))])
    assert GenomeTracks(genome, read_tracks(made.table)).missing == {"half": ("chrII",)}


def test_a_bed_of_windows(made, tmp_path):
    lengths = Genome(made.fasta).lengths
    bed = tmp_path / "w.bed"
    bed.write_text("track x\n# c\nI\t100\t300\ttrain\nchrII\t1000\t1200\ttest\nII\t0\t200\tvalid\n")
    windows = read_bed(bed, lengths)
    assert [windows.where(i) for i in range(3)] == ["chrI:100-300", "chrII:1,000-1,200", "chrII:0-200"]
    assert windows.part == ("train", "test", "valid")
    wide = read_bed(bed, lengths, 400)
    assert [wide.where(i) for i in range(len(wide))] == ["chrI:0-400", "chrII:900-1,300"]
    assert wide.dropped == 1 and wide.part == ("train", "test")
    assert read_bed(bed, lengths, 400, ends="pad").where(2) == "chrII:-100-300"
    bed.write_text("chrI 5 2\nchrIX\t1\t2\nchrI\t3990\t4001\nchrI\tx\t3\n")
    with pytest.raises(DataError) as error:
        read_bed(bed, lengths)
    said = str(error.value)
    assert "4 lines of it" in said and "line 1: chrI:5-2" in said
    assert "line 2: " in said and "no chromosome 'chrIX'" in said
    assert "line 3: chrI:3,990-4,001; wanted a start below its stop, and that up to 4,000" in said and "line 4" in said
    bed.write_text("chrI\t0\t10\nchrI\t0\t12\n")
    with pytest.raises(DataError, match=r"line 2: 12 bases, the first interval has 10"):
        read_bed(bed, lengths)


@pytest.mark.parametrize("ends", ["drop", "pad"])
@pytest.mark.parametrize(("length", "stride"), [(100, 100), (100, 30), (128, 200), (4000, 4000)])
def test_tiles(ends, length, stride):
    lengths = {"a": 4000, "b": 2501}
    windows = tile(lengths, length, stride, ends=ends)
    for number, (name, size) in enumerate(lengths.items()):
        starts = windows.start[windows.chromosome == number].tolist()
        assert starts == [i * stride for i in range(len(starts))]
        assert windows.names[number] == name
        inside = [s for s in range(0, size, stride) if s + length <= size]
        if ends == "drop":
            assert starts == inside
        else:
            assert starts[-1] + length >= size > (starts[-2] + length if len(starts) > 1 else 0)
    assert tile({"a": 50}, 100, ends="pad").start.tolist() == [0]
    with pytest.raises(DataError, match=r"the longest chromosome has 50"):
        tile({"a": 50}, 100)
