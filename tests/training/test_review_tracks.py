"""Genome tracks: wrong input, damaged files, overlapping windows, heads that cover a window unevenly."""

from __future__ import annotations

import importlib.util
import multiprocessing
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agblocks import build, resolve
from agblocks.cli import app
from agblocks.data import DataError
from agblocks.data.tracks import BigWig, Genome, GenomeTracks, Track, Windows, read_bed, read_tracks, separate
from agblocks.errors import AgblocksError
from agblocks.training import RunError, Settings
from agblocks.training.genome import TilingError, predict_genome
from agblocks.training.tracks import GenomeSource, TrackWiring, evaluate_run, fit_bins, fit_tracks, wire_tracks
from agblocks.training.tracks.evaluate import bins_seen, predictions
from agblocks.training.tracks.ridge import features

_SPEC = importlib.util.spec_from_file_location(
    "tracks_helpers_reviewed", Path(__file__).parent.parent / "tracks" / "tracks_helpers.py"
)
assert _SPEC is not None and _SPEC.loader is not None
_HELPERS = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _HELPERS
_SPEC.loader.exec_module(_HELPERS)

QUICK = Settings(epochs=1, batch_size=8, lr=1e-2, patience=0, device="cpu")
TABLE = "name\tpath\tpair\taggregation\ngc\tgc.bw\t\tmean\nfwd\tfwd.bw\trev\tsum\nrev\trev.bw\tfwd\tsum\n"


def recipe(pool="pool.mean", name="made"):
    return {
        "recipe": 1, "name": name, "inputs": {"dna": "B 4 L"},
        "nodes": {"stem": {"block": "conv.stem", "in": "dna", "args": {"channels": 8, "kernel": 9}},
                  "pool": {"block": pool, "in": "stem", "args": {"pool": 8}}},
        "heads": {"h": {"block": "head.coverage", "in": "pool", "args": {"tracks": 3}}},
    }  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    found = _HELPERS.made_genome(tmp_path_factory.mktemp("a folder ü"))
    found.table.write_text(TABLE)
    return found


@pytest.fixture(scope="module")
def source(made):
    return GenomeSource(str(made.fasta), str(made.table), window=256, stride=128, block=1000, folds=4)


# Files


def test_a_damaged_block_of_a_bigwig_is_an_error_with_its_file(made, tmp_path):
    """The reader's Rust panics there, and a panic is no `Exception`."""
    whole = (made.folder / "gc.bw").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(20):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole) // 4, len(whole) // 2, 3):
            damaged[place] ^= 0xFF
        (tmp_path / "damaged.bw").write_bytes(damaged)
        try:
            BigWig(tmp_path / "damaged.bw").values("I", 0, 4000)
        except DataError as error:
            assert "damaged.bw" in str(error)
            refused += 1
    assert refused > 5


def test_what_a_panic_is_not(made, monkeypatch):
    """Somebody who breaks off is not taken for a damaged file."""
    file = BigWig(made.folder / "gc.bw")

    class Broken:
        def values(self, *args, **kwargs):
            raise KeyboardInterrupt

    monkeypatch.setattr(file, "_reader", Broken)
    with pytest.raises(KeyboardInterrupt):
        file.values("I", 0, 10)


def _lengths(path, queue, barrier):
    barrier.wait()
    queue.put(Genome(path).lengths)


def test_an_index_appears_whole(tmp_path, monkeypatch):
    """Killed while it is written, it is not there; and what another process reads has every chromosome."""
    fasta = tmp_path / "g.fa"
    fasta.write_text("".join(f">c{i}\n{'ACGT' * 20}\n" for i in range(500)))

    def cut(source, target, *args):
        target.write(source.read()[:200].rsplit("\n", 1)[0] + "\n")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfileobj", cut)
        with pytest.raises(KeyboardInterrupt):
            Genome(fasta)
    assert [p.name for p in tmp_path.iterdir()] == ["g.fa"]
    context = multiprocessing.get_context("fork")
    queue, barrier = context.Queue(), context.Barrier(4)
    several = [context.Process(target=_lengths, args=(fasta, queue, barrier)) for _ in range(4)]
    for process in several:
        process.start()
    assert [len(queue.get(timeout=60)) for _ in several] == [500] * 4
    for process in several:
        process.join()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.fa", "g.fa.fai"]
    fasta.write_text(">only\nACGT\n")
    os.utime(fasta, (2e9, 2e9))  # newer than its index, which is made anew
    assert Genome(fasta).lengths == {"only": 4}


