from __future__ import annotations

import copy
import csv
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_helpers import QUICK, SMALL, table_and_splits, two_targets

from agblocks.data import Construct, DataError, Splits, reverse_complement, split_by_fold
from agblocks.training import RunError, Settings, fit, load_run
from agblocks.training.errors import ResumeError
from agblocks.training.run import FILE
from agblocks.training.write import alone

FILES = {
    "model.safetensors",
    "started.json",
    "metrics.json",
    "predictions.tsv",
    "scatter.png",
    "curves.png",
    "rows.tsv",
}

# Fits in a process of its own, and kills it before the n-th training step.
KILLED = """
import os, signal, sys
from agblocks._torchvision import mend
mend()
from training_helpers import QUICK, SMALL, table_and_splits
from agblocks.training import fit
from agblocks.training.module import Fitting
from dataclasses import replace
out, at, ensemble = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
begin, seen = Fitting.on_train_batch_start, 0
def counted(self, batch, batch_idx):
    global seen
    seen += 1
    if seen == at:
        os.kill(os.getpid(), signal.SIGKILL)
    begin(self, batch, batch_idx)
Fitting.on_train_batch_start = counted
fit(SMALL, *table_and_splits(), out, replace(QUICK, ensemble=ensemble), resume=True)
"""


def weights(folder):
    return [{k: v.clone() for k, v in m.state_dict().items()} for m in load_run(folder).models]


def equal(a, b):
    return all(torch.equal(x[k], y[k]) for x, y in zip(a, b, strict=True) for k in x)


