"""What comparisons with Enformer's and Borzoi's peers share: fixtures, weights drawn from their names, differences."""

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

import agblocks
from agblocks.weights import load_weights

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools" / "fixtures"))  # the very files that drew the peers' weights

import samples  # noqa: E402
import seeded  # noqa: E402

TOLERANCE = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 1e-5)}  # absolute, of the norm


@cache
def fixture(name):
    """The tensors of a fixture, and its metadata."""
    with safe_open(ROOT / "tests" / "fixtures" / f"{name}.safetensors", "numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


@cache
def weights(name):
    """The peer's state dict, drawn again."""
    table = json.loads(fixture(name)[1]["weights"])
    made = {key: torch.from_numpy(samples.drawn(key, tuple(shape), how)) for key, (shape, how) in table.items()}
    for key in [key for key in made if key.endswith("running_mean")]:
        made[key.replace("running_mean", "num_batches_tracked")] = torch.tensor(1)
    return made


def load(recipe, overrides, name, peer, dtype=torch.float64, keep=()):
    """Our model under a fixture's weights, in evaluation; and the peer's name of each of its tensors."""
    model = agblocks.build(recipe, *overrides, device="meta", keep=keep)
    report = load_weights(model, dict(weights(name)), peer)
    assert not report.left
    return model.to(dtype).eval(), report.loaded


def dna(length, dtype=torch.float64, batch=2):
    """The DNA of a fixture."""
    return torch.from_numpy(seeded.onehot(f"dna {length}", batch, length)).to(dtype)


def edges(name):
    """The edges that a fixture has numbers of."""
    return [key for key in fixture(name)[0] if not key.startswith(("gradient.", "poisson."))]


def differences(found, name, tolerance):
    """Every tensor that is further from the fixture's than the tolerance, with its difference; and absent ones."""
    absolute, relative = tolerance
    wrong = {}
    for key, value in found.items():
        wanted = fixture(name)[0][key].astype(np.float64)
        mine = samples.sampled(key, value.detach().numpy()).astype(np.float64)
        norm = max(abs(wanted[-1]), 1e-300)
        if mine.shape != wanted.shape:
            wrong[key] = f"{mine.shape}, not {wanted.shape}"
            continue
        apart = np.abs(mine[:-1] - wanted[:-1]).max()
        spread = np.linalg.norm(mine[:-1] - wanted[:-1]) / max(np.linalg.norm(wanted[:-1]), 1e-300)
        if not (apart <= absolute and spread <= relative and abs(mine[-1] - norm) <= relative * norm):
            wrong[key] = f"{apart:.2e}, {spread:.2e} of the norm"
    return wrong


def gradients(model, names, dna, outputs, name, tolerance):
    """The differences of the gradients of a weighed sum of outputs, by DNA and by every weight the fixture has."""
    dna = dna.requires_grad_()
    made = model(dna=dna, outputs=outputs)
    loss = sum(
        (made[n] * torch.from_numpy(seeded.normal(f"weights of {n}", tuple(made[n].shape))).to(dna.dtype)).sum()
        for n in outputs
    )
    loss.backward()
    found = {"gradient.dna": dna.grad}
    theirs = {key: ours for ours, key in names.items()}
    for key in fixture(name)[0]:
        peer = key.removeprefix("gradient.")
        if key.startswith("gradient.") and peer != "dna":
            shape = weights(name)[peer].shape
            found[key] = model.get_parameter(theirs[peer]).grad.reshape(shape)
    return found, differences(found, name, tolerance)
