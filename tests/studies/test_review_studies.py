"""What a careful stranger tried: files that change, names that are no names, folders and file systems that won't do."""

import errno
import fcntl
import json

import numpy as np
import polars
import pytest
import torch
from study_helpers import PROBES, TRANSFER, planned

from agblocks.data import Construct, Loader, encode, one_hot_codes
from agblocks.errors import AgblocksError
from agblocks.studies import StudyError, WorkError, likeness, load_study, plan, run_study
from agblocks.studies.planning.rows import read_rows
from agblocks.studies.similarity import compare_models
from agblocks.studies.store import Store

SIDES = {"data": "sim", "rows": {"recipe": "tiny"}, "columns": {"recipe": "tiny", "seed": 1}}


def of(values, **more):
    """A study of one k-mer cell on rows of a file or simulated, in plain values."""
    cell = {"data": "sim", "fit": "kmer", "kmer": 3, "fold": "0"}
    return {"study": 1, "data": {"sim": values}, "cell": cell, **more}


SIMULATED = {"simulate": {"n": 60, "length": 40, "folds": 5}}


def test_rows_and_recipes_that_changed_are_read_again(tmp_path):
    file, recipe = tmp_path / "rows.tsv", tmp_path / "mine.yaml"

    def write(seed):
        rng = np.random.default_rng(seed)
        rows = [f"{''.join(rng.choice(list('ACGT'), 40))}\t{i % 5}\t{rng.normal():.3f}" for i in range(40)]
        file.write_text("\n".join(["sequence\tfold\ty", *rows]) + "\n")

    values = {"data": str(file), "sequence": "sequence", "fold": "fold", "targets": ["y"]}
    study = of(values)
    study["cell"] |= {"fit": "ridge", "recipe": str(recipe), "tap": "encoder.stage1"}
    write(0)
    recipe.write_text("recipe: 1\nbase: tiny\n")
    first = set(plan(load_study(study)).cells)
    assert set(plan(load_study(study)).cells) == first
    write(1)
    second = set(plan(load_study(study)).cells)
    recipe.write_text("recipe: 1\nbase: tiny\nset: {encoder.channels: 12}\n")
    third = set(plan(load_study(study)).cells)
    assert not first & second and not second & third


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"similarity": {"a/b": SIDES}}, "'a/b' is to be a file's name"),
        ({"similarity": {"../../a": SIDES}}, "is to be a file's name"),
        ({"similarity": {"a": {**SIDES, "pool": "median"}}}, "pool is 'median'"),
        ({"similarity": {"a": {**SIDES, "data": ["sim"]}}}, "there are no rows called"),
        ({"similarity": {"a": {**SIDES, "rows": {"recipe": True}}}}, "says which recipe"),
        ({"similarity": {"a": {**SIDES, "rows": {"recipe": "tiny", "set": None}}}}, "set maps names to values"),
        ({"similarity": {"a": {**SIDES, "rows": {"recipe": "tiny", "tap": 3}}}}, "wanted an edge or a pattern"),
        ({"similarity": {"a": {**SIDES, "data": "few"}}, "data": {"sim": SIMULATED, "few": "few"}}, "3 rows in 'few'"),
        ({"vary": {"kmer": [3]}, "report": {"line": ["kmer"]}}, "there is no axis"),
        ({"vary": {"kmer": [3]}, "reference": {"kmer": []}}, "names no option"),
        ({"data": {"sim": {"simulate": {"n": 60, "seed": -1}}}}, "seed is -1; wanted a whole number from 0"),
        ({"data": {"sim": {"simulate": {"n": 60.5}}}}, "n is 60.5; wanted a whole number"),
    ],
)
def test_what_cannot_work_is_told_when_planning(more, said, tmp_path):
    if "few" in more.get("data", {}):
        file = tmp_path / "few.tsv"
        file.write_text("sequence\tfold\ty\n" + "".join(f"{'ACGT'[i] * 40}\t{i}\t{i}\n" for i in range(3)))
        few = {"data": str(file), "sequence": "sequence", "fold": "fold", "targets": ["y"]}
        more = {**more, "data": {**more["data"], "few": few}}
    with pytest.raises(StudyError, match=said):
        plan(load_study({**of(SIMULATED), **more}))