def test_a_run_folder(run_folder):
    assert {p.name for p in run_folder.iterdir()} >= FILES
    assert not list(run_folder.rglob("*.part"))
    assert not list(run_folder.rglob("*.ckpt"))
    assert list(run_folder.glob("logs/0/events*"))
    rows = list(csv.DictReader((run_folder / "members" / "0.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert all(float(row["valid_loss"]) > 0 for row in rows)
    run = load_run(run_folder)
    assert run.metrics["test"][0]["pearson_interval"][0] < run.metrics["test"][0]["pearson"]
    assert run.metrics == json.loads((run_folder / "metrics.json").read_text())
    assert not run.model.training


@pytest.mark.parametrize(("at", "ensemble"), [(3, 1), (9, 1), (20, 2)])
def test_resuming_after_kill_gives_the_same_file(run_folder, measured, tmp_path, at, ensemble):
    """Five steps an epoch: killed in the first epoch, in the second, and in the second member."""
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(at), str(ensemble)]
    died = subprocess.run(command, cwd=here, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert not (tmp_path / "run" / FILE).exists()
    settings = replace(QUICK, ensemble=ensemble)
    fit(SMALL, *measured, tmp_path / "run", settings, resume=True)
    if ensemble == 1:
        whole = run_folder
    else:
        whole = tmp_path / "whole"
        fit(SMALL, *measured, whole, settings)
    assert (tmp_path / "run" / FILE).read_bytes() == (whole / FILE).read_bytes()
    for i in range(ensemble):
        history = f"members/{i}.csv"
        assert (tmp_path / "run" / history).read_text() == (whole / history).read_text()


def test_same_seed_same_weights_other_seed_others(run_folder, measured, tmp_path):
    fit(SMALL, *measured, tmp_path / "same", QUICK)
    assert equal(weights(run_folder), weights(tmp_path / "same"))
    fit(SMALL, *measured, tmp_path / "other", replace(QUICK, seed=1))
    assert not equal(weights(run_folder), weights(tmp_path / "other"))


def test_torch_is_left_as_it_was(measured, tmp_path):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    quick = replace(QUICK, epochs=1)
    fit(SMALL, *measured, tmp_path / "run", quick)
    with alone(tmp_path / "run", "training"):  # what is finished is read by as many as like
        assert fit(SMALL, *measured, tmp_path / "run", quick, resume=True).settings.epochs == 1
    model = tmp_path / "run" / FILE
    model.write_bytes(model.read_bytes()[:-9])
    with pytest.raises(ResumeError, match="model.safetensors"):
        fit(SMALL, *measured, tmp_path / "run", quick, resume=True)
    assert torch.equal(torch.rand(3), wanted)
    assert not torch.are_deterministic_algorithms_enabled()


def test_test_rows_never_reach_training(run_folder, measured, tmp_path):
    """Everything about the test rows changed: not one bit of the weights changes."""
    table, splits = measured
    sequences = list(table.sequences)
    targets = table.targets.copy()
    rng = np.random.default_rng(9)
    for row in splits.test:
        sequences[row] = "".join(rng.choice(list("ACGT"), 40))
        targets[row] = 1000.0 + row
    other = replace(table, sequences=tuple(sequences), targets=targets)
    fit(SMALL, other, splits, tmp_path / "run", QUICK)
    assert equal(weights(run_folder), weights(tmp_path / "run"))


def test_a_planted_leak_is_refused(measured, tmp_path):
    table, splits = measured
    sequences = list(table.sequences)
    sequences[splits.test[0]] = reverse_complement(sequences[splits.train[0]])
    with pytest.raises(DataError, match="leak from one part into another"):
        fit(SMALL, replace(table, sequences=tuple(sequences)), splits, tmp_path / "run", QUICK)
    assert not (tmp_path / "run").exists()


def test_folders_with_runs_are_not_written_over(run_folder, measured, tmp_path):
    before = (run_folder / FILE).stat().st_mtime_ns
    with pytest.raises(RunError, match=r"holds a finished run: --overwrite to replace it"):
        fit(SMALL, *measured, run_folder, QUICK)
    with pytest.raises(RunError, match=r"same recipe, data and settings(.|\n)*settings.lr was 0.01, is 0.02"):
        fit(SMALL, *measured, run_folder, replace(QUICK, lr=0.02), resume=True)
    other = replace(measured[0], targets=measured[0].targets + 1)
    with pytest.raises(RunError, match="rows was"):
        fit(SMALL, other, measured[1], run_folder, QUICK, resume=True)
    fit(SMALL, *measured, run_folder, QUICK, resume=True)  # finished: nothing to do
    assert (run_folder / FILE).stat().st_mtime_ns == before
    started = tmp_path / "run"
    started.mkdir()
    (started / "started.json").write_text("{}")
    (started / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"started and not finished: --resume to go on with it"):
        fit(SMALL, *measured, started, QUICK)
    fit(SMALL, *measured, started, replace(QUICK, epochs=1), overwrite=True)
    assert (started / "notes.txt").read_text() == "mine"


def test_a_damaged_checkpoint_is_said(measured, tmp_path):
    (tmp_path / "members").mkdir()
    (tmp_path / "members" / "0.ckpt").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(RunError, match=r"0.ckpt: damaged \(.*\); --overwrite starts anew"):
        fit(SMALL, *measured, tmp_path, QUICK)


def test_several_targets_with_holes(measured, tmp_path):
    table, splits = measured
    both = two_targets(table)
    with pytest.raises(RunError, match=r"gives 1 values, but has 2 targets: activity, other; set activity.targets=2"):
        fit(SMALL, both, splits, tmp_path / "run", QUICK)
    run = fit(SMALL, both, splits, tmp_path / "run", replace(QUICK, epochs=1), overrides=["activity.targets=2"])
    assert run.target_names == ("activity", "other")
    a, b = run.metrics["test"]
    assert 0 < b["n"] < a["n"]


def test_early_stopping_keeps_the_best(measured, tmp_path):
    run = fit(SMALL, *measured, tmp_path / "run", replace(QUICK, epochs=40, patience=2, lr=0.03, ema=0.0))
    rows = list(csv.DictReader((tmp_path / "run/members/0.csv").open()))
    kept = run.metrics["members"][0]["kept"]
    scores = [float(row["valid_pearson"] or "nan") for row in rows]
    assert kept["valid_pearson"] == pytest.approx(np.nanmax(scores))
    assert len(rows) < 40
    assert len(rows) - kept["epoch"] == 2
    # the stored score is that of the stored weights
    assert run.metrics["valid"][0]["pearson"] == pytest.approx(kept["valid_pearson"], abs=1e-5)


def test_without_validation_rows_the_last_epoch_is_kept(measured, tmp_path):
    table, _ = measured
    splits = split_by_fold(table, valid=(), test="0")
    run = fit(SMALL, table, splits, tmp_path / "run", replace(QUICK, epochs=2))
    assert run.metrics["members"][0]["kept"]["epoch"] == 2


@pytest.mark.parametrize("change", [{"schedule": "onecycle"}, {"schedule": "constant", "ema": 0.0}, {"clip": 0.0}])
def test_other_settings_train(measured, tmp_path, change):
    run = fit(SMALL, *measured, tmp_path / "run", replace(QUICK, epochs=2, **change))
    assert run.metrics["members"][0]["epochs"] == 2


def test_a_loss_that_explodes_is_said(measured, tmp_path):
    table, splits = measured
    huge = replace(table, targets=table.targets * np.float32(1e30))
    with pytest.raises(RunError, match=r"the training loss became inf in epoch 1; a lower lr"):
        fit(SMALL, huge, splits, tmp_path / "run", replace(QUICK, standardise=False))


def test_what_does_not_fit_is_said_before_training(measured, tmp_path):
    table, splits = measured
    out = tmp_path / "run"
    fixed = {**SMALL, "inputs": {"dna": "B 4 41"}}
    with pytest.raises(DataError, match=r"200 of 200 sequences.* it wants 41 bases"):
        fit(fixed, table, splits, out, QUICK)
    with pytest.raises(DataError, match="construct's adapters"):
        fit(SMALL, table, splits, out, QUICK, construct=Construct(strip_left="ACGTACGTA"))
    with pytest.raises(RunError, match="there is no head 'activty'; did you mean activity"):
        fit(SMALL, table, splits, out, QUICK, heads={"activty": ["activity"]})
    with pytest.raises(RunError, match="there is no whole-number input 'organism'"):
        fit(SMALL, table, splits, out, QUICK, inputs={"organism": 0})
    flat = replace(table, targets=np.ones_like(table.targets))
    with pytest.raises(RunError, match="'activity' has no spread in the training rows"):
        fit(SMALL, flat, splits, out, QUICK)
    with pytest.raises(RunError, match="no training rows"):
        fit(SMALL, table, Splits(np.arange(0), splits.valid, splits.test), out, QUICK)
    assert not out.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": 0.0}, "lr is 0"),
        ({"epochs": 0}, "epochs is 0, wanted a whole number from 1"),
        ({"epochs": 1.5}, "epochs is 1.5"),
        ({"ema": 1.0}, "ema is 1"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"schedule": "cosin"}, "schedule is 'cosin'; did you mean cosine"),
        ({"shift_mode": "flanks", "shift": 3, "shift_scope": "insert"}, "fill='flanks'"),
        ({"batch_size": True}, "batch_size is True"),
        ({"epochs": 0, "lr": -1.0}, "epochs is 0.*; lr is -1.0"),
    ],
)
def test_settings_are_checked(wrong, message):
    with pytest.raises(RunError, match=message):
        Settings(**wrong)


