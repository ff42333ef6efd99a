"""A study's folder read back: one flat table, and refusals that name file and reason."""

import json

import made_study
import numpy as np
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agblocks.errors import AgblocksError
from agblocks.studies.report.groups import grouped, in_order
from agblocks.studies.report.pareto import data_axes
from agblocks.studies.results import read
from agblocks.studies.table import axis_columns, table

SMALL = {
    "encoders": ("alphagenome",), "stages": 2, "ways": ("probe", "frozen"), "folds": ("0", "3"), "seeds": ("0", "1"),
    "bootstrap": 10,
}  # fmt: skip


@pytest.fixture
def study(tmp_path):
    return tmp_path, made_study.make(tmp_path, **SMALL, failed=2, missing=3, rows=30)


def result_of(out, cell):
    return out / "cells" / cell / "result.json"


def a_done_cell(out):
    return next(p.parent.name for p in sorted(out.glob("cells/*/result.json")))


def test_every_place_of_the_plan_has_its_rows(study):
    out, made = study
    results = read(out)
    flat = table(results)
    assert flat["cell"].n_unique() == made["cells"] == len(results.cells)
    states = dict(flat.unique("cell").group_by("state").len().iter_rows())
    assert states["failed"] == 2 and states["missing"] == 3 and states["done"] == made["cells"] - 5
    failed = flat.filter(polars.col("state") == "failed").row(0, named=True)
    assert failed["cell"] in made["failed"] and failed["reason"] == made_study.MISSING_REASON
    assert failed["where"] == "encoder.stage2" and failed["target"] is None and failed["pearson"] is None


def test_numbers_are_those_of_the_files(study):
    out, _ = study
    flat = table(read(out))
    for row in flat.filter(polars.col("state") == "done").iter_rows(named=True):
        content = json.loads(result_of(out, row["cell"]).read_text())
        score = next(s for s in content["scores"]["test"] if s["target"] == row["target"])
        assert row["pearson"] == score["pearson"] and row["mse"] == score["mse"] and row["n"] == score["n"]
        assert [row["pearson_low"], row["pearson_high"]] == score["pearson_interval"]
        assert row["command"] == content["command"] and row["recipe"] == content["recipe"]
        assert json.loads(row["chosen"]) == content["chosen"]
        if content["cost"]:
            cost = json.loads((out / "costs" / f"{content['cost']}.json").read_text())
            assert row["latency_32_ms"] == cost["latency_32_ms"] and row["macs_per_base"] == cost["macs_per_base"]
        else:
            assert row["macs_per_base"] is None


def test_a_control_that_many_cells_share_is_one_row(study):
    out, _ = study
    flat = table(read(out))
    kmer = flat.filter((polars.col("control") == "kmer") & (polars.col("data") == "lentimpra"))
    assert len(kmer) == 2 and set(kmer["fold"]) == {"0", "3"}  # one target, two folds
    assert kmer["tap"].null_count() == kmer["seed"].null_count() == kmer["way"].null_count() == 2
    full = flat.filter((polars.col("control") == "full") & (polars.col("data") == "lentimpra"))
    assert len(full) == 4 and full["encoder"].null_count() == 0 and full["tap"].null_count() == 4


def test_axes_named_like_columns():
    assert axis_columns({"rows": (), "state": (), "target": ()}) == {
        "rows": "rows", "state": "axis_state", "target": "axis_target"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:100]), "Invalid JSON"),
        (lambda p: p.write_text("{}"), "format"),
        (lambda p: p.write_text(p.read_text().replace('"version": 1', '"version": 9')), "version"),
        (lambda p: p.write_bytes(b"\xff\xfe\x00"), "Invalid JSON"),
        (lambda p: p.write_text(p.read_text().replace(p.parent.name, "0" * 16)), "0000000000000000"),
        (lambda p: p.write_text(p.read_text().replace('"pearson": 0', '"pearson": "high0')), "result.json"),
    ],
    ids=["cut off", "empty", "newer", "binary", "of another cell", "no number"],
)
def test_a_damaged_result_is_refused_with_its_path(study, damage, said):
    out, _ = study
    cell = a_done_cell(out)
    damage(result_of(out, cell))
    results = read(out)
    assert results.cells[cell].state == "refused" and results.count("refused") == 1
    assert str(result_of(out, cell)) in results.problems[0] and said in results.problems[0]
    row = table(results).filter(polars.col("cell") == cell).row(0, named=True)
    assert row["state"] == "refused" and row["reason"] == results.problems[0] and row["pearson"] is None


def test_a_result_counts_more_than_an_older_failure(study):
    out, _ = study
    cell = a_done_cell(out)
    (out / "cells" / cell / "failed.json").write_text(json.dumps({"cell": cell, "error": "earlier"}))
    assert read(out).cells[cell].state == "done"


