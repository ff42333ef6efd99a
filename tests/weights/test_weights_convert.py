"""`agblocks convert`: files of ours, and the way back."""

import json
import sys

import pytest
import torch
from helpers import backwards
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import agblocks
from agblocks.cli import app
from agblocks.weights import WeightsError, convert, load_weights

SIZES = ("encoder.channels=8", "encoder.growth=4")
HEAD = "activity.hidden=[4]"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """AlphaGenome whole, in their names; one that has no track means."""
    state, _ = backwards(agblocks.build("alphagenome_small", *SIZES, device="meta"), "alphagenome-pytorch")
    path = tmp_path_factory.mktemp("theirs") / "theirs.safetensors"
    save_file({k: v.contiguous() for k, v in state.items() if not k.endswith("track_means")}, path)
    return path


def test_there_and_back(file, tmp_path):
    ours = tmp_path / "ours.safetensors"
    report = convert(file, ours, "alphagenome_small", *SIZES)
    direct = agblocks.build("alphagenome_small", *SIZES, device="meta")
    load_weights(direct, file)
    state = load_file(ours)  # the library reads it
    assert state.keys() == direct.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in direct.state_dict().items())
    again = agblocks.build("alphagenome_small", *SIZES, device="meta")
    back = load_weights(again, ours)
    assert back.format == "agblocks" and not back.left and not back.missing
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    with safe_open(ours, "pt") as opened:
        said = json.loads(opened.metadata()["agblocks-weights"])
    assert said["digest"] == direct.resolved.digest
    assert said["format"] == "alphagenome-pytorch" and said["source"] == "theirs.safetensors"
    assert said["absent"] == report.absent and len(report.absent) == 12
    assert agblocks.resolve(said["recipe"]).digest == said["digest"]


def test_a_new_heads_random_values_stay_out(file, tmp_path):
    ours = tmp_path / "encoder.safetensors"
    convert(file, ours, "alphagenome_encoder_mpra", *SIZES, HEAD)
    names = load_file(ours).keys()
    assert len(names) == 80 and all(name.startswith("encoder.") for name in names)
    model = agblocks.build("alphagenome_encoder_mpra", *SIZES, HEAD, device="meta")
    report = load_weights(model, ours)
    assert all(name.startswith("activity.") for name in report.left)
    cut = agblocks.build("alphagenome_encoder_mpra", *SIZES, HEAD, "activity.in=encoder.stage2", device="meta")
    report = load_weights(cut, ours)
    assert {name.split(".")[1] for name in report.cut} == {f"stage{i}" for i in range(3, 8)}


def test_a_node_loaded_in_part_is_written_in_part(file, tmp_path):
    """What was drawn at random is never written as published."""
    part = tmp_path / "part.safetensors"
    report = convert(file, part, "alphagenome_encoder_mpra", *SIZES, HEAD, into="encoder.stage1.conv1")
    assert load_file(part).keys() == set(report.loaded) == {f"encoder.stage1.conv1.{n}" for n in ("weight", "bias")}
    with pytest.raises(WeightsError, match=r"missing: encoder\.stage1\.norm2\.weight"):
        load_weights(agblocks.build("alphagenome_encoder_mpra", *SIZES, HEAD), part)
    less, less_file = load_file(file), tmp_path / "less.safetensors"
    del less["encoder.dna_embedder.block.conv.weight"]
    save_file(less, less_file)
    ours = tmp_path / "ours.safetensors"
    report = convert(less_file, ours, "alphagenome_small", *SIZES, allow=["missing"])
    assert list(report.missing) == ["encoder.stage1.conv2.weight"]
    assert load_file(ours).keys() == {*report.loaded, *report.absent}
    with pytest.raises(WeightsError, match=r"missing: encoder\.stage1\.conv2\.weight"):
        load_weights(agblocks.build("alphagenome_small", *SIZES), ours)


def test_our_files_say_their_blocks(file, tmp_path):
    ours = tmp_path / "encoder.safetensors"
    convert(file, ours, "alphagenome_encoder_mpra", *SIZES, HEAD)
    other = {
        "recipe": 1, "name": "other", "base": "alphagenome_encoder_mpra",
        "set": {"encoder.channels": 8, "encoder.growth": 4, "activity.hidden": [4]},
        "replace": {"encoder.stage3": {"block": "conv.legnet", "args": {"channels": 16, "pool": 2}}},
    }  # fmt: skip
    report = load_weights(agblocks.build(other), ours)
    assert report.other_block == {"encoder.stage3": "conv.legnet here, conv.down in the source"}
    wide = agblocks.build("alphagenome_encoder_mpra", "encoder.channels=10", "encoder.growth=4", HEAD)
    with pytest.raises(WeightsError, match=r"shape: encoder\.stage1\.conv1\.weight"):
        load_weights(wide, ours)


def test_a_state_dict_of_our_own(tmp_path):
    model = agblocks.build("tiny", seed=1)
    twin = agblocks.build("tiny", seed=2)
    report = load_weights(twin, model.state_dict())
    assert report.format == "agblocks"
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    less = dict(list(model.state_dict().items())[1:])
    with pytest.raises(WeightsError, match="missing"):
        load_weights(twin, less)