def test_settings_round_trip():
    assert Settings.from_dict(json.loads(json.dumps(QUICK.to_dict()))) == QUICK
    with pytest.raises(RunError, match="there is no 'batchsize'; did you mean batch_size"):
        Settings.from_dict({**QUICK.to_dict(), "batchsize": 1})


def test_variable_lengths_train(tmp_path):
    table, splits = table_and_splits()
    cut = tuple(s[: 40 - i % 3] for i, s in enumerate(table.sequences))
    run = fit(SMALL, replace(table, sequences=cut), splits, tmp_path / "run", replace(QUICK, epochs=1))
    assert run.metrics["test"][0]["n"] == len(splits.test)


def narrow(stem, last):
    """Pooled to one position, at which the last norm stands."""
    recipe = copy.deepcopy(SMALL)
    recipe["nodes"]["stem"]["args"]["norm"] = stem
    recipe["nodes"]["pool"] = {"block": "pool.max", "in": "stem", "args": {"pool": 128}}
    recipe["nodes"]["last"] = {"block": "conv.block", "in": "pool", "args": {"channels": 8, "kernel": 1, "norm": last}}
    recipe["heads"]["activity"]["in"] = "last"
    return recipe


@pytest.mark.parametrize(("stem", "last", "left_out"), [("none", "batch", 2), ("batch", "rms", 0), ("none", "none", 0)])
def test_rows_that_alone_have_their_length(tmp_path, stem, last, left_out):
    """Torch's batch norm over one position refuses a batch of one in the middle of training; over tracks it takes it."""
    table, splits = table_and_splits()
    sequences = list(table.sequences)
    for cut, row in enumerate(splits.train[[5, 9]].tolist(), 1):
        sequences[row] = sequences[row][:-cut]
    own = replace(table, sequences=tuple(sequences))
    told = []
    run = fit(narrow(stem, last), own, splits, tmp_path / "out", replace(QUICK, epochs=1), told=told.append)
    said = [text for text in told if "left out" in text]
    assert len(said) == bool(left_out) and all(f"2 of {len(splits.train)} training rows are" in text for text in said)
    assert all("(38, 39)" in text and "'small' sees one value" in text for text in said)
    assert run.data["rows"]["train"] == len(splits.train) - left_out
    parts = [line.split("\t")[0] for line in (tmp_path / "out" / "rows.tsv").read_text().splitlines()[1:]]
    assert parts.count("train") == len(splits.train) - left_out and parts.count("test") == len(splits.test)


