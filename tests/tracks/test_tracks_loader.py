"""Targets by bin, and batches of windows: moved, turned, resumed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tracks_helpers import by_base, by_bin, made_genome, write_bigwig

from agblocks.data import Augment, DataError, decode
from agblocks.data.draw import REVERSE, SHIFT, uniform
from agblocks.data.tracks import Genome, GenomeTracks, Layout, Track, WindowLoader, Windows, binned, read_tracks, tile

LAYOUTS = {
    "coarse": Layout((0, 1, 2, 3), 32, 0, 8),
    "fine": Layout((2, 1), 1, 16, 200),
    "middle": Layout((3,), 5, 56, 30),
}


@pytest.fixture(scope="module")
def data(made):
    return GenomeTracks(Genome(made.fasta), read_tracks(made.table))


def wanted(made, data, layout, name, start):
    rows = []
    for number in layout.tracks:
        track = data.tracks[number]
        first = start + layout.offset
        values = by_base(made, track.name, name, first, first + layout.bins * layout.resolution, track.gaps)
        rows.append(by_bin(values, layout.resolution, track.aggregation))
    return np.stack(rows)


def test_bins_are_means_of_what_is_known():
    values = np.array([1, np.nan, 3, np.nan, np.nan, np.nan, 0, 0, 6], np.float32)
    np.testing.assert_allclose(binned(values, 3, "mean"), [2, np.nan, 2])
    np.testing.assert_allclose(binned(values, 3, "sum"), [6, np.nan, 6])
    np.testing.assert_array_equal(binned(values, 1, "sum"), values)
    with pytest.raises(DataError, match="9 bases are no whole number of bins of 2 bp"):
        binned(values, 2, "mean")


@pytest.mark.parametrize("name", ["chrI", "chrII"])
@pytest.mark.parametrize("start", [-20, 0, 91, 2400, 3900])
def test_targets_at_several_resolutions(made, data, name, start):
    found = data.targets(list(LAYOUTS.values()), name, start)
    for layout, values in zip(LAYOUTS.values(), found, strict=True):
        np.testing.assert_allclose(values, wanted(made, data, layout, name, start), rtol=1e-5, equal_nan=True)


def test_missing_is_not_zero(made, data):
    half, fwd = ([t.name for t in data.tracks].index(name) for name in ("half", "fwd"))
    assert np.isnan(data.values(half, "chrII", 0, 50)).all()  # the bigWig has no such chromosome
    assert np.isnan(data.values(half, "chrI", 100, 140)).all()  # gaps: missing
    assert not np.isnan(data.values(fwd, "chrI", 0, 4000)).any()  # gaps: zero
    assert np.isnan(made.values["fwd"]["I"]).any() and (data.values(fwd, "chrI", 0, 4000) == 0).any()
    assert np.isnan(data.values(fwd, "chrI", 3990, 4010)[10:]).all()  # beyond the end
    assert np.isnan(data.values(fwd, "chrI", -5, 5)[:5]).all()


def test_scale_and_infinite_values(made, tmp_path):
    own = np.arange(4000, dtype=np.float32)
    write_bigwig(tmp_path / "x.bw", {"I": own})
    data = GenomeTracks(Genome(made.fasta), [Track("x", str(tmp_path / "x.bw"), scale=0.5)])
    np.testing.assert_array_equal(data.values(0, "chrI", 10, 20), own[10:20] / 2)
    windows = Windows(100, ("chrI",), np.array([0]), np.array([30]))
    own[45] = -2.5
    write_bigwig(tmp_path / "below.bw", {"I": own})
    below = GenomeTracks(Genome(made.fasta), [Track("x", str(tmp_path / "below.bw"))])
    with pytest.raises(DataError, match=r"below.bw: chrI, position 46: -2.5; heads of counts learn values from 0 on"):
        below.means(windows, np.array([0]))
    assert below.means(windows, np.array([0]), counts=False)[0] == pytest.approx(np.delete(own[30:130], 15).mean())
    own[7] = np.inf
    write_bigwig(tmp_path / "y.bw", {"I": own})
    data = GenomeTracks(Genome(made.fasta), [Track("y", str(tmp_path / "y.bw"))])
    with pytest.raises(DataError, match=r"y.bw: I, position 8: an infinite value"):
        data.values(0, "chrI", 0, 10)


def test_means_are_over_bases_above_zero_each_once(made, data):
    windows = Windows(100, ("chrI", "chrII"), np.array([0, 0, 1, 0]), np.array([0, 50, 30, 3950]))
    bases = [("chrI", 0, 150), ("chrI", 3950, 4050), ("chrII", 30, 130)]
    for track, mean in zip(data.tracks, data.means(windows, np.arange(4)), strict=True):
        values = np.concatenate([by_base(made, track.name, *where, track.gaps) for where in bases])
        assert mean == pytest.approx(values[values > 0].mean(), rel=1e-5)
    with pytest.raises(DataError, match="nothing above zero in the training windows: fwd, half"):
        data.means(windows, np.array([2]))


def loader(data, **kwargs):
    windows = tile(data.genome.lengths, 256, 200, ends="pad")
    return WindowLoader(data, windows, np.arange(len(windows)), LAYOUTS, **{"batch_size": 5, **kwargs})


def test_batches_are_what_the_files_hold(made, data):
    for batch in loader(data):
        for i, row in enumerate(batch["index"].tolist()):
            windows = tile(data.genome.lengths, 256, 200, ends="pad")
            name, start = windows.names[windows.chromosome[row]], int(windows.start[row])
            text = decode(batch["inputs"]["dna"][i : i + 1])[0]
            plain = made.letters[name].upper().translate(str.maketrans("RYK", "NNN"))
            assert text == plain[start : start + 256].ljust(256, "N")
            for head, layout in LAYOUTS.items():
                got = batch["targets"][head][i].numpy()
                np.testing.assert_allclose(got, wanted(made, data, layout, name, start), rtol=1e-5, equal_nan=True)


def test_a_turned_window_is_the_window_of_a_turned_genome(made, data, tmp_path):
    """The genome's other strand, written out as files with strands swapped, gives the turned batches."""
    letters = {n: t.upper().translate(str.maketrans("ACGTRYK", "TGCAYRM"))[::-1] for n, t in made.letters.items()}
    other = made_genome(tmp_path, {"chrI": 4000, "chrII": 2500})
    (tmp_path / "genome.fa").write_text("".join(f">{n}\n{t}\n" for n, t in letters.items()))
    (tmp_path / "genome.fa.fai").unlink(missing_ok=True)
    for track, own in made.values.items():
        source = {"fwd": "rev", "rev": "fwd"}.get(track, track)
        write_bigwig(tmp_path / f"{source}.bw", {n: v[::-1] for n, v in own.items()})
    turned = GenomeTracks(Genome(tmp_path / "genome.fa"), read_tracks(other.table))
    windows = tile(data.genome.lengths, 256)
    back = Windows(
        256, windows.names, windows.chromosome,
        np.array(list(data.genome.lengths.values()))[windows.chromosome] - windows.start - 256,
    )  # fmt: skip
    rows = np.arange(len(windows))
    ours = WindowLoader(data, windows, rows, LAYOUTS, batch_size=4, augment=Augment(1.0))
    theirs = WindowLoader(turned, back, rows, LAYOUTS, batch_size=4)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a["inputs"]["dna"], b["inputs"]["dna"])
        for head in LAYOUTS:
            torch.testing.assert_close(a["targets"][head], b["targets"][head], equal_nan=True)


