"""A recipe fitted to genome tracks, end to end: run folder, scores, resuming, both strands, and where its weights go."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from agblocks.cli import app
from agblocks.data import simulate_mpra, split_by_fold
from agblocks.data.tracks import Genome, separate
from agblocks.training import RunError, Settings, evaluate, fit, load_run, predict
from agblocks.training.tracks import GenomeSource, TrackWiring, evaluate_run, fit_bins, fit_tracks, wire_tracks
from agblocks.training.tracks.evaluate import predictions
from agblocks.training.tracks.ridge import features

RECIPE = {
    "recipe": 1,
    "name": "made",
    "inputs": {"dna": "B 4 L", "organism": "B"},
    "nodes": {
        "encoder": {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": 16, "growth": 4, "stages": 3}},
    },
    "heads": {
        "fine": {"block": "head.coverage", "in": "encoder.stage1", "args": {"tracks": 1}},
        "coarse": {
            "block": "head.tracks",
            "in": {"x": "encoder.stage3", "organism": "organism"},
            "args": {"tracks": 3, "resolution": 4, "organisms": 1},
        },
    },
}
HEADS = {"fine": ["half"], "coarse": ["gc", "fwd", "rev"]}
QUICK = Settings(
    epochs=6, batch_size=4, lr=1e-2, patience=0, ema=0.5, reverse_complement=0.5, shift=20, strands="both",
    device="cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def source(made):
    return GenomeSource(str(made.fasta), str(made.table), window=256, stride=128, block=1000, folds=4)


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("tracks") / "run"
    told = []
    fit_tracks(RECIPE, source, out, QUICK, heads=HEADS, told=told.append)
    assert "half: no values on chrII" in told[0] and "left out, too close to held-out ones" in told[0]
    return out


def test_a_run_folder_of_tracks(folder, source, made):
    names = {p.name for p in folder.iterdir()}
    assert {"model.safetensors", "metrics.json", "scores.json", "windows.tsv", "curves.png", "started.json"} <= names
    assert not list(folder.rglob("*.ckpt"))
    run = load_run(folder)
    assert isinstance(run.wiring, TrackWiring) and run.wiring.heads["coarse"] == (
        "coarse/gc",
        "coarse/fwd",
        "coarse/rev",
    )
    assert run.metrics == json.loads((folder / "metrics.json").read_text())
    assert GenomeSource.from_dict(run.data["genome"]) == source.absolute()
    means = {track["name"]: track["mean"] for track in run.data["tracks"]}
    assert run.model.coarse.track_means[0].tolist() == pytest.approx([means["gc"] / 4, means["fwd"], means["rev"]])
    # what trained is what `separate` leaves, with the margin of what the heads see and the shift
    genome = Genome(made.fasta)
    windows = source.windows(genome)
    splits, dropped = separate(windows, source.labels(windows), run.wiring.sight(run.resolved, 20))
    lines = [line.split("\t") for line in (folder / "windows.tsv").read_text().splitlines()[1:]]
    for part, rows in splits.parts().items():
        assert [int(x[2]) for x in lines if x[0] == part] == windows.start[rows].tolist()
    assert run.data["rows"] == {**{p: len(r) for p, r in splits.parts().items()}, "left_out": len(dropped)}
    assert 0 < len(dropped) < len(windows)


def test_it_learns_what_follows_from_the_sequence(folder):
    metrics = load_run(folder).metrics
    scores = {score["track"]: score for score in metrics["test"]["tracks"]}
    assert scores["gc"]["pearson"] > 0.6
    history = (folder / "members" / "0.csv").read_text().splitlines()
    loss = [float(line.split(",")[3]) for line in history[1:]]
    assert loss[-1] < loss[0]
    assert {s["track"] for s in metrics["ridge"]["tracks"]} == {"gc", "fwd", "rev", "half"}
    assert metrics["test"]["across"][0]["head"] == "coarse"


def test_evaluating_gives_the_stored_scores(folder, source):
    for part in ("test", "valid"):
        _, made = evaluate_run(folder, part=part)
        stored = load_run(folder).metrics[part]
        assert made.windows == stored["windows"]
        for score, told in zip((*made.tracks, *made.across), (*stored["tracks"], *stored["across"]), strict=True):
            assert score.n == told["n"] and score.pearson == pytest.approx(told["pearson"], abs=1e-6)
    _, one = evaluate_run(folder, strands="one")
    assert one.tracks[1].pearson != stored["tracks"][1]["pearson"]
    with pytest.raises(RunError, match="windows of 128 bases; the run was trained on 256"):
        evaluate_run(folder, replace(source, window=128))
    with pytest.raises(RunError, match="there are train, valid and test"):
        evaluate_run(folder, part="tset")


def test_both_strands_are_averaged_with_strands_swapped(folder, source):
    run = load_run(folder)
    data = source.data()
    windows = source.windows(data.genome)
    rows = np.array([3, 7])
    arguments = (run.models, run.wiring, data, windows, rows, run.settings)
    ((batch, both),) = list(predictions(*arguments, strands="both"))
    ((_, one),) = list(predictions(*arguments, strands="one"))
    dna = batch["inputs"]["dna"]
    back = run.model(dna=dna.flip(1).flip(2), organism=torch.zeros(2, dtype=torch.int64))
    swapped = back["coarse"][:, [0, 2, 1]].flip(-1)
    torch.testing.assert_close(both["coarse"], (one["coarse"] + swapped) / 2)
    unit = run.wiring.of["fine"].unit[0]
    torch.testing.assert_close(both["fine"], (one["fine"] + unit * back["fine"].flip(-1)) / 2)


def weights(folder):
    return load_run(folder).model.state_dict()


@pytest.mark.parametrize("at", [2, 9])
def test_an_interrupted_run_goes_on_to_the_same_weights(source, tmp_path, monkeypatch, at):
    from agblocks.training.tracks.module import TrackFitting

    settings = replace(QUICK, epochs=2)
    fit_tracks(RECIPE, source, tmp_path / "whole", settings, heads=HEADS, kmer=0)
    begin, seen = TrackFitting.on_train_batch_start, []

    def counted(self, *rest):
        seen.append(1)
        if len(seen) == at:
            raise RuntimeError("the machine is gone")
        begin(self, *rest)

    monkeypatch.setattr(TrackFitting, "on_train_batch_start", counted)
    with pytest.raises(RuntimeError, match="gone"):
        fit_tracks(RECIPE, source, tmp_path / "cut", settings, heads=HEADS, kmer=0)
    run = fit_tracks(RECIPE, source, tmp_path / "cut", settings, heads=HEADS, kmer=0, resume=True)
    assert len(seen) > at
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(value, whole[name]) for name, value in run.model.state_dict().items())
    with pytest.raises(RunError, match=r"windows.train was"):
        fit_tracks(RECIPE, replace(source, stride=0), tmp_path / "cut", settings, heads=HEADS, kmer=0, resume=True)


def test_its_encoder_starts_a_model_of_measured_sequences(folder, tmp_path):
    """As `agblocks fit ... --weights yeast_run --weights-into encoder` does."""
    mpra = {
        **{k: RECIPE[k] for k in ("recipe", "nodes")},
        "name": "mpra",
        "inputs": {"dna": "B 4 L"},
        "heads": {"activity": {"block": "head.scalar", "in": "encoder.stage2", "args": {}}},
    }
    table, _ = simulate_mpra(60, 40, seed=0)
    splits = split_by_fold(table, valid="1", test="0")
    settings = Settings(epochs=1, patience=0, tune="head", device="cpu")
    run = fit(mpra, table, splits, tmp_path / "m", settings, weights=folder, weights_into=["encoder"])
    there = weights(folder)
    own = {k: v for k, v in run.model.state_dict().items() if k.startswith("encoder.")}
    assert own and all(torch.equal(value, there[name]) for name, value in own.items())
    assert run.data["transfer"] if "transfer" in run.data else run.data["weights"]
    with pytest.raises(RunError, match="this run is of tracks along a genome"):
        predict(load_run(folder), table)
    with pytest.raises(RunError, match="this run is of tracks along a genome"):
        evaluate(load_run(folder), table)
    with pytest.raises(RunError, match="a run of measured sequences"):
        evaluate_run(tmp_path / "m")


def test_the_ridge_counts_kmers_around_bins(made, source):
    data = source.data()
    windows = source.windows(data.genome)
    from agblocks import resolve

    wiring = wire_tracks(resolve(RECIPE), data.tracks, 256, HEADS)
    layout = wiring.of["coarse"]
    for folded in (True, False):
        x = features(data, windows, layout, 9, 3, 10, folded)
        name, start = windows.names[windows.chromosome[9]], int(windows.start[9])
        text = made.letters[name].upper()
        kmers = [a + b + c for a in "ACGT" for b in "ACGT" for c in "ACGT"]
        other = {k: k.translate(str.maketrans("ACGT", "TGCA"))[::-1] for k in kmers}
        groups = sorted({min(k, other[k]) for k in kmers}) if folded else kmers
        for i in (0, 5, 63):
            around = text[start + 4 * i - 10 : start + 4 * i + 14]
            there = [around[j : j + 3] for j in range(len(around) - 2)]
            counts = [sum(t in {g, other[g] if folded else g} for t in there) for g in groups]
            assert x[i].tolist() == counts
    wiring = wiring.with_means(data.means(windows, np.arange(len(windows))))
    splits, _ = separate(windows, source.labels(windows), wiring.sight(resolve(RECIPE)))
    ridge = fit_bins(data, windows, splits, wiring, k=2, context=4)
    scores = {s.track: s for s in ridge.evaluate(splits.test, bootstrap=50).tracks}
    assert scores["gc"].pearson > 0.8  # nine bases' G and C are nearly linear in their counts
    assert scores["gc"].blocks == 1 and np.isnan(scores["gc"].pearson_interval[0])


def test_the_commands(made, tmp_path):
    recipe = tmp_path / "made.yaml"
    recipe.write_text(json.dumps(RECIPE))
    options = [
        "--fasta", str(made.fasta), "--tracks", str(made.table), "--window", "256", "--block", "1000", "--folds", "4",
    ]  # fmt: skip
    run = ["tracks", "fit", str(recipe), "-o", str(tmp_path / "r"), "--heads", "fine=half,coarse=gc+fwd+rev"]
    done = CliRunner().invoke(app(), [*run, *options, "--epochs", "1", "--device", "cpu", "--patience", "0"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())  # long paths wrap
    assert "held out for test" in said and "ridge on 4-mers, the same windows" in said
    done = CliRunner().invoke(app(), ["tracks", "evaluate", str(tmp_path / "r"), "-o", str(tmp_path / "s.json")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "s.json").read_text())["test"]["windows"] > 0
    with pytest.raises(Exception, match="wanted a genome and"):
        CliRunner().invoke(app(), run, catch_exceptions=False)
    with pytest.raises(RunError, match="nothing says which windows are held out"):
        CliRunner().invoke(app(), [*run, *options[:-4], "--overwrite"], catch_exceptions=False)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(source, tmp_path):
    """Which needs data, wiring and model sent to other processes, and validation put together from their shares."""
    settings = replace(QUICK, epochs=2, batch_size=5, ema=0.0)
    one = fit_tracks(RECIPE, source, tmp_path / "one", settings, heads=HEADS, kmer=0)
    two = fit_tracks(RECIPE, source, tmp_path / "two", replace(settings, devices=2), heads=HEADS, kmer=0)
    there = one.model.state_dict()
    for name, value in two.model.state_dict().items():
        torch.testing.assert_close(value, there[name], rtol=1e-3, atol=1e-5)
    rows = [[float(x or 0) for x in line.split(",")] for run in ("one", "two")
            for line in (tmp_path / run / "members" / "0.csv").read_text().splitlines()[1:]]  # fmt: skip
    assert rows[:2] == [pytest.approx(row, rel=1e-4) for row in rows[2:]]
