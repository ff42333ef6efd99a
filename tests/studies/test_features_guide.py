"""The guide to features: its code runs in turn, and says what the code does."""

import re
from pathlib import Path

import torch
from features_helpers import NET, net, sequences, table_and_splits

from agblocks.studies.features import Memory, Store, Tap, extract, usable
from agblocks.studies.features.foreseen import foreseen
from agblocks.studies.features.pool import pooled
from agblocks.studies.features.training import OnFeatures
from agblocks.studies.store import Store as Folder
from agblocks.training import Settings, fit

GUIDE = (Path(__file__).parents[2] / "docs" / "features.md").read_text()


def test_the_code_runs_in_turn(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for number, code in enumerate(re.findall(r"```python\n(.*?)\n```", GUIDE, re.DOTALL)):
        exec(compile(code, f"block {number} of docs/features.md", "exec"), space)
    said = capsys.readouterr().out
    assert "cut at encoder.stage" in said and "frozen nodes run once for each of" in said
    assert "torch.Size([1, " in said and "(200, " in said
    assert {path.name for path in tmp_path.iterdir()} == {"features", "run"}


def test_windows_of_pools():
    model, texts = net(), sequences(4, lengths=(41,))
    found = extract(
        model, {"all": Tap("stem"), "middle": Tap("stem", "mean", 8), "wide": Tap("stem", "mean", 99)}, texts
    )
    track = extract(model, {"x": Tap("stem", "none")}, texts)["x"].tensor()
    torch.testing.assert_close(found["middle"].tensor(), track[..., 16:24].mean(-1))
    assert found["middle"].space != found["all"].space
    assert torch.equal(found["wide"].tensor(), found["all"].tensor())
    assert torch.equal(pooled(track, "center", 3), pooled(track, "mean", 3))


def test_training_without_room_runs_as_usual(tmp_path):
    table, splits = table_and_splits()
    settings = Settings(epochs=1, tune="head", device="cpu", batch_size=16)
    said = []

    def work(*rows):
        return OnFeatures(*rows, store=Store(tmp_path / "features", limit=1000), told=said.append)

    assert usable(net(), settings) is None
    kept = fit(NET, table, splits, tmp_path / "kept", settings, work=work)
    assert len(said) == 1 and re.match("features are not kept: .* but the limit is", said[0])
    plain = fit(NET, table, splits, tmp_path / "plain", settings)
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, kept.model.state_dict()[name])


def test_where_a_study_keeps_features(tmp_path):
    folder = Folder(tmp_path)
    assert (folder.features.folder, folder.features.limit) == (tmp_path / "features", 20_000_000_000)
    folder.keep_features(tmp_path / "shared", None)
    again = Folder(tmp_path).features
    assert (again.folder, again.limit) == (tmp_path / "shared", None)
    folder.keep_features(None, 5)
    assert (Folder(tmp_path).features.folder, Folder(tmp_path).features.limit) == (tmp_path / "features", 5)


def test_memory_keeps_what_it_is_given():
    store = Memory()
    extract(net(), {"x": Tap("stem")}, sequences(3), store=store)
    assert len(extract(net(), {"x": Tap("stem")}, sequences(3), store=store)["x"]) == 3


def test_what_a_study_says_before_anything_runs():
    settings = Settings(epochs=2).to_dict()
    assert foreseen(NET, settings, {"tune": "head"}) is None
    assert foreseen(NET, settings, {"tune": "head", "weights": [{"from": "nowhere"}]}) is None
    assert "stem.conv.weight trains" in foreseen(NET, settings, {})
    later = {"tune": "head", "unfreeze": [{"after": 1, "train": "full"}]}
    assert "trains, later" in foreseen(NET, settings, later)
    adapters = {"tune": "head", "adapters": ["lora:role=conv.main,rank=2"]}
    assert "the recipe has adapters (lora" in foreseen(NET, settings, adapters)
    shifted = Settings(epochs=2, shift=3).to_dict()
    assert "shifts sequences by up to 3 bases" in foreseen(NET, shifted, {"tune": "head"})
    assert "nothing that comes first is frozen" in foreseen(NET, shifted, {})
