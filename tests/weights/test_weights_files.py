"""Files of every kind, sound and hostile."""

import json
import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest
import torch
from helpers import backwards
from safetensors.torch import save_file

import agblocks
from agblocks.weights import WeightsError, load_weights
from agblocks.weights.opening import opened

SIZES = ("encoder.channels=8", "encoder.growth=4", "activity.hidden=[4]")


def encoder(**more):
    return agblocks.build("alphagenome_encoder_mpra", *SIZES, **more)


@pytest.fixture(scope="module")
def state():
    return backwards(encoder(), "alphagenome-pytorch")[0]


def refused(source, message, **options):
    """The file is refused with that reason, by a model with memory and one without, and both stay as they were."""
    model, meta = encoder(seed=1), encoder(device="meta")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for target in (model, meta):
        with pytest.raises(WeightsError, match=message):
            load_weights(target, source, **options)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(tensor.is_meta for tensor in (*meta.parameters(), *meta.buffers()))


def equal(source, state, **options):
    for model in (encoder(), encoder(device="meta")):
        report = load_weights(model, source, **options)
        taken = model.state_dict()
        for name, key in report.loaded.items():
            assert torch.equal(taken[name].flatten(), state[key].flatten()), name
        assert len(report.loaded) == 80
    return report


def test_safetensors(tmp_path, state):
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    report = equal(file, state)
    assert report.source == str(file)
    assert report.read_bytes == sum(value.nbytes for value in state.values())
    equal(str(tmp_path), state)  # the one file of a folder


@pytest.mark.parametrize("how", ["bare", "lightning", "legacy", "module"])
def test_torch_files(tmp_path, state, how):
    file = tmp_path / ("weights.ckpt" if how == "lightning" else "weights.pth")
    if how == "lightning":
        content = {"state_dict": {f"model.{k}": v for k, v in state.items()}, "epoch": 3, "callbacks": {}}
    else:
        content = {f"module.{k}": v for k, v in state.items()} if how == "module" else dict(state)
    torch.save(content, file, _use_new_zipfile_serialization=how != "legacy")
    prefix = {"lightning": "model.", "module": "module."}.get(how, "")
    equal(file, {prefix + key: value for key, value in state.items()})


def test_a_mapped_file_is_not_the_models_memory(tmp_path, state):
    file = tmp_path / "weights.pth"
    torch.save(state, file)
    model = encoder(device="meta")
    load_weights(model, file)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with open(file, "r+b") as handle:
        handle.write(b"\0" * os.path.getsize(file))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["zip", "legacy", "plain", "inside"])
def test_a_pickle_that_runs_code_is_refused(tmp_path, state, how):
    file, trap = tmp_path / "weights.pth", str(tmp_path / "trap")
    if how == "plain":
        file.write_bytes(pickle.dumps(Bomb(trap)))
    else:
        content = {**state, "extra": Bomb(trap)} if how == "inside" else Bomb(trap)
        torch.save(content, file, _use_new_zipfile_serialization=how != "legacy")
    refused(file, "mkdir, which is no tensor: such a file can run code|it holds more than tensors")
    assert not os.path.exists(trap)


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.3, 0.999])
@pytest.mark.parametrize("kind", ["safetensors", "pth"])
def test_truncated_files(tmp_path, state, kind, keep):
    file = tmp_path / f"weights.{kind}"
    save_file({k: v.contiguous() for k, v in state.items()}, file) if kind == "safetensors" else torch.save(state, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * keep)])
    refused(file, "damaged|cannot be read|refused")


def test_foreign_files(tmp_path, state):
    for name, content in (
        ("a.safetensors", b"not a safetensors file at all"),
        ("b.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
        ("c.pth", b"PK\x03\x04rubbish"),
        ("d.pth", b"\x00" * 100),
        ("e.h5", b"\x89HDF\r\n\x1a\n" + b"\x00" * 50),
    ):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, "damaged|refused")
    (tmp_path / "f.txt").write_bytes(b"hello")
    refused(tmp_path / "f.txt", r"'\.txt' is no kind of file with weights")
    torch.save([1, 2], tmp_path / "g.pth")
    refused(tmp_path / "g.pth", "holds a list, wanted a state dict")
    torch.save({"epoch": 3}, tmp_path / "h.pth")
    refused(tmp_path / "h.pth", r"no tensors by name.*it has 'epoch'")
    with zipfile.ZipFile(tmp_path / "i.pth", "w") as archive:
        archive.writestr("data.pkl", b"x")
    refused(tmp_path / "i.pth", "damaged|refused")


