"""A transfer said in any form is the same one; what it cannot do is told; what is kept is what was asked for."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from training_helpers import QUICK, SMALL, table_and_splits

from agblocks import build, resolve
from agblocks.training import RunError, Settings, Transfer, TransferError, crossval, fit
from agblocks.training.tuning.stages import stages
from agblocks.training.tuning.transfer import said_once

PLAIN = replace(QUICK, ema=0.0)


@pytest.fixture(scope="module")
def measured():
    return table_and_splits(rows=80)


@pytest.mark.parametrize(
    ("said", "transfer"),
    [
        ({"rates": "head=2"}, {"rates": {"head": 2}}),
        ({"rates": "stem=1e-1,head=2"}, {"rates": {"head": 2.0, "stem": 0.1}}),
        ({"unfreeze": "plateau:5x1e-1=full"}, {"unfreeze": [{"plateau": 5, "train": "full", "lr": 0.1}]}),
        ({"unfreeze": " 1 = stem"}, {"unfreeze": {"after": 1, "train": "stem"}}),
    ],
)
def test_numbers_however_they_are_written_are_the_same_settings(said, transfer):
    there = replace(PLAIN, tune="head", **said)
    assert there == said_once({"tune": "head", **transfer}, PLAIN)[0]
    assert said_once(transfer, there)[0] == there  # said twice, and the same


def test_a_run_goes_on_whichever_way_it_is_said(measured, tmp_path):
    fit(SMALL, *measured, tmp_path / "run", replace(PLAIN, epochs=1, rates="head=2"))
    there = fit(
        SMALL, *measured, tmp_path / "run", replace(PLAIN, epochs=1), transfer={"rates": {"head": 2}}, resume=True
    )
    assert there.settings == Settings.from_dict(there.settings.to_dict())


@pytest.mark.parametrize("name", ["unfreeze", "rates", "tune", "weights", "reinit"])
def test_another_type_is_told_with_its_path(measured, tmp_path, name):
    with pytest.raises(TransferError, match=f"transfer.{name}: 5; wanted "):
        fit(SMALL, *measured, tmp_path / "run", PLAIN, transfer={name: 5})


@pytest.mark.parametrize(
    ("transfer", "path"),
    [({"tune": "full"}, "tune"), ({"tune": "head", "unfreeze": "plateau:2=full"}, r"unfreeze\[0\]")],
)
def test_everything_beside_adapters_is_told_by_a_check(transfer, path):
    said = Transfer.from_dict({**transfer, "adapters": ["lora:role=conv.main,rank=2"]})
    with pytest.raises(TransferError, match=f"transfer.{path}: everything, and adapters are for a frozen base"):
        said.check(resolve(SMALL))
    replace(said, adapters=None).check(resolve(SMALL))


def test_a_plateau_waits_for_what_joins_before_it():
    settings = Settings(tune="head", unfreeze="1=a,5=b,plateau:3=c,2=d,plateau:1=full", epochs=50)
    worse = [-float(epoch) for epoch in range(50)]
    begun = [[stage.begun for stage in stages(worse[:seen], settings)] for seen in range(12)]
    # Three epochs after the fifth, though the best was the first; then one after its second.
    assert begun == [[0]] * 8 + [[0, 8]] * 3 + [[0, 8, 11]]


@pytest.mark.parametrize("unfreeze", ["", "plateau:9=full"])
def test_the_last_epoch_is_kept_where_no_plateau_came(measured, tmp_path, unfreeze):
    settings = replace(PLAIN, tune="head", unfreeze=unfreeze, keep="last", lr=0.3, epochs=4)
    run = fit(SMALL, *measured, tmp_path / "run", settings)
    scores = [line.split(",")[5] for line in (tmp_path / "run/members/0.csv").read_text().splitlines()[1:]]
    assert np.argmax(np.array(scores, float)) < 3, "the best is the last: the test shows nothing"
    assert run.metrics["members"][0]["kept"]["epoch"] == 4


def test_a_plateau_of_a_correlation_that_there_is_none_of(measured, tmp_path):
    table, splits = measured
    targets = table.targets.copy()
    targets[splits.valid] = 1.0
    table = replace(table, targets=targets)
    settings = replace(PLAIN, tune="head", unfreeze="plateau:1=full", epochs=4)
    with pytest.raises(RunError, match=r"correlation, which .* \(activity: all measurements are 1\); say monitor"):
        fit(SMALL, table, splits, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
    for fitting in ({"monitor": "loss"}, {"unfreeze": "plateau:1:2=full"}):
        assert fit(SMALL, table, splits, tmp_path / "run", replace(settings, **fitting), overwrite=True)


def test_sources_of_one_name_are_told_apart(measured, tmp_path, monkeypatch):
    folders = [tmp_path / "a" / "fold-0", tmp_path / "b" / "fold-0", tmp_path / "drawn"]
    for folder in folders:
        fit(SMALL, *measured, folder, replace(PLAIN, epochs=1))
    told: list[str] = []
    loads = [{"from": str(folders[0]), "into": ["stem"]}, {"from": str(folders[1]), "into": ["activity"]}]
    quick = replace(PLAIN, epochs=1)
    fit(SMALL, *measured, tmp_path / "run", quick, transfer={"weights": loads}, told=told.append)
    assert all(str(folder) in told[-1] for folder in folders[:2])
    monkeypatch.chdir(folders[0])
    for source in (folders[2], "."):
        told.clear()
        fit(SMALL, *measured, tmp_path / "run", quick, weights=source, told=told.append, overwrite=True)
        assert len(told) == 2, "loaded weights without a table"
        assert f" {folders[2] if source != '.' else folders[0]} " in told[1]


def test_folds_say_once_what_trains(measured, tmp_path):
    told: list[str] = []
    quick = replace(PLAIN, epochs=1, tune="head")
    crossval(SMALL, measured[0], tmp_path / "out", quick, only=["0", "1"], kmer=0, planned=told.append)
    assert len(told) == 1
    assert "activity" in told[0]


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_what_it_lacks(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from agblocks.data import simulate_mpra, split_by_fold\n"
        "from agblocks.training import Settings, fit\n"
        "table, _ = simulate_mpra(60, 40, seed=0, sites=2.0)\n"
        "splits = split_by_fold(table, valid='1', test='0')\n"
        f"fit('mpra_small', table, splits, {str(tmp_path / 'run')!r}, Settings(epochs=1, device='cpu', devices=2))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode
    assert 'fit has to stand below `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("epochs", "moves"), [(4, False), (5, True)])
def test_epochs_after_a_plateau_are_counted_from_it(measured, tmp_path, epochs, moves):
    """Two epochs, a plateau, two more, and only then the stem's weights."""
    policy = replace(PLAIN, tune="not:**.weight", unfreeze="plateau:1:2=head,2=stem", epochs=epochs, keep="last")
    run = fit(SMALL, *measured, tmp_path / "run", policy)
    fresh, trained = (dict(m.named_parameters()) for m in (build(SMALL, seed=PLAIN.seed), run.models[0]))
    weights = [name for name in fresh if name.startswith("stem.") and name.endswith(".weight")]
    assert weights
    assert [not torch.equal(fresh[name], trained[name]) for name in weights] == [moves] * len(weights)
    assert run.metrics["members"][0]["stages"] == [0, 2]