def test_a_moved_window_brings_its_targets_along(data):
    moved = loader(data, augment=Augment(0.0, 30, 1.0), seed=3)
    plain = tile(data.genome.lengths, 256, 200, ends="pad")
    for batch in moved:
        for i, row in enumerate(batch["index"].tolist()):
            shift = int(uniform(3, 0, [row], SHIFT)[0] * 61) - 30
            name, start = plain.names[plain.chromosome[row]], int(plain.start[row]) + shift
            dna = batch["inputs"]["dna"][i : i + 1]
            assert decode(dna)[0] == decode(torch.from_numpy(_hot(data, name, start)))[0]
            for values, layout in zip(batch["targets"].values(), LAYOUTS.values(), strict=True):
                np.testing.assert_array_equal(values[i].numpy(), data.targets([layout], name, start)[0])


def _hot(data, name, start):
    codes = data.genome.codes(name, start, start + 256)
    return (codes[None, None] == np.arange(4)[None, :, None]).astype(np.float32)


def test_a_batch_is_a_function_of_seed_epoch_and_window(data):
    augment = Augment(0.5, 20, 1.0)
    a, b = (loader(data, shuffle=True, augment=augment, seed=1) for _ in range(2))
    first = [list(a), list(a)]
    assert [x["index"].tolist() for x in first[0]] != [x["index"].tolist() for x in first[1]]
    b.start(1, 2)
    for x, y in zip(first[1][2:], b, strict=True):
        assert torch.equal(x["inputs"]["dna"], y["inputs"]["dna"])
        for head in LAYOUTS:
            torch.testing.assert_close(x["targets"][head], y["targets"][head], equal_nan=True)
    turned = uniform(1, 0, np.arange(40), REVERSE) < 0.5
    assert 5 < turned.sum() < 35
    state = a.state_dict()
    b.load_state_dict(state)
    with pytest.raises(DataError, match="saved with seed = 1, here it is 2"):
        loader(data, shuffle=True, augment=augment, seed=2).load_state_dict(state)


def test_what_cannot_be_loaded(data):
    windows = tile(data.genome.lengths, 256)
    with pytest.raises(DataError, match="passes windows of 256 bases"):
        WindowLoader(data, windows, [0], {"a": Layout((0,), 32, 0, 9)})
    with pytest.raises(DataError, match="'fwd' is learnt without its other strand 'rev'"):
        WindowLoader(data, windows, [0], {"a": Layout((1,), 32, 0, 8)})
    with pytest.raises(DataError, match="empty selection"):
        WindowLoader(data, windows, [], LAYOUTS)


def test_fingerprints_tell_data_apart(made, data, tmp_path):
    windows = tile(data.genome.lengths, 256)
    rows, layouts = np.arange(len(windows)), list(LAYOUTS.values())
    same = GenomeTracks(Genome(made.fasta), read_tracks(made.table)).fingerprint(windows, layouts, rows)
    assert data.fingerprint(windows, layouts, rows) == same
    assert data.fingerprint(windows, layouts, rows[1:]) != same
    assert data.fingerprint(tile(data.genome.lengths, 256, 128), layouts, rows) != same
    other = made_genome(tmp_path, seed=1)
    assert GenomeTracks(Genome(other.fasta), read_tracks(other.table)).fingerprint(windows, layouts, rows) != same
