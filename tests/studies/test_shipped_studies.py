"""Every shipped study, whole as a plan and in miniature as a run, on simulated measurements."""

import json
import re

import pytest

from agblocks.studies import load_study, plan, run_study, shipped_studies

NAMES = (
    "adapters", "data_size", "freeze_depth", "head_sweep", "reinit_from", "stage_transfer", "unfreeze_schedule"
)  # fmt: skip
SIMULATED = (
    "data.human={simulate: {n: 60, length: 48, folds: 10}}",
    "data.fly={simulate: {n: 60, length: 48, folds: 10, seed: 1}}",
)
YEAST = "data.yeast={simulate: {n: 60, length: 48, folds: 10, seed: 2}}"


def in_small(name, *more):
    """A shipped study on simulated rows, with one fold, one seed and one epoch."""
    models = load_study(name).pretrain
    shorter = [f"pretrain.{model}.training.epochs=1" for model in models]
    rows = (*SIMULATED, YEAST) if "yeast" in load_study(name).data else SIMULATED
    return plan(load_study(name, *rows, "vary.fold=['0']", "vary.seed=[0]", *shorter, *more))


def test_there_are_seven():
    assert tuple(shipped_studies()) == NAMES


# Places of the grid with one fold and one seed, and cells, those that train first models among them.
SIZES = {
    "adapters": (6, 15), "data_size": (16, 21), "freeze_depth": (8, 18), "head_sweep": (20, 42), "reinit_from": (8, 10),
    "stage_transfer": (162, 273), "unfreeze_schedule": (8, 18),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_plan(name):
    rows = ["vary.rows=[0.1, 0.2, 0.5, all]"] if name == "data_size" else MORE.get(name, [])
    made = in_small(name, "cell.training.epochs=9", *rows)
    assert (sum(e.control is None for e in made.entries), len(made.cells)) == SIZES[name]
    assert set(load_study(name).controls) <= {"random", "kmer", "full"} and "kmer" in load_study(name).controls
    assert made.study.reference


# Enough of each to see every kind of work in it.
PARTS = {
    "adapters": [["adapter=locon, stages 1-3"]],
    "data_size": [["rows=0.5", "way=probe"], ["rows=0.5", "way=scratch"]],
    "freeze_depth": [["frozen=stages 1-3"]],
    "head_sweep": [["change=positions side by side"], ["change=cosine schedule"]],
    "reinit_from": [["anew=from stage 4"]],
    "stage_transfer": [["encoder=legnet", "from=fly", "to=human", "tap=encoder.stage3"]],
    "unfreeze_schedule": [["schedule=at a plateau"], ["schedule=after 1 epoch"]],
}
MORE = {"data_size": ["vary.rows=[0.5, all]"], "stage_transfer": ["similarity=null"]}
MORE["unfreeze_schedule"] = ["cell.training.shift_mode=n"]  # nothing is known beyond a simulated insert


@pytest.mark.parametrize("name", NAMES)
def test_in_miniature(name, tmp_path):
    epochs = 6 if name == "unfreeze_schedule" else 1
    made = in_small(name, f"cell.training.epochs={epochs}", "cell.training.patience=0", *MORE.get(name, []))
    for only in PARTS[name]:
        done = run_study(made, tmp_path / "out", only=only, costs=False)
        assert done.ok, done.failed
    written = [json.loads(file.read_text()) for file in tmp_path.glob("out/cells/*/result.json")]
    assert {r["fit"] for r in written} >= {"gradient", "kmer"}
    wanted = {e.control for e in made.entries}
    found = {e.control for e in made.entries if (tmp_path / "out" / "cells" / e.cell / "result.json").exists()}
    assert found == wanted


def test_the_two_tables_of_document_001():
    """Each row of the tables is an option, but for the learning rate at plateaus, which is none of our schedules."""
    text = shipped_studies()["head_sweep"].read_text()
    widths = re.findall(r"head\.hidden: (\[[\d, ]+\])", text)
    assert widths == ["[512, 512]", "[512, 256]", "[256, 256]", "[512]", "[256]", "[128]"]
    assert re.findall(r"head\.dropout: ([\d.]+)", text) == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert re.findall(r"weight_decay: (1e-\d)\}", text) == ["1e-6", "1e-5", "1e-4", "1e-2"]
    schedule = {
        o.label: o.values for a in load_study("unfreeze_schedule").axes if a.name == "schedule" for o in a.options
    }
    after = [values["transfer.unfreeze"].value for values in schedule.values() if "transfer.unfreeze" in values]
    assert after == ["plateau:5=full", "1=full", "2=full", "3=full", "4=full", "5=full"]