def test_a_matrix_that_cannot_be_made_is_told_and_the_rest_goes_on(tmp_path, monkeypatch):
    study = plan(load_study(of(SIMULATED, similarity={"bad": SIDES, "good": SIDES})))
    real, said = likeness._compared, []

    def broken(one, store):
        if one.name == "bad":
            raise ValueError("no such luck\nand more")
        return real(one, store)

    monkeypatch.setattr(likeness, "_compared", broken)
    assert run_study(study, tmp_path / "out", costs=False, say=said.append).ok
    assert "similarity bad failed: ValueError: no such luck" in said and "similarity good: done" in said
    assert [file.name for file in (tmp_path / "out" / "similarity").iterdir()] == ["good.json"]


def test_sorted_tables_have_the_similarity_of_shuffled_ones(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    letters = [rng.choice(list("ACGT"), 40, p=[(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2])
               for gc in np.linspace(0.1, 0.9, 96)]  # fmt: skip
    rows = [f"{''.join(s)}\t{i % 5}\t{i}" for i, s in enumerate(letters)]
    file = tmp_path / "sorted.tsv"
    file.write_text("\n".join(["sequence\tfold\ty", *rows]) + "\n")
    values = {"data": str(file), "sequence": "sequence", "fold": "fold", "targets": ["y"]}
    study = plan(load_study(of(values, similarity={"a": SIDES})))
    monkeypatch.setattr(likeness, "BATCH", 24)
    seen = []
    monkeypatch.setattr(likeness, "Loader", lambda *a, **k: seen.append(Loader(*a, **k)) or seen[-1])
    assert run_study(study, tmp_path / "out", costs=False).ok
    matrix = json.loads((tmp_path / "out" / "similarity" / "a.json").read_text())["matrix"]
    from agblocks import build

    keep = ["encoder.stage*"]
    built = {str(seed): build("tiny", keep=keep, seed=seed) for seed in (0, 1)}
    taps = study.similarity["a"].rows.taps
    table = read_rows(study.similarity["a"].data).table
    x = one_hot_codes(encode(list(table.sequences)))
    exact, in_order = (
        compare_models(built, taps, torch.split(x, size))["0 vs 1"]["matrix"] for size in (len(x), 24)
    )  # fmt: skip
    off = [np.abs(np.array(made, float) - np.array(exact, float)).max() for made in (matrix, in_order)]
    assert off[0] < 0.05 and off[0] < off[1] / 2, off


def test_folders_that_will_not_do(tmp_path):
    study = planned(PROBES, "vary.fold=['0']")
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(AgblocksError, match="cannot be made"):
            run_study(study, out, costs=False)
    with pytest.raises(WorkError, match="--share ²/3"):
        run_study(study, tmp_path / "out", costs=False, share="²/3")


def test_a_file_system_without_locks_is_said_and_not_waited_for(tmp_path, monkeypatch):
    def refuse(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    store = Store(tmp_path)
    with store.claim("a") as mine:
        assert mine
    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(WorkError, match="written and locked: No locks available"), store.claim("a"):
        pass
    (tmp_path / "other").write_text("x")
    with pytest.raises(WorkError, match="cannot be written"), Store(tmp_path / "other").claim("a"):
        pass


def test_a_model_trained_with_adapters_is_no_start(tmp_path):
    """Its file has the base alone: a probe of it would see what was there before anything was learnt."""
    adapters = "pretrain.base.transfer={adapters: ['locon:glob=encoder.**,role=conv.main,rank=2']}"
    with pytest.raises(StudyError, match="'base' is trained with adapters, and its base's weights without them"):
        planned(TRANSFER, adapters)
    study = of(SIMULATED)
    study["data"]["other"] = {"simulate": {"n": 60, "length": 40, "folds": 5, "seed": 3}}
    study["cell"] = {"data": "other", "recipe": "tiny", "fold": "4", "training": {"epochs": 1}}
    study["cell"]["transfer"] = {"adapters": ["locon:glob=encoder.**,role=conv.main,rank=2"]}
    study["keep"] = "weights"
    made = run_study(plan(load_study(study)), tmp_path / "out", costs=False)
    (cell,) = made.done
    run = tmp_path / "out" / "cells" / cell / "run"
    with pytest.raises(StudyError, match="was trained with adapters"):
        planned(TRANSFER, f"cell.transfer.weights={run}")


@pytest.mark.parametrize("fit", ["kmer", "ridge", "gradient"])
def test_what_was_measured_of_held_out_rows_changes_nothing_that_is_predicted(fit, tmp_path):
    """Nor does a constant on validation rows, which chooses and does not teach; on training rows it does."""
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("ACGT"), 40)) for _ in range(80)]
    y = np.array([s.count("G") for s in letters]) + rng.normal(size=80)
    file = tmp_path / "rows.tsv"
    cell = {"data": "sim", "fold": "0", "valid_fold": "1", "fit": fit, "recipe": "tiny", "kmer": 2}
    cell |= {"tap": "encoder.stage1", "transfer": {"tune": "head"}, "training": {"epochs": 3, "lr": 1e-2}}
    data = {"data": str(file), "sequence": "sequence", "fold": "fold", "targets": ["y"]}

    def predicted(**more):
        held = y.copy()
        for part, change in more.items():
            rows = {"test": [0], "valid": [1], "train": [2, 3]}[part]
            held[np.isin(np.arange(80) % 4, rows)] += change[np.isin(np.arange(80) % 4, rows)]
        lines = [f"{s}\t{i % 4}\t{value:.6f}" for i, (s, value) in enumerate(zip(letters, held, strict=True))]
        file.write_text("\n".join(["sequence\tfold\ty", *lines]) + "\n")
        out = tmp_path / f"{fit}{len(list(tmp_path.iterdir()))}"
        made = run_study(plan(load_study({"study": 1, "data": {"sim": data}, "cell": cell})), out, costs=False)
        assert made.ok, made.failed
        (rows,) = out.glob("cells/*/predictions.parquet")
        return polars.read_parquet(rows)["predicted_y"].to_numpy()

    noise = rng.normal(size=80) * 5
    plain = predicted()
    assert np.array_equal(predicted(test=noise), plain)
    if fit != "gradient":  # whose kept epoch has the least squared error there
        assert np.array_equal(predicted(valid=np.full(80, 3.0)), plain)
    assert not np.allclose(predicted(train=noise), plain)


