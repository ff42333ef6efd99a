from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from agblocks.training import RunError, load_run, predict, save_run
from agblocks.training.run import FILE, FORMAT, _metadata_sum, weights_sum


def read(path):
    with safe_open(path, "pt") as f:
        return json.loads(f.metadata()[FORMAT]), {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118


def forge(path, out, content=None, tensors=None, seal=True):
    """A file with some content changed and, by one who knows how, its checksums made anew."""
    held, weights = read(path)
    held |= content or {}
    weights = {k: v for k, v in {**weights, **(tensors or {})}.items() if v is not None}
    if seal:
        held["weights_sha256"] = weights_sum(weights)
        held["metadata_sha256"] = _metadata_sum(held)
    save_file(weights, out, metadata={FORMAT: json.dumps(held)})


def same(a, b):
    pairs = zip(a.model.state_dict().items(), b.model.state_dict().items(), strict=True)
    return all(n == m and torch.equal(x, y) for (n, x), (m, y) in pairs) and (
        (a.construct, a.wiring, a.settings, a.metrics, a.data, a.digest)
        == (b.construct, b.wiring, b.settings, b.metrics, b.data, b.digest)
    )


def test_round_trip(run_folder, measured, tmp_path):
    run = load_run(run_folder)
    save_run(tmp_path, run)
    again = load_run(tmp_path / FILE)
    assert same(run, again)
    assert (tmp_path / FILE).read_bytes() == (run_folder / FILE).read_bytes()
    table, splits = measured
    np.testing.assert_array_equal(predict(run, table, splits.test), predict(again, table, splits.test))
    assert [p.name for p in tmp_path.iterdir()] == [FILE]


def test_metadata_say_what_prediction_needs(run_folder):
    metadata, _ = read(run_folder / FILE)
    assert metadata["one_hot"]["channels"] == "ACGT"
    assert metadata["recipe"]["name"] == "small"
    (target,) = metadata["wiring"]["targets"]
    assert target["head"] == target["name"] == "activity"
    assert target["deviation"] > 0
    assert metadata["metrics"]["test"][0]["n"] > 0
    assert metadata["settings"]["seed"] == 0


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused(run_folder, tmp_path, place, bit):
    content = bytearray((run_folder / FILE).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (tmp_path / FILE).write_bytes(content)
    try:
        run = load_run(tmp_path)
    except RunError as error:
        said = str(error)
    else:  # a bit without meaning: padding of the header
        assert same(run, load_run(run_folder))
        return
    assert str(tmp_path) in said


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_refused(run_folder, tmp_path, place):
    content = (run_folder / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(content[: int(place * len(content))])
    with pytest.raises(RunError, match="damaged, or no safetensors file"):
        load_run(tmp_path)


def test_tampering_is_refused_with_the_reason(run_folder, tmp_path):
    file, out = run_folder / FILE, tmp_path / FILE
    _, tensors = read(file)
    name = "0/stem.conv.weight" if "0/stem.conv.weight" in tensors else next(n for n in tensors if tensors[n].ndim == 3)
    for change, message in (
        ({"tensors": {name: tensors[name] + 1}, "seal": False}, "the weights are not what was written"),
        ({"content": {"digest": "0123"}, "seal": False}, "the metadata are not what was written"),
        ({"content": {"digest": "0123"}}, "the digest 0123 is not that of its recipe"),
        ({"content": {"version": 2}}, "format 2; agblocks .* reads 1"),
        ({"tensors": {name: tensors[name][:-1].clone()}}, f"tensor '{name}' is float32 .* but the recipe's model has"),
        ({"tensors": {name: tensors[name].double()}}, f"tensor '{name}' is float64 "),
        ({"tensors": {name: None}}, f"tensor '{name}' is missing"),
        ({"tensors": {name + "x": tensors[name].clone()}}, f"tensor '{name}x' is unknown; did you mean {name}"),
        ({"content": {"members": 2}}, "tensor '1/"),
        ({"content": {"members": -1}}, "damaged metadata: members -1"),
        ({"content": {"settings": {}}}, "damaged metadata: settings: epochs, .* missing"),
        ({"content": {"construct": []}}, "damaged metadata: construct"),
        ({"content": {"recipe": {"recipe": 1, "nodes": {}}}}, "its recipe does not resolve here"),
        ({"content": {"recipe": 7}}, "its recipe"),
        ({"content": {"extra": 1}}, "damaged metadata: extra missing or unknown"),
    ):
        forge(file, out, **change)
        with pytest.raises(RunError, match=message):
            load_run(tmp_path)


def test_wiring_must_be_the_models(run_folder, tmp_path):
    wiring = read(run_folder / FILE)[0]["wiring"]
    for change, message in (
        ({"dna": "rna"}, "inputs \\['rna'\\], the model has \\['dna'\\]"),
        ({"targets": []}, "no target"),
        ({"targets": [{**wiring["targets"][0], "column": 7}]}, "column 7 of head 'activity'"),
        ({"targets": [{**wiring["targets"][0], "head": "activty"}]}, "no head 'activty'; did you mean activity"),
        ({"targets": [{**wiring["targets"][0], "mean": None}]}, "damaged metadata"),
        ({"constants": {"organism": 0}}, "inputs .*'organism'"),
    ):
        forge(run_folder / FILE, tmp_path / FILE, {"wiring": {**wiring, **change}})
        with pytest.raises(RunError, match=message):
            load_run(tmp_path)


def test_foreign_and_missing_files(run_folder, tmp_path):
    with pytest.raises(RunError, match="there is no finished run here"):
        load_run(tmp_path)
    save_file({"a": torch.zeros(2)}, tmp_path / FILE)
    with pytest.raises(RunError, match="not a run of agblocks: its metadata hold nothing"):
        load_run(tmp_path)
    for text, message in (
        ("[" * 100_000, "damaged metadata"),
        ("[]", "damaged metadata: a list"),
        ("{}", "format None"),
    ):
        save_file({"a": torch.zeros(2)}, tmp_path / FILE, metadata={FORMAT: text})
        with pytest.raises(RunError, match=message):
            load_run(tmp_path)
    (tmp_path / FILE).unlink()
    shutil.copy(run_folder / "started.json", tmp_path)
    with pytest.raises(RunError, match=r"started but not finished: `agblocks fit \.\.\. --resume`"):
        load_run(tmp_path)


def test_nothing_is_written_where_a_weight_is_not_finite(run_folder, tmp_path):
    run = load_run(run_folder)
    with torch.no_grad():
        next(run.model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(RunError, match="not finite; not saved"):
        save_run(tmp_path, run)
    assert not list(tmp_path.iterdir())
