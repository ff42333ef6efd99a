"""Loading is lean: what is read, and what memory it takes, measured in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import backwards
from safetensors.torch import save_file

import agblocks

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="measured by /proc")

MEASURE = """
import json, sys
from benchmarks.loading import _read, _status
import agblocks
import agblocks.weights, einops, safetensors.torch
recipe, overrides, file = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
agblocks.build(recipe, *overrides, device="meta")  # torch imports much for the first tensors without memory
model = agblocks.build(recipe, *overrides, device="meta")
with open("/proc/self/clear_refs", "w") as handle:
    handle.write("5")  # the highest memory from here on
before, read = _status("VmRSS"), _read()
report = agblocks.load_weights(model, file)
print(json.dumps({
    "weights": sum(t.nbytes for t in model.state_dict().values()), "peak": _status("VmHWM") - before,
    "read": _read() - read, "tensors": report.read_bytes,
}))
"""


def measured(recipe, overrides, file):
    command = [sys.executable, "-c", MEASURE, recipe, json.dumps(overrides), str(file)]
    made = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(made.stdout)


@LINUX
def test_memory_and_bytes_of_a_middling_model(tmp_path):
    """A small encoder out of a larger file: once in memory, and nothing else read."""
    sizes = ["encoder.channels=256", "encoder.growth=32", "activity.hidden=[8]"]
    state, _ = backwards(agblocks.build("alphagenome_encoder_mpra", *sizes, device="meta"), "alphagenome-pytorch")
    wanted = sum(value.nbytes for value in state.values())
    state["decoder.up_blocks.0.conv_in.conv.weight"] = next(iter(state.values())).new_ones(10_000_000)
    file = tmp_path / "weights.safetensors"
    save_file({key: value.contiguous() for key, value in state.items()}, file)
    found = measured("alphagenome_encoder_mpra", sizes, file)
    assert found["weights"] > 30e6
    assert found["peak"] <= 1.15 * found["weights"]
    assert found["tensors"] == wanted
    assert wanted <= found["read"] <= wanted + 3_000_000  # the header, twice, and modules imported on the way


@LINUX
@pytest.mark.slow
def test_memory_and_bytes_of_the_full_model():
    made = subprocess.run(
        [sys.executable, "-c", "import json; from benchmarks.loading import main; print(json.dumps(main()))"],
        capture_output=True, text=True, cwd=ROOT, check=True,
    )  # fmt: skip
    found = json.loads(made.stdout.splitlines()[-1])
    whole, encoder = found["alphagenome"], found["alphagenome_encoder_mpra"]
    assert whole["loaded"] == 682 and whole["ratio"] <= 1.15
    assert encoder["loaded"] == 80 and encoder["tensors_read"] == 4 * (89_972_992 + 14_592)
    assert encoder["read"] <= encoder["tensors_read"] + 40e6  # the header, and modules that torch imports on the way