def test_all_that_changes_a_result_is_part_of_the_address(tmp_path):
    def ids(*overrides):
        return set(planned(PROBES, "controls=[]", *overrides).cells)

    construct = tmp_path / "construct.json"
    construct.write_text(json.dumps({**Construct().to_dict(), "left": "ACGT", "right": "TTTT"}))
    assert not ids() & ids(f"data.sim.construct={construct}")
    assert not ids() & ids("data.sim.simulate={n: 90, length: 40, folds: 5, seed: 4}")
    encoder = "{block: encoder.alphagenome, in: dna, args: {channels: 16, growth: 8, stages: 4}}"
    nodes = f"{{encoder: {encoder}, trunk: {{block: embed.organism, in: {{x: encoder, organism: organism}}}}}}"
    inputs, heads = "{dna: B 4 L, organism: B}", "{activity: {block: head.scalar, in: trunk}}"
    recipe = f"{{recipe: 1, name: two, inputs: {inputs}, nodes: {nodes}, heads: {heads}}}"
    two = (f"cell.recipe={recipe}", "vary.tap=[trunk]", "reference=null")
    assert len(ids(*two, "cell.inputs.organism=0") | ids(*two, "cell.inputs.organism=1")) == 8


def test_what_a_probe_draws_anew_is_drawn_anew(tmp_path):
    """All of it anew is the control of drawn weights; some of it is neither that nor what was loaded."""
    axes = ("vary={tap: [encoder.stage3], anew: {none: {}, some: {transfer.reinit: [encoder.stage2]}, "
            "all: {transfer.reinit: [encoder]}}, seed: [3]}")  # fmt: skip
    made = planned(
        TRANSFER, axes, "cell.fit=ridge", "cell.fold='0'", "controls=[random]", "pretrain.base.training.lr=1e-2"
    )
    assert run_study(made, tmp_path / "out", costs=False).ok
    found = {}
    for entry in made.entries:
        rows = tmp_path / "out" / "cells" / entry.cell / "predictions.parquet"
        found[entry.control or entry.labels["anew"]] = polars.read_parquet(rows)["predicted_activity"].to_numpy()
    assert np.array_equal(found["all"], found["random"])
    assert len({values.tobytes() for values in found.values()}) == 3


