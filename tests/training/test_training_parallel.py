"""Several processes train as one does; most tests start processes, which takes seconds."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from parallel_helpers import NORMS, SETTINGS, Failing, Killed, difference, history, leaving, rows
from torch import nn

from agblocks.data import Loader
from agblocks.training import RunError, Settings, fit, load_run
from agblocks.training.parallel.norms import synchronised
from agblocks.training.parallel.processes import cluster, is_first, once

CURVE = 1e-4  # relative difference of any score of any epoch
WEIGHTS = 1e-4  # difference of any weight, relative to the largest of its tensor


def same(folder, other, members=1):
    """Loss curves, best epoch, weights and scores of two runs."""
    for member in range(members):
        a, b = history(folder, member), history(other, member)
        assert [set(row) for row in a] == [set(row) for row in b]
        for mine, theirs in zip(a, b, strict=True):
            assert mine == pytest.approx(theirs, rel=CURVE, abs=1e-6)
    one, two = load_run(folder), load_run(other)
    for a, b in zip(one.metrics["members"], two.metrics["members"], strict=True):
        assert a["kept"]["epoch"] == b["kept"]["epoch"]
        assert a["seed"] == b["seed"]
    for a, b in zip(one.models, two.models, strict=True):
        assert difference(a, b) < WEIGHTS
    assert {p.name for p in folder.iterdir()} == {p.name for p in other.iterdir()}
    assert not list(other.rglob("*.part"))
    assert not list(other.rglob("*.ckpt"))
    assert not multiprocessing.active_children()


@pytest.fixture(scope="module")
def measured():
    """Five batches an epoch, the last of three rows."""
    table, splits = rows()
    return table, leaving(splits, 3)


@pytest.fixture(scope="module")
def alone(measured, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone") / "run"
    fit(NORMS, *measured, folder, SETTINGS)
    return folder


def test_two_processes_give_what_one_gives(alone, measured, tmp_path):
    """Loss curve, best epoch, weights, scores: with batch norms, missing targets, a moving average, an odd last batch."""
    out = tmp_path / "run"
    run = fit(NORMS, *measured, out, replace(SETTINGS, devices=2))
    same(alone, out)
    assert run.settings.devices == 2
    assert len(list(out.glob("logs/0/events*"))) == 1


@pytest.mark.slow
def test_sharded_over_two_processes(alone, measured, tmp_path):
    fit(NORMS, *measured, tmp_path / "run", replace(SETTINGS, devices=2, strategy="fsdp"))
    same(alone, tmp_path / "run")


@pytest.mark.slow
def test_a_batch_with_fewer_rows_than_processes(measured, tmp_path):
    """Two rows for three processes, in the last batch of training and perhaps of validation."""
    table, splits = measured
    splits, settings = leaving(splits, 2), replace(SETTINGS, ema=0.0)
    fit(NORMS, table, splits, tmp_path / "one", settings)
    fit(NORMS, table, splits, tmp_path / "three", replace(settings, devices=3))
    same(tmp_path / "one", tmp_path / "three")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_what_joins_later(measured, tmp_path, strategy):
    """Parameters that are frozen when the processes meet; and an ensemble of two."""
    settings = replace(SETTINGS, tune="head", unfreeze="1=block,2=full", ensemble=2)
    fit(NORMS, *measured, tmp_path / "one", settings)
    fit(NORMS, *measured, tmp_path / "two", replace(settings, devices=2, strategy=strategy))
    same(tmp_path / "one", tmp_path / "two", members=2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_adapters(measured, tmp_path, strategy):
    adapters = ["locon:role=conv.main,rank=2"]
    fit(NORMS, *measured, tmp_path / "one", SETTINGS, adapters=adapters)
    fit(NORMS, *measured, tmp_path / "two", replace(SETTINGS, devices=2, strategy=strategy), adapters=adapters)
    same(tmp_path / "one", tmp_path / "two")
    assert difference(load_run(tmp_path / "one").model.bank, load_run(tmp_path / "two").model.bank) < WEIGHTS


@pytest.mark.slow
@pytest.mark.parametrize("then", [{}, {"devices": 2, "strategy": "fsdp"}])
def test_a_process_is_killed_and_another_number_goes_on(alone, measured, tmp_path, then):
    with pytest.raises(RunError, match=r"process 1 was killed by SIGKILL; the run is as after its last whole epoch"):
        fit(NORMS, *measured, tmp_path / "run", replace(SETTINGS, devices=2), work=Killed)
    assert not multiprocessing.active_children()
    assert len(history(tmp_path / "run")) == 1
    fit(NORMS, *measured, tmp_path / "run", replace(SETTINGS, **then), resume=True)
    same(alone, tmp_path / "run")


@pytest.mark.slow
def test_one_process_that_fails_ends_all_with_its_words(measured, tmp_path):
    with pytest.raises(RunError, match=r"process 1 of 2 failed(.|\n)*OutOfMemoryError: only here"):
        fit(NORMS, *measured, tmp_path / "run", replace(SETTINGS, devices=2), work=Failing)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_error_of_ours_is_told_as_it_is(measured, tmp_path):
    table, splits = measured
    huge = replace(table, targets=table.targets * np.float32(1e30))
    with pytest.raises(RunError, match=r"^the training loss became inf in epoch 1"):
        fit(NORMS, huge, splits, tmp_path / "run", replace(SETTINGS, devices=2, standardise=False))


# Without processes


@given(size=st.integers(1, 5), batch=st.integers(5, 40), epoch=st.integers(0, 3))
def test_shares_are_the_batch(measured, size, batch, epoch):
    table, splits = measured
    whole, *parts = (Loader(table, splits.train, batch_size=batch, shuffle=True, seed=1) for _ in range(size + 1))
    for number, part in enumerate(parts):
        part.share = (number, size)
    for loader in (whole, *parts):
        loader.start(epoch)
    for batches in zip(whole, *parts, strict=True):
        all_rows, *own = (b["index"] for b in batches)
        if len(all_rows) < size or size == 1:
            assert all(
                torch.equal(rows, all_rows) and "shares" not in b for rows, b in zip(own, batches[1:], strict=True)
            )
        else:
            assert torch.equal(torch.cat(own), all_rows)
            assert all(b["shares"] == [len(rows) for rows in own] for b in batches[1:])
            assert max(map(len, own)) - min(map(len, own)) <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"devices": 0}, "devices is 0, wanted a whole number from 1"),
        ({"devices": 4, "nodes": 2, "batch_size": 7}, "batch_size is 7 over 8 processes"),
        ({"strategy": "fsdp"}, "strategy is fsdp, which spreads a model over devices"),
        ({"strategy": "fsdp", "devices": 2, "precision": "16-mixed"}, "wanted bf16-mixed"),
        ({"strategy": "dpp"}, "strategy is 'dpp'; did you mean ddp"),
    ],
)
def test_settings(wrong, message):
    with pytest.raises(RunError, match=message):
        Settings(**wrong)


def test_who_started_the_processes(monkeypatch, measured, tmp_path):
    for name in [name for name in os.environ if name.startswith(("SLURM", "TORCHELASTIC"))]:
        monkeypatch.delenv(name)
    assert cluster(Settings()) is None
    assert cluster(Settings(devices=2)) is None
    with pytest.raises(RunError, match="nodes is 2, but nobody started this process on several"):
        fit(NORMS, *measured, tmp_path / "run", Settings(nodes=2))
    assert not (tmp_path / "run").exists()
    job = {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1", "SLURM_JOB_ID": "77"}
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    assert cluster(Settings(devices=2)) is None  # the job's script itself
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    with pytest.raises(RunError, match="srun started 4 processes by --ntasks; wanted --ntasks-per-node=2"):
        cluster(Settings(devices=2, nodes=2))
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    there = cluster(Settings(devices=2, nodes=2))
    assert (there.world_size(), there.global_rank(), there.local_rank(), there.node_rank()) == (4, 3, 1, 1)
    assert not is_first(Settings(devices=2, nodes=2))
    with pytest.raises(RunError, match="srun started 4 processes, --devices 2 --nodes 1 are 2"):
        cluster(Settings(devices=2))
    assert cluster(Settings()) is None  # each for itself, as before


def test_norms_that_are_not_known_are_refused():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("running_mean", torch.zeros(1))

    with (
        pytest.raises(RunError, match="'1' is a Odd with running statistics"),
        synchronised(nn.Sequential(nn.ReLU(), Odd())),
    ):
        pass


def test_norms_are_given_back():
    model = nn.Sequential(nn.Conv1d(4, 3, 1), nn.BatchNorm1d(3))
    x = torch.randn(5, 4, 7)
    with synchronised(model):
        here = model(x)
    assert "forward" not in model[1].__dict__
    assert torch.equal(here, model(x))


def test_once_is_just_doing_it_alone():
    assert once(lambda: 3) == 3
