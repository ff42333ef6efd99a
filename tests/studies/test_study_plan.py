"""Cells are addressed by what they say: what does not matter changes nothing, what matters changes what it touches."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from study_helpers import PROBES, TRANSFER, planned

from agblocks.studies import Cell, StudyError, load_study, plan
from agblocks.studies.planning.cell import digest
from agblocks.studies.planning.describe import described
from agblocks.studies.planning.rows import parts, read_rows

BEFORE = {text: planned(text) for text in (PROBES, TRANSFER)}
QUICK = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@given(st.sampled_from([PROBES, TRANSFER]), st.permutations(range(4)), st.booleans(), st.text("abc ", max_size=8))
@QUICK
def test_labels_comments_and_order_change_no_cell(text, order, reverse, remark):
    study = re.sub("^(  way:|  pool:)", rf"  # {remark}\n\1", text, flags=re.M).replace("mean: {", "Mean: {")
    study = (
        study.replace("frozen: {", "cold: {")
        .replace(", pool: mean}", ", pool: Mean}")
        .replace("name: ", "name: other_")
    )
    head, vary, tail = re.fullmatch(r"(.*\nvary:\n)(.*?)(\ncontrols.*)", study, flags=re.S).groups()
    axes = re.split(r"\n(?=  \w)", vary)
    shuffled = [axes[i] for i in order if i < len(axes)]
    if reverse:
        shuffled = [re.sub(r"\[(.*)\]", lambda m: f"[{', '.join(m[1].split(', ')[::-1])}]", axis) for axis in shuffled]
    made = plan(load_study(head + "\n".join(shuffled) + tail))
    assert set(made.cells) == set(BEFORE[text].cells)


TOUCHES = [  # a number that changes, and the cells that it may touch
    ("cell.training.lr=0.01", lambda c: c.fit == "gradient" and "keep" not in c.given),
    ("pretrain.base.training.lr=0.01", lambda c: bool(c.needs) or "keep" in c.given),
    ("cell.kmer=4", lambda c: c.fit == "kmer"),
    ("cell.head.pool=max", lambda c: c.fit != "kmer" and "keep" not in c.given),
    ("cell.head.dropout=0.3", lambda c: c.fit == "gradient" and "keep" not in c.given),
    ("data.sim.simulate={n: 91, length: 40, folds: 5}", lambda c: "keep" not in c.given),
    ("cell.rows=20", lambda c: "keep" not in c.given),
    # The first stage has no growth, so where it is drawn and read alone nothing changes.
    (
        "cell.set.encoder.growth=9",
        lambda c: c.fit != "kmer" and ("encoder.stage3" in c.document["nodes"] or bool(c.needs)),
    ),
]


@pytest.mark.parametrize(("override", "touched"), TOUCHES, ids=[override for override, _ in TOUCHES])
def test_one_number_changes_what_it_touches(override, touched):
    before = BEFORE[TRANSFER]
    more = ["pretrain.base.set.encoder.growth=9"] if "growth" in override else []
    after = planned(TRANSFER, override, *more)
    kept = set(before.cells) & set(after.cells)
    gone = {name for name in before.cells if name not in kept}
    assert gone
    for name, cell in before.cells.items():
        assert (name in gone) == touched(cell), (override, cell.document)
    assert len(after.cells) == len(before.cells)


@given(st.recursive(st.integers(-9, 9) | st.booleans() | st.text(max_size=3) | st.floats(-2, 2), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_a_digest_is_of_the_value(value):
    """Through JSON and back it is the same; order of keys does not matter, and a change does."""
    assert digest(json.loads(json.dumps(value))) == digest(value)
    if isinstance(value, dict):
        assert digest(dict(reversed(value.items()))) == digest(value)
        assert digest({**value, "more than three": 0}) != digest(value)


def test_cells_go_to_other_processes_and_back():
    for cell in BEFORE[TRANSFER].cells.values():
        again = Cell.from_dict(json.loads(json.dumps(cell.to_dict())))
        assert again == cell and again.id == cell.id and again.needs == cell.needs
        changed = json.loads(json.dumps(cell.to_dict()))
        changed["document"]["test"] = ["1"]
        with pytest.raises(ValueError, match="has been changed"):
            Cell.from_dict(changed)


def test_the_grid_and_its_controls():
    made = BEFORE[TRANSFER]
    by = {}
    for entry in made.entries:
        by.setdefault(entry.control, []).append(entry)
    assert {control: len(entries) for control, entries in by.items()} == {None: 6, "random": 6, "kmer": 6, "full": 6}
    assert len({e.cell for e in by["kmer"]}) == 1  # neither tap nor way are its
    assert len({e.cell for e in by["full"]}) == 1
    for entry in by["random"]:
        cell, beside = made.cells[entry.cell], next(e for e in by[None] if e.labels == entry.labels)
        assert not cell.needs and "weights" not in cell.document and made.cells[beside.cell].needs
        assert cell.fit == made.cells[beside.cell].fit
    full = made.cells[by["full"][0].cell]
    assert (
        full.fit == "gradient" and full.given["parameters"]["all"] == full.given["parameters"]["trained"] and full.needs
    )
    order = list(made.cells)
    assert all(order.index(need) < order.index(name) for name, cell in made.cells.items() for need in cell.needs)
    written = made.to_dict()
    assert written["axes"][0] == {"name": "tap", "options": ["encoder.stage1", "encoder.stage3"]}
    assert written["report"]["panel"] == ["way"] and written["reference"] == {"control": "random"}


def test_what_an_axis_does_not_change_is_said():
    """A ridge has no learning rate; half of the places are ridges."""
    said = described(planned(PROBES, "vary.rate={low: {training.lr: 1e-4}, high: {training.lr: 1e-3}}"))
    assert "rate changes nothing: its options are one cell there" in said and said.count("changes nothing") == 1
    mixed = "vary.way={probe: {fit: ridge}, tuned: {fit: gradient}}"
    said = described(planned(PROBES, "vary.rate={low: {training.lr: 1e-4}, high: {training.lr: 1e-3}}", mixed))
    assert "rate changes nothing at 8 of 16 places: its options are one cell there" in said


def test_a_pattern_of_taps_is_every_stage_of_each_recipe():
    text = PROBES.replace("[encoder.stage1, encoder.stage3]", "[encoder.stage*]").replace(
        "pool: mean}\nrep", "pool: mean}\nrep"
    )
    made = planned(text, "vary.size={small: {set.encoder.stages: 2}, large: {set.encoder.stages: 4}}")
    assert dict(made.axes)["tap"] == tuple(f"encoder.stage{i}" for i in (1, 2, 3, 4))
    taps = {(e.labels["size"], e.labels["tap"]) for e in made.entries}
    assert len(taps) == 6 and ("small", "encoder.stage3") not in taps


def test_listed_cells_instead_of_the_grid():
    made = planned(PROBES, "cells=[{tap: encoder.stage1, pool: mean}, {tap: encoder.stage3}]", "controls=[]")
    found = {(e.labels["tap"], e.labels["pool"], e.labels["fold"]) for e in made.entries}
    assert len(found) == 6 and ("encoder.stage1", "peak", "0") not in found


def test_a_probe_of_loaded_weights_does_not_depend_on_the_seed_and_a_drawn_one_does():
    made = planned(TRANSFER, "vary.seed=[0, 1]")
    for control, many in ((None, 1), ("random", 2)):
        probes = {
            (e.labels["tap"], e.cell) for e in made.entries if e.labels["way"] == "probe" and e.control == control
        }
        assert len(probes) == 2 * many
    each = planned(TRANSFER, "vary.seed=[0, 1]", "pretrain.base.seed=each")
    assert len({need for cell in each.cells.values() for need in cell.needs}) == 2


def test_smaller_training_sets_lie_in_larger_ones():
    rows = read_rows({"simulate": {"n": 90, "length": 40, "folds": 5}, "targets": []})
    sets = [set(parts(rows, ["0"], ["1"], size, seed=3).train.tolist()) for size in (5, 0.2, 30, "all")]
    assert all(small < large for small, large in zip(sets, sets[1:], strict=False)) and len(sets[1]) == round(
        0.2 * len(sets[3])
    )
    assert sets[0] != set(parts(rows, ["0"], ["1"], 5, seed=4).train.tolist())


def test_permuted_targets_stay_in_their_fold():
    spec = {"simulate": {"n": 90, "length": 40, "folds": 5}, "targets": []}
    plain, dealt = read_rows(spec).table, read_rows({**spec, "permute": 1}).table
    assert plain.sequences == dealt.sequences and (plain.targets != dealt.targets).mean() > 0.8
    for name in set(plain.fold.tolist()):
        own = plain.fold == name
        assert sorted(plain.targets[own].ravel().tolist()) == sorted(dealt.targets[own].ravel().tolist())


def test_a_model_for_each_recipe_of_the_cells_that_start_from_it():
    """`recipe: each` is the cell's recipe with its overrides; the two encoders have a model of their own."""
    both = """
study: 1
name: both
data: {here: {simulate: {n: 60, length: 60, folds: 3}}, there: {simulate: {n: 60, length: 60, folds: 3, seed: 1}}}
pretrain: {base: {recipe: each, data: there, fold: "2", training: {epochs: 1}}}
cell: {data: here, fit: ridge, tap: encoder, fold: "0", transfer.weights: base}
vary:
  encoder:
    narrow: {recipe: tiny}
    wide: {recipe: tiny, set.encoder.growth: 16}
    legnet: {recipe: study_legnet}
"""
    made = plan(load_study(both))
    first = [made.cells[need] for entry in made.entries for need in made.cells[entry.cell].needs]
    assert len({cell.id for cell in first}) == 3
    alone = both.replace("recipe: each", "recipe: tiny, set.encoder.growth: 16").replace(
        "    narrow: {recipe: tiny}\n", ""
    )
    alone = alone.replace("    legnet: {recipe: study_legnet}\n", "")
    [wide] = [cell for cell in plan(load_study(alone)).cells.values() if not cell.needs]
    assert wide.id == first[1].id


def test_rows_that_cannot_be_had_are_looked_for_once(monkeypatch):
    """A download that fails takes its time once, and every cell is told."""
    from agblocks.data import DataError
    from agblocks.studies.planning import making

    asked = []

    def away(spec):
        asked.append(spec)
        raise DataError("the file is away")

    monkeypatch.setattr(making, "read_rows", away)
    with pytest.raises(StudyError, match="the file is away"):
        planned()
    assert len(asked) == 1
