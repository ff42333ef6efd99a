"""Peak memory of a model in a fresh process: `python -m agblocks.studies.cost.process`, asked on stdin.

What it reads is a pickle that `peak_of` of the same program wrote: a model without weights, shapes, names of outputs.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import AgblocksError
from ..work.memory import Peak

Shapes = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
_SECONDS = 600
# What is freed goes back at once, so that a peak is what was needed and not what was kept for later.
_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}


class CostError(AgblocksError):
    """A cost that could not be measured; the message says why."""


def peak_of(model: nn.Module, first: Shapes, inputs: Shapes, outputs: Sequence[str]) -> float:
    """MB of the model's weights, and by how many MB a fresh process with them grows that runs it, in evaluation.

    Before, it is run on `first`, smaller inputs, so that what libraries set up at their first use doesn't count.
    model: on the meta device. first, inputs: shape and type of each. As many threads as here.
    Errors: `CostError` where the process fails or the model cannot be sent; the message is its last line.
    """
    try:
        asked = pickle.dumps((model, dict(first), dict(inputs), list(outputs), torch.get_num_threads()))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise CostError(f"the model cannot be sent to a process of its own ({error})") from None
    here = str(Path(__file__).resolve().parents[3])
    known = os.pathsep.join([here, *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", __name__], input=asked, capture_output=True, check=False, timeout=_SECONDS,
        env={**os.environ, **_ALLOCATOR, "PYTHONPATH": known, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines() or [f"it ended with {done.returncode}"]
        raise CostError(f"the process of its own failed: {said[-1]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Answer one question."""
    model, first, inputs, outputs, threads = pickle.load(sys.stdin.buffer)
    torch.set_num_threads(threads)
    model = model.to_empty(device="cpu").requires_grad_(False).eval()
    held = [*model.parameters(), *model.buffers()]
    for value in held:
        # Memory is there once it is written. Ones keep norms and logarithms finite, zeros are indices anywhere.
        value.fill_(1 if value.dtype.is_floating_point else 0)
    with torch.inference_mode():
        model(**_zeros(first), outputs=outputs)
        given = _zeros(inputs)
        gc.collect()
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        before = _resident()
        peak = Peak()
        model(**given, outputs=outputs)
        grown = max(0.0, peak.mb() - before)
    print(grown + sum(value.numel() * value.element_size() for value in held) / 2**20)


def _zeros(shapes: Shapes) -> dict[str, Tensor]:
    return {name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in shapes.items()}


def _resident() -> float:
    """MB that this process holds now; where the system does not say, the most so far."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
    return Peak().mb()


if __name__ == "__main__":
    main()
