"""What a careful stranger tried: files that change, names that are no names, folders and file systems that won't do."""

import errno
import fcntl
import json

import numpy as np
import pytest
import torch
from study_helpers import PROBES, planned

from agblocks.data import Loader, encode, one_hot_codes
from agblocks.errors import AgblocksError
from agblocks.studies import StudyError, WorkError, likeness, load_study, plan, run_study
from agblocks.studies.rows import read_rows
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
    with pytest.raises(WorkError, match="has no locks: No locks available"), store.claim("a"):
        pass
    (tmp_path / "other").write_text("x")
    with pytest.raises(WorkError, match="cannot be written"), Store(tmp_path / "other").claim("a"):
        pass