def test_cells_of_other_studies_are_counted(study):
    out, _ = study
    made_study.write(out / "cells" / ("a" * 16) / "result.json", {})
    (out / "cells" / ".half.part").mkdir()
    assert read(out).strangers == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.update(format="other"), "format"),
        (lambda p: p["entries"][0].update(cell="../../etc"), "entries.0.cell"),
        (lambda p: p["entries"][0]["labels"].update(tap="encoder.stage9"), "option 'encoder.stage9' of axis 'tap'"),
        (lambda p: p["entries"][0]["labels"].update(size="9"), "no axis 'size'"),
        (lambda p: p["entries"][0]["labels"].pop("tap"), "no label for tap"),
        (lambda p: p["report"].update(x="size"), "'size' is not an axis; there is: data, encoder, tap"),
        (lambda p: p["report"].update(panel="data"), None),
    ],
)
def test_a_plan_that_is_not_one(study, change, said):
    out, _ = study
    plan = json.loads((out / "plan.json").read_text())
    change(plan)
    (out / "plan.json").write_text(json.dumps(plan))
    if said is None:
        assert read(out).plan.report.panel == ("data",)
        return
    with pytest.raises(AgblocksError, match="plan.json") as caught:
        read(out)
    assert said in str(caught.value)


def test_no_folder_and_no_plan(tmp_path):
    with pytest.raises(AgblocksError, match="there is no such folder"):
        read(tmp_path / "none")
    with pytest.raises(AgblocksError, match="plan.json: there is no such file"):
        read(tmp_path)


def test_files_with_names_that_lead_elsewhere(study):
    out, _ = study
    cell = a_done_cell(out)
    content = json.loads(result_of(out, cell).read_text())
    result_of(out, cell).write_text(json.dumps({**content, "cost": "../plan"}))
    results = read(out)
    assert "../plan" not in results.costs and any("is not the name of a file" in p for p in results.problems)


def test_groups_hold_folds_and_seeds_together(study):
    out, _ = study
    groups = grouped(read(out))
    own = [g for g in groups.groups if g.control is None]
    assert len(own) == 2 * 2 * 2 and all(len(g.units) == 4 for g in own)
    assert groups.panel == ("data", "encoder") and (groups.x, groups.line) == ("tap", "way")
    kmer = [g for g in groups.groups if g.control == "kmer"]
    assert [dict(g.labels) for g in kmer] == [{"data": d, "encoder": "alphagenome"} for d in ("lentimpra", "starrseq")]
    assert all(len(set(g.units.values())) == 2 for g in kmer)


def test_a_control_of_fewer_seeds_is_drawn_with_the_one_of_all(study):
    """Listed cells: one way for one tap and seed alone. Its controls are some cells of the other's, not another line.

    What the k-mer control depends on tells the data apart: which comparisons are corrected together.
    """
    out, _ = study
    plan = json.loads((out / "plan.json").read_text())
    whole, [*_, last] = grouped(read(out)), read(out).axes["way"]
    entries = [
        e for e in plan["entries"]
        if e["labels"]["way"] != last or (e["labels"]["tap"], e["labels"]["seed"]) == ("encoder.stage1", "0")
    ]  # fmt: skip
    assert len(entries) < len(plan["entries"])
    (out / "plan.json").write_text(json.dumps({**plan, "entries": entries}))
    found = grouped(read(out))
    assert len([g for g in found.groups if g.control == "kmer"]) == 4
    for one in (whole, found):
        drawn = [g for g in one.drawn if g.control == "kmer"]
        assert [set(g.labels) for g in drawn] == [{"data", "encoder"}] * 2
        assert data_axes(one) == data_axes(whole)
        assert {cell for g in drawn for cell in g.units.values()} == {
            e["cell"] for e in plan["entries"] if e["control"] == "kmer"
        }


@given(st.permutations([f"encoder.stage{i}" for i in range(1, 12)]))
def test_stages_stand_in_the_order_of_the_encoder(labels):
    assert in_order([*labels, "encoder.pool"]) == [*(f"encoder.stage{i}" for i in range(1, 12)), "encoder.pool"]


@given(st.lists(st.integers(0, 10**6), min_size=2, unique=True))
def test_numbers_stand_by_size_and_all_last(numbers):
    said = [str(n) for n in numbers]
    assert in_order(["all", *said]) == [*(str(n) for n in sorted(numbers)), "all"]


@pytest.mark.parametrize(
    "labels", [["b", "a"], ["mean", "flatten", "max"], ["1e-3", "x"], ["lora8", "lora2"], [], ["a1"]]
)
def test_other_labels_stay_as_they_stand(labels):
    assert in_order(labels) == labels


def test_numbers_without_a_result_are_null_not_nan(study):
    flat = table(read(study[0]))
    for name, kind in zip(flat.columns, flat.dtypes, strict=True):
        if kind == polars.Float64:
            assert not np.isnan(flat[name].drop_nulls().to_numpy()).any(), name


@pytest.mark.parametrize(
    ("layout", "x", "line", "panel"),
    [
        ({}, "encoder", "way", ("data", "tap")),
        ({"x": "tap"}, "tap", "way", ("data", "encoder")),
        ({"x": "tap", "line": None, "panel": ["data", "encoder", "way"]}, "tap", "way", ("data", "encoder")),
        ({"x": "tap", "line": "encoder", "panel": "data"}, "tap", "encoder", ("data", "way")),
        ({"x": None, "panel": ["data", "encoder", "tap", "way"]}, "encoder", "way", ("data", "tap")),
    ],
)
def test_every_axis_has_a_place_in_the_figures(study, layout, x, line, panel):
    out, _ = study
    plan = json.loads((out / "plan.json").read_text())
    (out / "plan.json").write_text(json.dumps({**plan, "report": layout}))
    found = grouped(read(out))
    assert (found.x, found.line, found.panel, found.over) == (x, line, panel, ("fold", "seed"))
