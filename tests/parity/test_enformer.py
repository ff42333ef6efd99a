"""Enformer against enformer-pytorch 0.8.12: edges, heads, losses, gradients, at several lengths in one process.

The numbers are in tests/fixtures, by tools/fixtures/enformer.py, which says what was run and how.
"""

import sys
from pathlib import Path

import pytest
import torch

import agblocks
from agblocks.blocks.crop import CenterCrop

sys.path.insert(0, str(Path(__file__).parent))

import peer_fixtures as peers
from peer_fixtures import seeded

SMALL = (
    "encoder.channels=96", "encoder.divisible_by=16", "tower.depth=2", "tower.heads=4", "tower.key_dim=16",
    "human.tracks=5", "mouse.tracks=3",
)  # fmt: skip
WHOLE = {"enformer_whole_4096": (4096, 16), "enformer_whole_5120": (5120, 30)}
ENCODER = {f"enformer_encoder_{length}": length for length in (1, 200, 281, 300)}


def whole(name, dtype):
    length, target = WHOLE[name]
    sizes = (*SMALL, f"tower.train_length={length // 128}", f"crop.target_length={target}")
    return peers.load("enformer", sizes, name, "enformer-pytorch", dtype)


@pytest.fixture(scope="module")
def models():
    """A model for each basis and precision; both lengths of a precision live side by side."""
    made = {}

    def model(name, dtype):
        if (name, dtype) not in made:
            made[name, dtype] = whole(name, dtype)
        return made[name, dtype]

    return model


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", WHOLE)
def test_every_edge_and_both_heads(models, name, dtype):
    with torch.no_grad():
        found = models(name, dtype)[0](dna=peers.dna(WHOLE[name][0], dtype), outputs=peers.edges(name))
    assert len(found) == 14
    assert peers.differences(found, name, peers.TOLERANCE[dtype]) == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", WHOLE)
def test_gradients(models, name, dtype):
    model, names = models(name, dtype)
    dna = peers.dna(WHOLE[name][0], dtype)
    found, wrong = peers.gradients(model, names, dna, ["human", "mouse"], name, peers.GRADIENTS[dtype])
    assert len(found) == 15
    assert wrong == {}


def test_losses(models):
    name = "enformer_whole_4096"
    model = models(name, torch.float64)[0]
    with torch.no_grad():
        found = model(dna=peers.dna(4096))
    for head, value in found.items():
        counts = torch.from_numpy(seeded.generator(f"counts {head}").poisson(3, tuple(value.shape))).double()
        loss = getattr(model, head).loss({"out": value}, counts)
        assert loss.item() == pytest.approx(peers.fixture(name)[0][f"poisson.{head}"][0], rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_encoder_at_lengths_that_do_not_divide(dtype):
    first = next(iter(ENCODER))
    recipe = {
        "recipe": 1, "name": "encoder", "base": "enformer", "remove": ["heads.*"], "keep": ["encoder", "encoder.*"]
    }  # fmt: skip
    model, _ = peers.load(recipe, SMALL[:2], first, "enformer-pytorch", dtype)
    for name, length in ENCODER.items():
        dna = peers.dna(length, dtype).requires_grad_()
        found = model(dna=dna, outputs=peers.edges(name))
        assert len(found) == 8
        assert peers.differences(found, name, peers.TOLERANCE[dtype]) == {}
        made = found["encoder"]
        (made * torch.from_numpy(seeded.normal("weights of encoder", tuple(made.shape))).to(dtype)).sum().backward()
        assert peers.differences({"gradient.dna": dna.grad}, name, peers.GRADIENTS[dtype]) == {}


def test_crop_of_an_even_difference():
    for key, wanted in peers.fixture("enformer_crops")[0].items():
        length, target = map(int, key.split())
        x = torch.from_numpy(seeded.normal(f"crop {length}", (1, 3, length)))
        assert torch.equal(CenterCrop(target_length=target)(x).double(), torch.from_numpy(wanted))


def test_parameters():
    model = agblocks.build("enformer", device="meta")
    assert count(model) == 251_221_292
    assert {name: count(part) for name, part in model.named_children()} == {
        "encoder": 50_877_952, "tower": 174_242_816, "crop": 0, "pointwise": 4_724_736,
        "human": 16_326_849, "mouse": 5_048_939,
    }  # fmt: skip
    assert model.resolved.info("encoder").field.width == 646


def count(model):
    return sum(p.numel() for p in model.parameters())
