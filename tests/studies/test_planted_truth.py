"""A study finds the stage that carries the signal by construction, and finds nothing where there is nothing.

The encoder is written by hand. Stage 1 has a detector for every motif on each strand, and one of G and C. Stage 2 fires
where the two motifs of the pair stand on one strand at a distance, one channel for each, and passes G and C on; a single
motif moves none of it. Stage 3 sees G and C alone. So averages over positions of stage 1 hold what single motifs say, those
of stage 2 what pairs say, and those of stage 3 neither.
"""

import json

import polars
import pytest
import torch
from safetensors.torch import save_file

from agblocks import build
from agblocks.data import reverse_complement
from agblocks.data.simulate import _IUPAC, MOTIFS
from agblocks.studies import load_study, plan, run_study
from agblocks.studies.planning.rows import PAIR
from agblocks.studies.statistics import Unit, paired

WIDTH, REACH = 13, 83
DETECTORS = [(m.name, forward, m.consensus) for m in MOTIFS for forward in (True, False)]
APART = range(8, 42)

RECIPE = {
    "recipe": 1,
    "name": "by_hand",
    "inputs": {"dna": "B 4 L"},
    "nodes": {
        "encoder": {
            "block": "encoder.stack",
            "in": "dna",
            "args": {
                "stages": [
                    {"block": "conv.stem", "args": {"channels": size, "kernel": kernel, "norm": "none", "activation": "relu"}}
                    for size, kernel in ((len(DETECTORS) + 1, WIDTH), (2 * len(APART) + 1, REACH), (4, 3))
                ]
            },
        }
    },
    "heads": {"activity": {"block": "head.scalar", "in": "encoder"}},
}  # fmt: skip


def by_hand(path):
    """The weights described above."""
    model = build(RECIPE, seed=0)
    state = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    first, bias = state["encoder.stage1.conv.weight"], state["encoder.stage1.conv.bias"]
    centre = WIDTH // 2
    for channel, (_, forward, consensus) in enumerate(DETECTORS):
        text = consensus if forward else reverse_complement(consensus)
        for i, letter in enumerate(text):
            for base in _IUPAC[letter]:
                first[channel, "ACGT".index(base), centre - (len(text) - 1) // 2 + i] = 1
        bias[channel] = 1 - len(text)  # 1 where all letters match, else nothing
    first[-1, [1, 2], centre] = 1
    second, bias = state["encoder.stage2.conv.weight"], state["encoder.stage2.conv.bias"]
    names = {(name, forward): i for i, (name, forward, _) in enumerate(DETECTORS)}
    channel = 0
    for forward in (True, False):
        for apart in APART:
            second[channel, names[PAIR[0], forward], REACH // 2] = 1
            second[channel, names[PAIR[1], forward], REACH // 2 + apart] = 1
            bias[channel] = -1  # both, or nothing
            channel += 1
    second[-1, -1, REACH // 2] = 1
    third = state["encoder.stage3.conv.weight"]
    third[:, -1] = torch.randn(third[:, -1].shape, generator=torch.Generator().manual_seed(0))
    blocks = {node.name: node.entry.name for node in model.resolved.nodes.values()}
    save_file(state, path, {"agblocks-weights": json.dumps({"nodes": blocks})})  # as `agblocks convert` writes it


STUDY = """
study: 1
name: planted
data:
  motifs: {simulate: {n: 500, length: 90, rules: motifs, sites: 2, ceiling: 0.95, folds: 5}}
  pairs: {simulate: {n: 500, length: 90, rules: pairs, ceiling: 0.95, folds: 5}}
  shuffled motifs: {simulate: {n: 500, length: 90, rules: motifs, sites: 2, ceiling: 0.95, folds: 5}, permute: 0}
  shuffled pairs: {simulate: {n: 500, length: 90, rules: pairs, ceiling: 0.95, folds: 5}, permute: 0}
pretrain: {by_hand: {weights: by_hand.safetensors}}
cell: {recipe: by_hand.yaml, fit: ridge, transfer.weights: by_hand}
vary:
  data: [motifs, pairs, shuffled motifs, shuffled pairs]
  tap: [encoder.stage*]
  fold: ["0", "1", "2", "3", "4"]
reference: {tap: encoder.stage3}
report: {x: tap, panel: data}
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Units of every tap, by data, of the finished study."""
    folder = tmp_path_factory.mktemp("planted")
    by_hand(folder / "by_hand.safetensors")
    (folder / "by_hand.yaml").write_text(json.dumps(RECIPE))
    (folder / "study.yaml").write_text(STUDY)
    planned = plan(load_study(folder / "study.yaml"))
    made = run_study(planned, folder / "out")
    assert made.ok, made.failed
    units = {}
    for entry in planned.entries:
        rows = polars.read_parquet(folder / "out" / "cells" / entry.cell / "predictions.parquet")
        unit = Unit(
            entry.labels["fold"],
            "0",
            rows["id"].to_list(),
            rows["observed_activity"].to_numpy(),
            rows["predicted_activity"].to_numpy(),
        )
        units.setdefault(entry.labels["data"], {}).setdefault(entry.labels["tap"], []).append(unit)
    return units


@pytest.mark.parametrize(("data", "carries"), [("motifs", "encoder.stage1"), ("pairs", "encoder.stage2")])
def test_the_stage_that_carries_the_signal_is_found(found, data, carries):
    """It is better than each of the others, and reaches most of what the noise leaves."""
    against = paired(found[data], carries)
    assert {name: made.verdict for name, made in against.items()} == dict.fromkeys(against, "worse")
    means = {tap: sum(u.pearson for u in map(Scored, units)) / len(units) for tap, units in found[data].items()}
    assert means[carries] > 0.8
    assert max(value for tap, value in means.items() if tap != carries) < 0.35


@pytest.mark.parametrize("data", ["shuffled motifs", "shuffled pairs"])
def test_nothing_is_found_on_shuffled_targets(found, data):
    against = paired(found[data], "encoder.stage3")
    assert all(made.verdict not in ("better", "worse") for made in against.values()), against
    assert all(abs(Scored(unit).pearson) < 0.4 for units in found[data].values() for unit in units)


class Scored:
    """A unit's Pearson, by torch: apart from the code under test."""

    def __init__(self, unit):
        both = torch.tensor([list(unit.observed), list(unit.predicted)], dtype=torch.float64)
        self.pearson = torch.corrcoef(both)[0, 1].nan_to_num().item()