def test_nan_in_a_file(tmp_path, state):
    bad = {key: value.clone() for key, value in state.items()}
    last = sorted(bad)[-1]
    bad[last].flatten()[0] = float("nan")
    save_file(bad, tmp_path / "weights.safetensors")
    refused(tmp_path / "weights.safetensors", f"'{last}' holds 1 values that are not finite")
    torch.save(bad, tmp_path / "weights.pth")
    refused(tmp_path / "weights.pth", "not finite")


def test_what_is_cut_away_may_be_broken(tmp_path, state):
    """Only tensors that are wanted are read, so what lies in others is no matter."""
    more = {**state, "organism_embed.weight": torch.full((2, 48), float("nan"))}
    save_file(more, tmp_path / "weights.safetensors")
    report = equal(tmp_path / "weights.safetensors", state)
    assert report.cut == ["organism_embed.weight"]
    assert report.read_bytes == sum(value.nbytes for value in state.values())


def test_folders_and_shards(tmp_path, state):
    keys = sorted(state)
    names = {key: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, key in enumerate(keys)}
    for name in set(names.values()):
        save_file({key: state[key].contiguous() for key in keys if names[key] == name}, tmp_path / name)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    equal(tmp_path, state)
    index.write_text(json.dumps({"weight_map": {**names, "nothing": names[keys[0]]}}))
    refused(tmp_path, "'nothing' is not in")
    index.write_text("{")
    refused(tmp_path, "cannot be read as an index")
    index.unlink()
    refused(tmp_path, "there are 2 files of weights; say which by file=: model-00001")
    refused(tmp_path, "there is no file 'other'", file="other")


def keras(file, state, layout):
    """Write weights as Keras does: weights alone or a whole model."""
    with h5py.File(file, "w") as out:
        for key, value in state.items():
            layer, variable = key.split(".")
            if layer.startswith("batch_normalization"):  # a second model of a session: numbers go on from the first's
                number = int(layer.rpartition("_")[2]) + 5
                layer = f"batch_normalization_{number}"
            path = f"{'model_weights/' if layout == 'model' else ''}{layer}/{layer}/{variable}:0"
            out[path] = value.numpy()
        if layout == "model":
            out["optimizer_weights/Adam/iterations:0"] = np.int64(7)


@pytest.mark.parametrize("layout", ["weights", "model"])
def test_keras(tmp_path, layout):
    model = agblocks.build("deepstarr", seed=1)
    state, expected = backwards(model, "deepstarr-keras")
    state = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
    assert len(state) == 4 * 6 + 2 * 6 + 2 * 2
    file = tmp_path / "model.h5"
    keras(file, state, layout)
    report = load_weights(model, file)
    assert report.format == "deepstarr-keras"
    assert len(report.absent) == 6 and all(name.endswith("num_batches_tracked") for name in report.absent)
    for name, value in expected.items():
        assert torch.equal(model.state_dict()[name], value) or name in report.absent
    assert "assumed: layer names of the published notebook" in str(report)