def test_trained_runs(tmp_path):
    """A run's file, alone or in its folder; of an ensemble the first member, and the report says so."""
    model = agblocks.build("tiny", seed=1)
    other = agblocks.build("tiny", seed=2)
    for members, wanted in (([model], model), ([other, model], other)):
        tensors = {f"{i}/{name}": value for i, m in enumerate(members) for name, value in m.state_dict().items()}
        save_file(tensors, tmp_path / "model.safetensors", {"agblocks-run": "{}"})
        fresh = agblocks.build("tiny", device="meta")
        report = load_weights(fresh, tmp_path)
        assert all(torch.equal(value, wanted.state_dict()[name]) for name, value in fresh.state_dict().items())
        assert report.assumed == (() if len(members) == 1 else ("member 0 of 2",))
        assert len(report.repeats) == (len(members) - 1) * len(model.state_dict())


def test_our_own_files_have_to_be_whole(file, tmp_path):
    """A stage that is gone is an error, not left random; in a file of the very model so is a stage too many."""
    arguments = ("alphagenome_encoder_mpra", *SIZES, HEAD)
    model = agblocks.build(*arguments, seed=1)
    convert(file, tmp_path / "ours.safetensors", *arguments)
    with safe_open(tmp_path / "ours.safetensors", "pt") as opened:
        converted = opened.metadata()
    run = {"agblocks-run": json.dumps({"digest": model.resolved.digest})}
    whole = {name: value.contiguous() for name, value in model.state_dict().items()}
    encoder = {name: value for name, value in whole.items() if name.startswith("encoder.")}
    extra = {"encoder.stage9.conv1.bias": torch.zeros(3)}
    for tensors, metadata in ((whole, None), (encoder, converted), (whole, run)):
        less = {name: value for name, value in tensors.items() if not name.startswith("encoder.stage3.")}
        save_file(less, tmp_path / "less.safetensors", metadata)
        with pytest.raises(WeightsError, match=r"missing: encoder\.stage3\."):
            load_weights(model, tmp_path / "less.safetensors")
        save_file({**tensors, **extra}, tmp_path / "more.safetensors", metadata)
        if metadata is None:  # it may be of a deeper model
            assert load_weights(model, tmp_path / "more.safetensors").cut == list(extra)
        else:
            with pytest.raises(WeightsError, match=r"unexpected: encoder\.stage9\.conv1\.bias"):
                load_weights(model, tmp_path / "more.safetensors")
    save_file(encoder, tmp_path / "headless.safetensors", run)
    with pytest.raises(WeightsError, match=r"missing: activity\."):
        load_weights(model, tmp_path / "headless.safetensors")
    save_file(encoder, tmp_path / "headless.safetensors")
    assert all(name.startswith("activity.") for name in load_weights(model, tmp_path / "headless.safetensors").left)


def test_writing_is_whole_or_not_at_all(file, tmp_path):
    with pytest.raises(WeightsError, match="written as .safetensors, found suffix '.pth'"):
        convert(file, tmp_path / "ours.pth", "alphagenome_small", *SIZES)
    with pytest.raises(WeightsError, match="cannot be written"):
        convert(file, tmp_path / "gone" / "ours.safetensors", "alphagenome_small", *SIZES)
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(b"before")
    with pytest.raises(WeightsError):
        convert(file, kept, "enformer_small", force=True)
    assert kept.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.safetensors"]


def test_no_file_is_replaced_unasked(file, tmp_path, monkeypatch):
    """The target is looked at before anything is loaded."""
    arguments = ("alphagenome_encoder_mpra", *SIZES, HEAD)
    own = tmp_path / "own"
    own.mkdir()
    source = own / "source.safetensors"
    source.write_bytes(file.read_bytes())
    (tmp_path / "folder.safetensors").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["agblocks.weights.convert"], "load_weights", None)
        with pytest.raises(WeightsError, match="is there already; take another name, or force"):
            convert(source, source, *arguments)
        for given in (source, own):
            with pytest.raises(WeightsError, match="is the source, or a part of it"):
                convert(given, source, *arguments, force=True)
        with pytest.raises(WeightsError, match="is there already; take another name$"):
            convert(source, tmp_path / "folder.safetensors", *arguments, force=True)
        with pytest.raises(WeightsError, match="cannot be written"):
            convert(source, tmp_path / "gone" / "ours.safetensors", *arguments)
    assert source.read_bytes() == file.read_bytes()
    ours = tmp_path / "ours.safetensors"
    ours.write_bytes(b"before")
    with pytest.raises(WeightsError, match="is there already"):
        convert(source, ours, *arguments)
    assert ours.read_bytes() == b"before"
    convert(source, ours, *arguments, force=True)
    assert len(load_file(ours)) == 80


def test_the_command(file, tmp_path):
    ours = tmp_path / "ours.safetensors"
    arguments = ["convert", str(file), "--to", str(ours), "--recipe", "alphagenome_encoder_mpra", *SIZES, HEAD]
    result = CliRunner().invoke(app(), arguments)
    assert result.exit_code == 0, result.output
    assert "alphagenome-pytorch, 80 tensors loaded" in result.output and f"written: {ours}" in result.output
    assert len(load_file(ours)) == 80
    result = CliRunner().invoke(app(), [*arguments, "--into", "encoder.stage1"])
    assert isinstance(result.exception, WeightsError) and len(load_file(ours)) == 80
    result = CliRunner().invoke(app(), [*arguments, "--into", "encoder.stage1", "--force"])
    assert result.exit_code == 0 and len(load_file(ours)) == 8
    result = CliRunner().invoke(app(), [*arguments, "--node", "encoder"])
    assert isinstance(result.exception, WeightsError)
    result = CliRunner().invoke(app(), [*arguments, "--allow", "all"])
    assert isinstance(result.exception, WeightsError)