def test_rows_of_which_each_has_a_length_of_its_own(tmp_path):
    table, splits = table_and_splits(rows=30, length=90)
    own = replace(table, sequences=tuple(s[: 90 - i] for i, s in enumerate(table.sequences)))
    assert fit(narrow("batch", "rms"), own, splits, tmp_path / "tracks", replace(QUICK, epochs=1)).data["rows"][
        "train"
    ] == len(splits.train)
    with pytest.raises(DataError, match=r"rows are left out: .* a construct that pads gives all one length"):
        fit(narrow("batch", "batch"), own, splits, tmp_path / "out", replace(QUICK, epochs=1))
    assert not (tmp_path / "out").exists()


def test_two_trainings_into_one_folder(measured, tmp_path):
    """srun starts one process a task, also where fit was not told of them (`--devices`)."""
    with (
        alone(tmp_path / "run", "training"),
        pytest.raises(RunError, match=r"run: another process is training into it$"),
    ):
        fit(SMALL, *measured, tmp_path / "run", QUICK, overwrite=True)
    assert not list((tmp_path / "run").iterdir())
    fit(SMALL, *measured, tmp_path / "run", replace(QUICK, epochs=1))


def test_a_target_that_no_validation_row_can_tell_is_left_out_of_their_mean(tmp_path):
    """One assay's rows are all alike, or not measured, in the validation fold: the other still chooses the epoch."""
    recipe = copy.deepcopy(SMALL)
    recipe["heads"]["activity"]["args"]["targets"] = 2
    for value in (1.25, math.nan):
        table, splits = table_and_splits()
        table = two_targets(table)
        table.targets[splits.valid, 1] = value
        run = fit(recipe, table, splits, tmp_path / f"{value}", QUICK)
        rows = list(csv.DictReader((tmp_path / f"{value}" / "members" / "0.csv").open()))
        scored = {s["target"]: s["pearson"] for s in run.metrics["valid"]}
        kept = run.metrics["members"][0]["kept"]
        assert scored["other"] is None and kept["valid_pearson"] == pytest.approx(scored["activity"], abs=1e-6)
        assert kept["valid_pearson"] == pytest.approx(max(float(row["valid_pearson"]) for row in rows))
