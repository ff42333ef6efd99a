"""Loading full AlphaGenome from safetensors: peak memory over the weights' size, and bytes read, a process a recipe.

The file has the port's exact keys and full shapes (1.8 GB, in a temporary folder), its values are noise. Peak is the
process's highest resident memory less what it had after all imports; at most 1.15 times the weights' size.
`python -m benchmarks.loading RECIPE FILE` measures one recipe and prints JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from ast import literal_eval
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEYS = ROOT / "tests" / "weights" / "keys" / "alphagenome.txt"
RECIPES = ("alphagenome", "alphagenome_encoder_mpra", "ablations/alphagenome_mpra_stage3")


def write(file: Path) -> None:
    """A state dict of the port's keys and shapes, all of its tensors views of one stretch of noise."""
    import torch

    from agblocks.weights.convert import write_safetensors

    rows = [line.split("\t") for line in KEYS.read_text().splitlines()[1:]]
    shapes = {key: literal_eval(shape) for key, shape, _ in rows}
    sizes = {key: torch.Size(shape).numel() for key, shape in shapes.items()}
    noise = torch.rand(max(sizes.values()), generator=torch.Generator().manual_seed(0)) + 0.5
    with open(file, "wb") as handle:
        write_safetensors(handle, {key: noise[: sizes[key]].view(shape) for key, shape in shapes.items()}, {})


def measure(recipe: str, file: str) -> dict[str, float]:
    """Load a recipe's weights in this process, which should be fresh: sizes in bytes, time in seconds."""
    import time

    import einops  # noqa: F401
    import h5py  # noqa: F401
    import safetensors.torch  # noqa: F401

    import agblocks
    import agblocks.weights

    agblocks.resolve(recipe)  # imports every block
    before, read_before = _status("VmRSS"), _read()
    start = time.perf_counter()
    model = agblocks.build(recipe, device="meta")
    report = agblocks.load_weights(model, file)
    seconds = time.perf_counter() - start
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    return {
        "weights": weights, "peak": _status("VmHWM") - before, "ratio": (_status("VmHWM") - before) / weights,
        "read": _read() - read_before, "tensors_read": report.read_bytes, "file": Path(file).stat().st_size,
        "loaded": len(report.loaded), "seconds": seconds,
    }  # fmt: skip


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def _read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])  # rchar: by system calls, cached or not


def main(recipes: tuple[str, ...] = RECIPES) -> dict[str, dict[str, float]]:
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "alphagenome.safetensors"
        write(file)
        for recipe in recipes:
            command = [sys.executable, "-m", "benchmarks.loading", recipe, str(file)]
            made = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
            found[recipe] = one = json.loads(made.stdout.splitlines()[-1])
            print(
                f"{recipe}: {one['loaded']} tensors, {one['weights'] / 1e6:,.1f} MB; peak {one['peak'] / 1e6:,.1f} MB, "
                f"{one['ratio']:.3f} times; read {one['read'] / 1e6:,.1f} of {one['file'] / 1e6:,.1f} MB in "
                f"{one['seconds']:.2f} s",
                flush=True,
            )
    return found


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(json.dumps(measure(*sys.argv[1:])))
    else:
        main()
