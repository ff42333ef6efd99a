"""Hub repositories, with the library's calls put in: what is asked of it, and what is said before a download."""

from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from helpers import backwards
from safetensors.torch import save_file

import agblocks
from agblocks.weights import WeightsError, load_weights

SIZES = ("encoder.channels=8", "encoder.growth=4", "activity.hidden=[4]")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A repository of two files, and the calls that are made."""
    model = agblocks.build("alphagenome_encoder_mpra", *SIZES)
    state, _ = backwards(model, "alphagenome-pytorch")
    folder = tmp_path / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    save_file({k: v.contiguous() for k, v in state.items()}, folder / "model.safetensors")
    torch.save(state, folder / "model.pth")
    calls = []
    card = SimpleNamespace(license="other", license_name="their-terms", license_link="LICENSE.md")
    names = ["README.md", "model.pth", "model.safetensors"]

    class Api:
        def model_info(self, name, revision=None):
            calls.append(("info", name, revision))
            siblings = [SimpleNamespace(rfilename=n) for n in names]
            return SimpleNamespace(sha=COMMIT, siblings=siblings, card_data=card, gated="manual")

    def download(name, file, revision=None):
        calls.append(("download", name, file, revision))
        return str(folder / file)

    def snapshot(name, revision=None, local_files_only=False, **_):
        calls.append(("snapshot", name, revision, local_files_only))
        if revision not in (None, COMMIT):
            raise FileNotFoundError(f"no {revision} here")
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return SimpleNamespace(calls=calls, state=state, folder=folder, names=names, model=model)


def test_the_revision_is_resolved_pinned_and_told(repository, capsys):
    report = load_weights(repository.model, "lab/alphagenome", revision="v1")
    assert repository.calls == [
        ("info", "lab/alphagenome", "v1"),
        ("download", "lab/alphagenome", "model.safetensors", COMMIT),
    ]
    assert report.revision == COMMIT
    assert str(report).startswith(f"lab/alphagenome/model.safetensors at {COMMIT}: alphagenome-pytorch")
    said = capsys.readouterr().err
    assert f"lab/alphagenome at {COMMIT}: licence other, their-terms, LICENSE.md; gated (manual)" in said


def test_the_licence_is_shown_before_the_download(repository, monkeypatch, capsys):
    def refused(*_, **__):
        raise PermissionError("gated: accept the conditions first")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refused)
    before = {name: value.clone() for name, value in repository.model.state_dict().items()}
    with pytest.raises(WeightsError, match="not fetched from the hub: PermissionError: gated: accept"):
        load_weights(repository.model, "lab/alphagenome")
    assert "licence other" in capsys.readouterr().err
    assert all(torch.equal(value, before[name]) for name, value in repository.model.state_dict().items())


def test_a_file_may_be_named(repository):
    load_weights(repository.model, "lab/alphagenome", file="model.pth")
    assert repository.calls[-1] == ("download", "lab/alphagenome", "model.pth", COMMIT)
    with pytest.raises(WeightsError, match=r"there is no file 'model\.pt'; did you mean model\.pth"):
        load_weights(repository.model, "lab/alphagenome", file="model.pt")
    repository.names[1:] = []
    with pytest.raises(WeightsError, match=r"there are no weights; it has README\.md"):
        load_weights(repository.model, "lab/alphagenome")


def test_offline_asks_nobody(repository, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    report = load_weights(repository.model, "lab/alphagenome")
    assert repository.calls == [("snapshot", "lab/alphagenome", None, True)]
    assert report.revision == COMMIT
    with pytest.raises(WeightsError, match=r"lab/alphagenome at v2: not in the cache, and HF_HUB_OFFLINE is set"):
        load_weights(repository.model, "lab/alphagenome", revision="v2")


def test_paths_come_before_repositories(repository, tmp_path, monkeypatch):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "alphagenome").symlink_to(repository.folder)
    monkeypatch.chdir(tmp_path)
    load_weights(repository.model, "lab/alphagenome")
    assert repository.calls == []
    with pytest.raises(WeightsError, match="there is no such file"):
        load_weights(repository.model, "lab/gone.safetensors")
    assert repository.calls == []