@pytest.mark.parametrize("line", ["chrI\t²\t100", "chrI\t0\t1³"])
def test_digits_that_are_no_numbers(tmp_path, line):
    (tmp_path / "x.bed").write_text(line + "\n")
    with pytest.raises(DataError, match="x.bed"):
        read_bed(tmp_path / "x.bed", {"chrI": 1000})


def test_lengths_and_columns_that_cannot_be(tmp_path):
    (tmp_path / "x.bed").write_text("chrI\t0\t100\n")
    for length in (0, -5):
        with pytest.raises(DataError, match="wanted a whole number from 1"):
            read_bed(tmp_path / "x.bed", {"chrI": 1000}, length)
    (tmp_path / "t.tsv").write_text("name\tpath\tname\na\tx.bw\tb\n")
    with pytest.raises(DataError, match=r"t.tsv: the column 'name' is there twice"):
        read_tracks(tmp_path / "t.tsv")


# Words that contradict each other


def test_one_way_to_hold_out_and_one_to_lay_windows(source, made):
    genome = Genome(made.fasta)
    windows = source.windows(genome)
    with pytest.raises(RunError, match="wanted one of them, found both"):
        replace(source, test_chromosomes=("chrII",)).labels(windows)
    with pytest.raises(RunError, match="one every stride bases"):
        replace(source, bed=str(made.folder / "x.bed")).windows(genome)


def test_overlaps_and_batches_that_cannot_be(made, tmp_path):
    model = build(recipe()).eval()
    for said in ({"overlap": float("nan")}, {"overlap": -1.0}, {"overlap": float("inf")}, {"batch_size": -1}):
        with pytest.raises(TilingError, match=next(iter(said))):
            predict_genome(model, made.fasta, tmp_path, **said)


# Windows that overlap


def test_bins_seen_by_their_definition():
    """Each bin of the genome once, for windows in any order, twice there, and off each other's grid."""
    rng = np.random.default_rng(0)
    layout = wire_tracks(resolve(recipe()), [Track(n, "x") for n in "abc"], 64).layouts[0].layout
    for _ in range(50):
        n = int(rng.integers(1, 12))
        windows = Windows(64, ("a", "b"), rng.integers(0, 2, n), rng.integers(-20, 200, n))
        rows = rng.permutation(n)[: rng.integers(1, n + 1)]
        seen = bins_seen(windows, rows, layout)
        counted: set[tuple[int, int]] = set()
        for row in rows[np.lexsort((windows.start[rows], windows.chromosome[rows]))]:
            for i in range(8):
                bases = {(int(windows.chromosome[row]), int(windows.start[row]) + 8 * i + j) for j in range(8)}
                assert bool(bases & counted) == (i < seen[row])
                if i >= seen[row]:
                    counted |= bases


def test_bins_of_overlapping_windows_count_once(source, tmp_path):
    """Against the predictions put together by hand: n is how many bins there are, not how often they were shown."""
    run = fit_tracks(recipe(), source, tmp_path / "run", QUICK, kmer=2)
    assert isinstance(run.wiring, TrackWiring)
    data = source.data()
    windows = source.windows(data.genome)
    lines = [line.split("\t") for line in (tmp_path / "run" / "windows.tsv").read_text().splitlines()[1:]]
    test = [(c, int(start)) for part, c, start, _ in lines if part == "test"]
    rows = np.array([i for i in range(len(windows)) if
                     (windows.names[windows.chromosome[i]], int(windows.start[i])) in test])  # fmt: skip
    once: dict[tuple[str, int], tuple[np.ndarray, np.ndarray]] = {}
    shown = 0
    for batch, made in predictions(run.models, run.wiring, data, windows, rows, run.settings):
        for i, row in enumerate(batch["index"].tolist()):
            for bin_ in range(32):
                shown += 1
                place = windows.names[windows.chromosome[row]], int(windows.start[row]) + 8 * bin_
                once.setdefault(place, (made["h"][i, :, bin_].numpy(), batch["targets"]["h"][i, :, bin_].numpy()))
    predicted, wanted = (np.stack(part) for part in zip(*once.values(), strict=True))
    assert len(once) < shown
    for part in ("test", "ridge"):
        assert [t["n"] for t in run.metrics[part]["tracks"]] == [len(once)] * 3
    for i, found in enumerate(run.metrics["test"]["tracks"]):
        assert found["pearson"] == pytest.approx(np.corrcoef(predicted[:, i], wanted[:, i])[0, 1], abs=1e-6)
    _, again = evaluate_run(tmp_path / "run")
    assert again.to_dict() == run.metrics["test"]
    with pytest.raises(AgblocksError, match="another source is said as a whole"):
        evaluate = ["tracks", "evaluate", str(tmp_path / "run"), "--test-folds", "1"]
        CliRunner().invoke(app(), evaluate, catch_exceptions=False)