def test_keras_numbers_come_out():
    """Conv kernels, the flattening and the batch norm against Keras's definitions, an equation at a time."""
    model = agblocks.build("deepstarr", seed=1)
    state, _ = backwards(model, "deepstarr-keras")
    state = {
        key: (value - 1) / 10 if value.is_floating_point() and "variance" not in key else value
        for key, value in state.items()
    }
    load_weights(model, state)
    model.double().eval()
    given = {key: value.double() for key, value in state.items()}
    dna = torch.rand(2, 249, 4, dtype=torch.float64)  # Keras has channels last
    x = dna
    for stage in range(1, 5):
        name = "Conv1D_1st" if stage == 1 else f"Conv1D_{stage}"
        kernel = given[f"{name}.kernel"]
        half = len(kernel) // 2
        padded = torch.nn.functional.pad(x, (0, 0, half, half))
        windows = torch.stack([padded[:, i : i + x.shape[1]] for i in range(len(kernel))], 2)  # batch, place, k, in
        x = torch.einsum("bpki,kio->bpo", windows, kernel) + given[f"{name}.bias"]
        x = norm(x, given, stage).clamp(min=0)
        pairs = x.shape[1] // 2
        x = x[:, : 2 * pairs].reshape(2, pairs, 2, -1).amax(2)
    x = x.reshape(2, -1)
    for layer in (1, 2):
        x = x @ given[f"Dense_{layer}.kernel"] + given[f"Dense_{layer}.bias"]
        x = norm(x, given, layer + 4).clamp(min=0)
    out = model(dna=dna.transpose(1, 2))
    for head, theirs in (("dev", "Dense_Dev"), ("hk", "Dense_Hk")):
        wanted = x @ given[f"{theirs}.kernel"] + given[f"{theirs}.bias"]
        assert torch.allclose(out[head], wanted, rtol=1e-9, atol=1e-9)
        assert wanted.std() > 0


def norm(x, given, number):
    start = f"batch_normalization_{number}"
    scale = given[f"{start}.gamma"] / (given[f"{start}.moving_variance"] + 1e-3) ** 0.5
    return (x - given[f"{start}.moving_mean"]) * scale + given[f"{start}.beta"]


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("layers/conv1d/vars/0", np.zeros(3, "f4"), r"is of Keras 3.*model\.save\('model\.h5'\) keeps their names"),
        ("Dense_1/kernel:0", h5py.Empty("f4"), r"'Dense_1\.kernel' is no tensor of weights"),
        ("Dense_1/kernel:0", np.zeros(3, np.longdouble), r"'Dense_1\.kernel' is no tensor of weights"),
        ("Dense_1/kernel:0", np.zeros(3, ">f4"), r"'Dense_1\.kernel' is no tensor of weights"),
    ],
)
def test_odd_hdf5_files_are_told_and_closed(tmp_path, path, data, message):
    with h5py.File(tmp_path / "odd.h5", "w") as out:
        out.create_dataset(path, data=data)
    refused(tmp_path / "odd.h5", message)
    with h5py.File(tmp_path / "odd.h5", "r+"):  # it is not held open
        pass


ODD = {
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "sparse": torch.Tensor.to_sparse,
    "meta": lambda t: t.to("meta"),
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_tensors_are_told_by_name(state, odd):
    key = "encoder.down_blocks.5.block2.conv.bias"
    refused({**state, key: ODD[odd](state[key])}, rf"'{key}' is .*{odd}.*; weights are dense: F64")


def test_odd_keys_and_sources_are_told(tmp_path, state):
    refused({**state, 0: torch.zeros(1)}, r"keys are names, found 0 \(int\)")
    refused({**state, f"tower.blocks.{'1' * 5000}.mha.q_proj.weight": torch.zeros(1)}, "unexpected: tower.blocks.111")
    refused({**state, "x": np.zeros(3, ">f4")}, "the state dict: cannot be read: ValueError")
    refused(None, "a source is a path, a hub repository or a state dict, not a NoneType")
    refused(state, "device 'nonsense' cannot be used: RuntimeError", device="nonsense")
    deep = "[" * 200_000
    save_file({"fc": torch.zeros(1)}, tmp_path / "deep.safetensors", {"agblocks-weights": deep})
    refused(tmp_path / "deep.safetensors", "unexpected: fc|nothing for the model")
    (tmp_path / "deep.safetensors.index.json").write_text(deep)
    refused(tmp_path / "deep.safetensors.index.json", "cannot be read: RecursionError")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(state):
    refused(state, "device 'cuda' cannot be used", device="cuda")


def test_sources_close(tmp_path, state):
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "weights.safetensors")
    with opened(tmp_path / "weights.safetensors") as source:
        key = next(iter(source.entries))
        assert torch.equal(source.read(key), state[key])
    with pytest.raises(ValueError, match="closed"):
        source.read(key)
