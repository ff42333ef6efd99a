"""What the AlphaGenome comparisons share: fixtures, weights drawn from their names, a model of ours that has them."""

import json
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open

import agblocks
from agblocks.weights import load_weights
from agblocks.weights.alphagenome import ALPHAGENOME

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools" / "fixtures"))  # the very file that drew the peer's weights

import samples  # noqa: E402
import seeded  # noqa: E402

TOLERANCE = {torch.float64: (1e-9, 1e-9), torch.float32: (1e-4, 1e-5)}  # absolute, of the norm
NOT_THERE = ("dnase_1bp", "dnase_128bp", "procap_1bp", "procap_128bp", "cage_1bp", "cage_128bp", "chip_histone_128bp")


@cache
def fixture(name):
    """The tensors of a fixture, and its metadata."""
    with safe_open(ROOT / "tests" / "fixtures" / f"alphagenome_{name}.safetensors", "numpy") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def config(name):
    """What a fixture was run with."""
    return json.loads(fixture(name)[1]["config"])


@cache
def weights(name):
    """The peer's state dict, drawn again."""
    table = json.loads(fixture(name)[1]["weights"])
    return {key: torch.from_numpy(samples.drawn(key, tuple(shape), how)) for key, (shape, how) in table.items()}


def recipe(name):
    """The shipped recipe with the sizes of a fixture, and only the parts that it has."""
    settings = config(name)["settings"]
    made = {"recipe": 1, "name": "compared", "base": "alphagenome", "set": settings}
    if name.startswith("encoder"):
        return {**made, "remove": ["heads.*"], "keep": ["encoder", "encoder.*"]}
    return {**made, "remove": list(NOT_THERE)} if settings else made


def load(name, dtype=torch.float64):
    """Our model under a fixture's weights, in evaluation, and what each of its tensors is called there."""
    model = agblocks.build(recipe(name), device="meta")
    report = load_weights(model, weights(name), "alphagenome-pytorch")
    assert not report.left
    return model.to(dtype).eval(), report.loaded


def tower():
    """Our tower under the weights of the fixture of a tower alone, and the track that it reads."""
    channels, positions = config("tower_640")["channels"], config("tower_640")["positions"]
    model = agblocks.build({
        "recipe": 1, "inputs": {"x": f"B {channels} L"}, "keep": ["tower.*"],
        "nodes": {"tower": {"block": "tower.alphagenome", "in": "x", "args": {"depth": 2}}},
    }, device="meta")  # fmt: skip
    load_weights(model, weights("tower_640"), "alphagenome-pytorch")
    x = torch.from_numpy(seeded.normal(f"track {positions}", (1, channels, positions))).double()
    return model.double().eval(), x


def inputs(name, dtype):
    """The inputs of a fixture."""
    length, organisms = config(name)["length"], config(name).get("organisms", [0, 1])
    dna = torch.from_numpy(seeded.onehot(f"dna {length}", len(organisms), length)).to(dtype)
    return {"dna": dna, "organism": torch.tensor(organisms)}


def differences(found, wanted, tolerance, scale=1.0):
    """The edges that are apart, and by how much."""
    wrong = {}
    for name, value in found.items():
        ours, theirs = samples.sampled(name, value.detach().numpy()).astype(float), wanted[name].astype(float)
        assert ours.shape == theirs.shape, f"{name}: {value.shape}"
        most, of_norm = (scale * t for t in tolerance)
        largest, size = np.abs(ours - theirs).max(), max(1.0, np.abs(theirs[:-1]).max())
        apart = np.linalg.norm(ours[:-1] - theirs[:-1]) / max(np.linalg.norm(theirs[:-1]), 1e-30)
        if not (np.abs(ours[:-1] - theirs[:-1]).max() <= most * size and apart <= of_norm):
            wrong[name] = f"largest difference {largest:.2g}, {apart:.2g} of the norm"
        elif abs(ours[-1] / theirs[-1] - 1) > of_norm:
            wrong[name] = f"norm {ours[-1]} instead of {theirs[-1]}"
    return wrong


def theirs(model, loaded, key, value):
    """A tensor of our parameter's shape in the layout of the peer's tensor."""
    ours = next(name for name, other in loaded.items() if other == key)
    node = next(n for n in model.resolved.nodes.values() if ours.startswith(f"{n.name}."))
    want = ALPHAGENOME.bind(loaded.values()).wanted(ours, node.name, node.entry.name)
    return want.transform.back()(value)