# Scales and strands


def test_what_is_not_learnt_divided_is_scored_alike(source, made, tmp_path):
    """The means of tracks are the data's; the ridge, which no setting of the model touches, scores the same."""
    runs = [
        fit_tracks(recipe(), source, tmp_path / str(said), replace(QUICK, standardise=said), kmer=2)
        for said in (True, False)
    ]
    assert runs[0].metrics["ridge"] == runs[1].metrics["ridge"] and runs[0].metrics["ridge"]["across"]
    means = [[track["mean"] for track in run.data["tracks"]] for run in runs]
    assert means[0] == means[1] and means[0][0] > 2
    assert runs[0].wiring.of["h"].divided and not runs[1].wiring.of["h"].divided
    assert "divided" not in runs[0].wiring.to_dict()["layouts"][0]  # as runs from before say it
    for run in runs:
        assert TrackWiring.from_dict(run.wiring.to_dict()) == run.wiring


def test_heads_that_cover_a_window_unevenly_have_one_strand(source, tmp_path):
    """Of 260 bases a pool leaves four out behind: turned, they are in front, and bins are others."""
    odd = replace(source, window=260)
    uneven = recipe("pool.max_floor", "uneven")
    with pytest.raises(RunError, match=r"head 'h': its bins begin 0 bases behind .* end 4 before its end"):
        fit_tracks(uneven, odd, tmp_path / "both", replace(QUICK, strands="both"))
    assert not (tmp_path / "both").exists()
    fit_tracks(uneven, odd, tmp_path / "one", replace(QUICK, reverse_complement=0.5), kmer=0)
    with pytest.raises(RunError, match="strands='one'"):
        evaluate_run(tmp_path / "one", strands="both")
    even = wire_tracks(resolve(uneven), GenomeTracks(Genome(odd.fasta), read_tracks(odd.tracks)).tracks, 256)
    even.check_strands()
    assert torch.equal(even.turned({"h": torch.ones(1, 3, 2)})["h"], torch.ones(1, 3, 2))


# Predictions that were killed