def test_a_probe_is_the_ridge_that_one_would_write_down(tmp_path):
    """Drawn weights, pool, standardisation, penalty and rows, against scikit-learn on features of a model by hand."""
    linear = pytest.importorskip("sklearn.linear_model")
    from agblocks import build

    made = planned(PROBES, "vary.fold=['0']", "controls=[]", "cell.seed=2")
    assert run_study(made, tmp_path / "out", costs=False).ok
    seen = set()
    for entry in made.entries:
        cell, tap = made.cells[entry.cell], entry.labels["tap"]
        result = Store(tmp_path / "out").result(cell.id)
        table = read_rows(cell.given["data"]).table
        assert result is not None and table.fold is not None
        model = build("tiny", keep=[tap], seed=2).eval()
        with torch.inference_mode():
            track = model(dna=one_hot_codes(encode(list(table.sequences))), outputs=[tap])[tap]
        x = (track.amax(-1) if entry.labels["pool"] == "peak" else track.mean(-1)).double().numpy()
        train, test = ~np.isin(table.fold, ["0", "1"]), table.fold == "0"
        assert result["rows"]["train"] == train.sum() and result["rows"]["test"] == test.sum()
        spread = x[train].std(0)
        x = (x - x[train].mean(0)) / np.where(spread > 1e-6, spread, np.inf)
        penalty = result["chosen"]["penalty"]["activity"]
        ridge = linear.Ridge(alpha=penalty).fit(x[train], table.targets[train, 0])
        rows = polars.read_parquet(tmp_path / "out" / "cells" / cell.id / "predictions.parquet")
        assert rows["id"].to_list() == [table.ids[i] for i in np.flatnonzero(test)]
        # Weak features: what the prediction varies by is compared.
        wanted, found = ridge.predict(x[test]), rows["predicted_activity"].to_numpy()
        np.testing.assert_allclose(found, wanted, atol=1e-3 * max(np.ptp(wanted), 1e-9) + 1e-9)
        seen.add(found.tobytes())
    assert len(seen) == 4


def test_the_whole_model_fine_tuned_is_whole():
    """Whatever a cell freezes, draws anew, adapts or reads: beside it stands the model of all weights, all trained."""
    for more in (
        "{weights: base, freeze: [encoder.stage1]}", "{weights: base, tune: head, reinit: 'from:encoder.stage1'}",
        "{weights: base, tune: head, unfreeze: '1=full'}", "{weights: base, tune: full, rates: {encoder: 0.1}}",
        "{weights: base, adapters: ['locon:glob=encoder.**,role=conv.main,rank=2']}",
    ):  # fmt: skip
        axes = ("vary.way={frozen: {fit: gradient}, probe: {fit: ridge}}", "controls=[full]", "reference=null")
        made = planned(TRANSFER, *axes, "cell.training.epochs=2", f"cell.transfer={more}")
        (full,) = {entry.cell for entry in made.entries if entry.control == "full"}
        cell = made.cells[full]
        assert cell.document["transfer"] == {"tune": ["full"]} and cell.document["weights"], more
        assert cell.given["parameters"]["trained"] == cell.given["parameters"]["all"], more
        assert "encoder.stage1" not in str(cell.given["recipe"])


def test_validation_scores_of_the_table_are_those_of_validation(tmp_path):
    from agblocks.studies.results import read
    from agblocks.studies.table import table

    assert run_study(plan(load_study(of(SIMULATED))), tmp_path / "out", costs=False).ok
    (row,) = table(read(tmp_path / "out")).iter_rows(named=True)
    (file,) = (tmp_path / "out").glob("cells/*/result.json")
    scores = json.loads(file.read_text())["scores"]
    assert row["valid_pearson"] == scores["valid"][0]["pearson"] != scores["test"][0]["pearson"] == row["pearson"]


def test_the_same_numbers_again_are_no_more_units():
    """A ridge that has no seed stands for all seeds of its fold: once counts, and one fold alone is too few."""
    from agblocks.studies.statistics import Unit, paired

    rng = np.random.default_rng(0)
    groups = {"a": [], "b": []}
    for fold in ("0", "1", "2"):
        y = rng.normal(size=200)
        for name, noise in (("a", 0.5), ("b", 1.0)):
            predicted = y + noise * rng.normal(size=200)
            ids = [f"{fold}-{i}" for i in range(200)]
            groups[name] += [Unit(fold, seed, ids, y, predicted) for seed in ("0", "1", "2")]
    several = paired(groups, "b")["a"]
    once = paired({name: units[::3] for name, units in groups.items()}, "b")["a"]
    assert np.allclose([several.mean, several.low, several.p], [once.mean, once.low, once.p], rtol=1e-6)
    assert several.caveats == once.caveats and (several.units, several.folds, several.seeds) == (3, 3, 1)
    assert several.verdict == "better" and any(said.startswith("one seed") for said in several.caveats)
    assert paired({name: units[:3] for name, units in groups.items()}, "b")["a"].verdict == "few"
