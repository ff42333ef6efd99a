"""What comparisons with published ports share: fixtures, weights drawn from their names, models of ours that have
them, differences."""

import json
import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from safetensors import safe_open

import agblocks
from agblocks.weights import load_weights
from agblocks.weights.alphagenome import ALPHAGENOME

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools" / "fixtures"))  # the very files that drew the peers' weights

import samples  # noqa: E402
import seeded  # noqa: E402

TOLERANCE = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 1e-5)}  # absolute, of the norm
GRADIENTS = {torch.float64: (math.inf, 1e-9), torch.float32: (math.inf, 1e-4)}  # absolute ones have no scale
ABSENT = ("dnase_1bp", "dnase_128bp", "procap_1bp", "procap_128bp", "cage_1bp", "cage_128bp", "chip_histone_128bp")


@cache
def fixture(name):
    """The tensors of a fixture, and its metadata."""
    with safe_open(ROOT / "tests" / "fixtures" / f"{name}.safetensors", "numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def config(name):
    """What a fixture was run with."""
    return json.loads(fixture(name)[1]["config"])


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


def alphagenome(name):
    """AlphaGenome's recipe with the sizes of a fixture, and only the parts that it has."""
    settings = config(name)["settings"]
    made = {"recipe": 1, "name": "compared", "base": "alphagenome", "set": settings}
    if "_encoder_" in name:
        return {**made, "remove": ["heads.*"], "keep": ["encoder", "encoder.*"]}
    return {**made, "remove": list(ABSENT)} if settings else made


def alphagenome_inputs(name, dtype=torch.float64):
    """The inputs of a fixture of AlphaGenome."""
    organisms = config(name).get("organisms", [0, 1])
    return {"dna": dna(config(name)["length"], dtype, len(organisms)), "organism": torch.tensor(organisms)}


def alphagenome_tower(name):
    """AlphaGenome's tower under the weights of the fixture of a tower alone, and the track that it reads."""
    channels, positions = config(name)["channels"], config(name)["positions"]
    model, _ = load({
        "recipe": 1, "inputs": {"x": f"B {channels} L"}, "keep": ["tower.*"],
        "nodes": {"tower": {"block": "tower.alphagenome", "in": "x", "args": {"depth": 2}}},
    }, (), name, "alphagenome-pytorch")  # fmt: skip
    return model, torch.from_numpy(seeded.normal(f"track {positions}", (1, channels, positions))).double()


def alphagenome_layout(model, loaded, key, value):
    """A tensor of our parameter's shape in the layout of the peer's tensor."""
    ours = next(name for name, other in loaded.items() if other == key)
    node = next(n for n in model.resolved.nodes.values() if ours.startswith(f"{n.name}."))
    want = ALPHAGENOME.bind(loaded.values()).wanted(ours, node.name, node.entry.name)
    there, _, here = want.transform.said.partition(" -> ")
    return rearrange(value, f"{here} -> {there}") if here else value


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
