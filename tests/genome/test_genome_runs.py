"""Runs of genome tracks predicted along chromosomes: names, units, strand pairs, members, window."""

import numpy as np
import pybigtools
import pytest
import torch

from agblocks import build, resolve
from agblocks.data import Construct, one_hot, reverse_complement
from agblocks.data.tracks import Track
from agblocks.training import Run, RunError, Settings, load_run, save_run
from agblocks.training.genome import predict_genome
from agblocks.training.tracks import wire_tracks

RECIPE = """
recipe: 1
name: made
inputs: {dna: B 4 L, organism: B}
nodes:
  encoder: {block: encoder.alphagenome, in: dna, args: {channels: 8, growth: 2, stages: 3}}
heads:
  fine: {block: head.coverage, in: encoder.stage1, args: {tracks: 1}}
  coarse:
    block: head.tracks
    in: {x: encoder.stage3, organism: organism}
    args: {tracks: 3, resolution: 4, organisms: 1}
"""
TRACKS = [
    Track("fwd", "a.bw", pair="rev", aggregation="sum"), Track("gc", "b.bw"),
    Track("rev", "c.bw", pair="fwd", aggregation="sum"), Track("half", "d.bw", squash="old"),
]  # fmt: skip
MEANS = [3.0, 0.5, 2.0, 7.0]


@pytest.fixture
def run(tmp_path):
    resolved = resolve(RECIPE)
    wiring = wire_tracks(resolved, TRACKS, 256, {"fine": ["half"], "coarse": ["fwd", "gc", "rev"]})
    wiring = wiring.with_means(MEANS)
    models = tuple(build(RECIPE, seed=seed).eval() for seed in (0, 1))
    for model in models:
        wiring.ready(model)
    made = Run(models, Construct(), wiring, Settings(strands="both", ensemble=2, device="cpu"))
    (tmp_path / "run").mkdir()
    return load_run(save_run(tmp_path / "run", made))  # what is stored of it is enough


@pytest.fixture
def sequence(tmp_path):
    made = "".join(np.random.default_rng(2).choice(list("ACGT"), 1100))
    (tmp_path / "genome.fa").write_text(f">chrI\n{made}\n")
    return made


def test_a_run_brings_what_it_knows(run, sequence, tmp_path):
    """One long window of each member and strand, in the tracks' units, by the wiring's own arithmetic."""
    made = predict_genome(run, tmp_path / "genome.fa", tmp_path / "out", window=512, overlap=0)
    assert sorted(f.name for f in made.files.values()) == [
        "coarse.fwd.bw",
        "coarse.gc.bw",
        "coarse.rev.bw",
        "fine.half.bw",
    ]
    assert made.report["strands"] == "both"
    total: dict[str, torch.Tensor] = {}
    with torch.no_grad():
        for model in run.models:
            for text in (sequence, reverse_complement(sequence)):
                given = run.wiring.measured(model(dna=one_hot(text), organism=torch.tensor([0])))
                given = run.wiring.turned(given) if text != sequence else given
                total = {name: total.get(name, 0) + value for name, value in given.items()}
    for (output, track), file in made.files.items():
        layout = run.wiring.of[output]
        expected = total[output][0, layout.names.index(track)].repeat_interleave(layout.resolution).numpy() / 4
        found = np.array(pybigtools.open(str(file)).values("chrI", 0, 1100, fillna=None))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_some_outputs_and_tracks_of_a_run(run, sequence, tmp_path):
    made = predict_genome(
        run, tmp_path / "genome.fa", tmp_path / "out", outputs=["coarse"], tracks={"coarse": ["rev"]}, strands="forward"
    )
    assert [f.name for f in made.files.values()] == ["coarse.rev.bw"]
    with pytest.raises(RunError, match="learnt no tracks at .encoder.stage2.; there is: coarse, fine"):
        predict_genome(run, tmp_path / "genome.fa", tmp_path / "out", outputs=["encoder.stage2"])