@pytest.mark.parametrize("harm", [lambda file: file.unlink(), lambda file: file.write_bytes(file.read_bytes()[:10])])
def test_values_that_went_missing_are_made_again(made, tmp_path, monkeypatch, harm):
    """A chromosome is noted as done, but what was kept of it is gone or cut: it is read anew."""
    model = build(recipe(), seed=0).eval()
    whole = predict_genome(model, made.fasta, tmp_path / "whole").files["h", "0"].read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr("agblocks.training.genome.predict.write_bigwig", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_genome(model, made.fasta, tmp_path / "killed")
    (kept,) = (tmp_path / "killed").rglob("0.h.f32")
    harm(kept)
    read = []
    again = predict_genome(model, made.fasta, tmp_path / "killed", told=lambda name, bases: read.append(name))
    assert set(read) == {"chrI"} and again.files["h", "0"].read_bytes() == whole


# What was held out stays out


def test_test_measurements_reach_nothing_but_test_scores(source, made, tmp_path):
    """Other values in test windows alone: the same weights, units, validation scores, kept epoch, and ridge."""
    genome = Genome(made.fasta)
    windows = source.windows(genome)
    runs, fitted = [], []
    apart = replace(source, stride=0)
    settings = replace(QUICK, epochs=2, strands="both", ema=0.5)
    first = fit_tracks(recipe(), apart, tmp_path / "first", settings, kmer=0)
    for line in (tmp_path / "first" / "windows.tsv").read_text().splitlines()[1:]:
        part, name, start, stop = line.split("\t")
        if part == "test":
            for track in ("gc", "fwd", "rev"):
                own = made.values[track][name[3:]]
                own[int(start) : int(stop)] = np.arange(int(stop) - int(start)) % 50
    for track in ("gc", "fwd", "rev"):
        _HELPERS.write_bigwig(tmp_path / f"{track}.bw", made.values[track])
    (tmp_path / "tracks.tsv").write_text(TABLE)
    other = replace(apart, tracks=str(tmp_path / "tracks.tsv"))
    second = fit_tracks(recipe(), other, tmp_path / "second", settings, kmer=0)
    for own, run in ((apart, first), (other, second)):
        data, windows = own.data(), own.windows(genome)
        splits, _ = separate(windows, own.labels(windows), run.wiring.sight(run.resolved))
        runs.append(run)
        ridge = fit_bins(data, windows, splits, run.wiring, k=2)
        layout = run.wiring.of["h"]
        for (_, folded), (_, plain, logs) in ridge.fitted.items():
            x = features(data, windows, layout, int(splits.train[0]), 2, ridge.context, folded)
            fitted.append((len(runs), plain.predict(x), logs.predict(x)))
    weights = [run.model.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert first.wiring == second.wiring
    assert first.metrics["valid"] == second.metrics["valid"] and first.metrics["members"] == second.metrics["members"]
    assert first.metrics["test"] != second.metrics["test"]
    for a, b in zip([f for f in fitted if f[0] == 1], [f for f in fitted if f[0] == 2], strict=True):
        np.testing.assert_array_equal(a[1], b[1])
        np.testing.assert_array_equal(a[2], b[2])
    # and the epoch was kept for what the kept model scores, both strands of the average
    scored = np.mean([track["pearson"] for track in first.metrics["valid"]["tracks"]])
    assert first.metrics["members"][0]["kept"]["valid_pearson"] == pytest.approx(scored, abs=1e-5)


def test_the_ridge_on_logarithms_is_scored_on_logarithms(source):
    """By hand, from its own predictions."""
    data = source.data()
    apart = replace(source, stride=0)
    windows = apart.windows(data.genome)
    wiring = wire_tracks(resolve(recipe()), data.tracks, 256)
    splits, _ = separate(windows, apart.labels(windows), wiring.sight(resolve(recipe())))
    wiring = wiring.with_means(data.means(windows, splits.train))
    ridge = fit_bins(data, windows, splits, wiring, k=2)
    scores = ridge.evaluate(splits.test, bootstrap=0).tracks
    layout = wiring.of["h"]
    for (_, folded), (columns, _, logs) in ridge.fitted.items():
        counted = [features(data, windows, layout, int(row), 2, ridge.context, folded) for row in splits.test]
        made = np.maximum(np.concatenate([logs.predict(x) for x in counted]), 0)
        for i, column in enumerate(columns):
            wanted = [data.targets([layout.layout], windows.names[windows.chromosome[row]], int(windows.start[row]))[0]
                      for row in splits.test]  # fmt: skip
            by_hand = np.corrcoef(made[:, i], np.log1p(np.concatenate(wanted, 1)[column]))[0, 1]
            assert scores[column].log_pearson == pytest.approx(by_hand, abs=1e-6)


def test_a_prediction_of_another_genome_is_not_gone_on_with(tmp_path, monkeypatch):
    """Killed, then the FASTA is changed under the same name: nothing of the old one is kept."""
    model = build(recipe(), seed=0).eval()
    fasta = tmp_path / "g.fa"
    fasta.write_text(">a\n" + "ACGTTTGA" * 40 + "\n")
    with monkeypatch.context() as patched:
        patched.setattr("agblocks.training.genome.predict.write_bigwig", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_genome(model, fasta, tmp_path / "out")
    fasta.write_text(">a\n" + "CCGATTGA" * 40 + "\n")
    os.utime(fasta, (2e9, 2e9))
    whole = predict_genome(model, fasta, tmp_path / "new").files["h", "0"].read_bytes()
    assert predict_genome(model, fasta, tmp_path / "out").files["h", "0"].read_bytes() == whole
