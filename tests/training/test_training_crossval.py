from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from training_helpers import QUICK, SMALL, table_and_splits

from agblocks.data import fold_groups
from agblocks.training import RunError, crossval


def test_every_fold_is_held_out_once_and_finished_folds_are_skipped(tmp_path):
    table, _ = table_and_splits(150)
    table = replace(table, fold=fold_groups(np.arange(150), folds=3))
    settings = replace(QUICK, epochs=1)
    told = []
    made = crossval(SMALL, table, tmp_path, settings, kmer=2, told=told.append)
    assert [(f.test, f.valid) for f in made.folds] == [("0", "1"), ("1", "2"), ("2", "0")]
    assert told == list(made.folds)
    assert {what: s[0].n for what, s in made.pooled.items()} == {"model": 150, "ridge": 150}
    (model, ridge) = made.summary()
    assert model["mean"] == pytest.approx(np.mean([f.scores["model"][0].pearson for f in made.folds]))
    assert model["over_ridge"] == pytest.approx(model["mean"] - ridge["mean"])
    assert json.loads((tmp_path / "crossval.json").read_text())["summary"] == made.summary()
    assert (tmp_path / "crossval.png").stat().st_size > 0
    assert len((tmp_path / "crossval.tsv").read_text().splitlines()) == 7
    files = [tmp_path / f"fold-{i}" / "model.safetensors" for i in range(3)]
    before = [f.stat().st_mtime_ns for f in files]
    again = crossval(SMALL, table, tmp_path, settings, kmer=2)
    assert [f.stat().st_mtime_ns for f in files] == before
    assert again.summary() == made.summary()


def test_folds_are_needed(tmp_path):
    table, _ = table_and_splits(30)
    with pytest.raises(RunError, match="needs folds"):
        crossval(SMALL, replace(table, fold=None), tmp_path, QUICK)
    with pytest.raises(RunError, match="there is no fold '77'"):
        crossval(SMALL, table, tmp_path, QUICK, only=["77"])
