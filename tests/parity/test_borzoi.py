"""Borzoi against borzoi-pytorch 0.5.1: edges, heads, gradients, scales; Flashzoi, which runs there on a GPU alone,
against a second implementation from its formulas.

The numbers are in tests/fixtures, by tools/fixtures/borzoi.py, which says what was run and how.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import agblocks
from agblocks.layers.squash import squash, unsquash

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "layers"))

import naive
import peer_fixtures as peers
from peer_fixtures import seeded

SMALL = ("encoder.stage7.channels=96", "tower.depth=2", "tower.heads=4", "tower.key_dim=16")
WHOLE = {"borzoi_whole_2048": (2048, 64), "borzoi_whole_4096": (4096, 80)}
ENCODER = {f"borzoi_encoder_{length}": length for length in (128, 281, 300)}
DTYPES = [torch.float64, torch.float32]


@pytest.fixture(scope="module")
def models():
    """A model for each number of bins and precision, side by side."""
    made = {}

    def model(name, dtype):
        if (name, dtype) not in made:
            sizes = (*SMALL, f"crop.target_length={WHOLE[name][1]}")
            made[name, dtype] = peers.load("borzoi", sizes, name, "borzoi-pytorch", dtype)
        return made[name, dtype]

    return model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WHOLE)
def test_every_edge_and_both_heads(models, name, dtype):
    with torch.no_grad():
        found = models(name, dtype)[0](dna=peers.dna(WHOLE[name][0], dtype), outputs=peers.edges(name))
    assert len(found) == 15
    assert peers.differences(found, name, peers.TOLERANCE[dtype]) == {}


@pytest.mark.parametrize(
    ("name", "dtype"), [("borzoi_whole_2048", torch.float64), ("borzoi_whole_4096", torch.float32)]
)
def test_gradients(models, name, dtype):
    model, names = models(name, dtype)
    found, wrong = peers.gradients(
        model, names, peers.dna(WHOLE[name][0], dtype), ["human", "mouse"], name, peers.GRADIENTS[dtype]
    )
    assert len(found) == 15
    assert wrong == {}


def test_one_model_takes_two_lengths(models):
    """The features follow the training length: 32 positions have the peer's numbers after 16 were seen, and before."""
    model = models("borzoi_whole_2048", torch.float64)[0]
    edges = ["tower.layer2", "decoder.up32"]
    for name in ("borzoi_whole_2048", "borzoi_whole_4096", "borzoi_whole_2048"):
        with torch.no_grad():
            found = model(dna=peers.dna(WHOLE[name][0]), outputs=edges)
        assert peers.differences(found, name, peers.TOLERANCE[torch.float64]) == {}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_encoder_at_lengths_that_do_not_divide(dtype):
    recipe = {"recipe": 1, "name": "encoder", "base": "borzoi", "remove": ["heads.*"], "keep": ["encoder", "encoder.*"]}
    model, _ = peers.load(recipe, SMALL[:1], next(iter(ENCODER)), "borzoi-pytorch", dtype)
    for name, length in ENCODER.items():
        dna = peers.dna(length, dtype).requires_grad_()
        found = model(dna=dna, outputs=peers.edges(name))
        assert len(found) == 8
        assert peers.differences(found, name, peers.TOLERANCE[dtype]) == {}
        made = found["encoder"]
        (made * torch.from_numpy(seeded.normal("weights of encoder", tuple(made.shape))).to(dtype)).sum().backward()
        assert peers.differences({"gradient.dna": dna.grad}, name, peers.GRADIENTS[dtype]) == {}


def test_squashed_scale_is_undone_as_published():
    wanted = peers.fixture("borzoi_scales")[0]
    for form, top in (("old", 8), ("new", 800)):
        x = torch.linspace(0, top, 200).double()
        found = unsquash(x, form=form)
        assert torch.allclose(found, torch.from_numpy(wanted[form]), rtol=1e-12, atol=1e-12)
        assert torch.allclose(squash(found, form=form), x, rtol=1e-9, atol=1e-9)


def test_squashing_has_gradients_at_zero_and_at_the_clip():
    for form in ("old", "new"):
        x = unsquash(
            torch.tensor([0.5, 3.84, 5.0]).double() * (1 if form == "old" else 100), form=form
        ).requires_grad_()
        squash(x, form=form).sum().backward()
        assert x.grad.isfinite().all()


def test_the_loss_of_borzoi_by_hand():
    head = agblocks.build("borzoi_small").human
    p, t = (torch.from_numpy(seeded.positive(name, (2, 5, 7))).double() for name in ("p", "t"))
    t[0, 1, 2], t[1, 4] = torch.nan, torch.nan
    terms = []
    for b in range(2):
        for track in range(5):
            there = [i for i in range(7) if not t[b, track, i].isnan()]
            if not there:
                continue
            counts, rates = (np.array([x[b, track, i].item() for i in there]) for x in (t, p))
            multinomial = -(counts * np.log(rates / rates.sum())).sum()
            poisson = rates.sum() - counts.sum() * np.log(rates.sum())
            terms.append((multinomial + 0.2 * poisson) / len(there))
    assert head.loss({"out": p}, t).item() == pytest.approx(np.mean(terms), rel=1e-6)


def test_parameters():
    model = agblocks.build("borzoi", device="meta")
    assert {name: count(part) for name, part in model.named_children()} == {
        "encoder": 31_232 + 18_592_672 + 9_834_496, "tower": 126_066_688,
        "decoder": 1_970_176 + 3 * 2_363_904 + 2 * 2_365_440, "crop": 0, "pointwise": 2_954_112,
        "human": 14_620_731, "mouse": 5_009_968,
    }  # fmt: skip
    assert count(model) == 190_902_667


# Flashzoi


def test_parameters_of_flashzoi():
    """Borzoi with another attention: queries and the output C x C, keys and values half of that, biases everywhere."""
    channels, layers = 1536, 8
    theirs = 2 * channels * (channels + 1) + 2 * (channels // 2) * (channels + 1)
    borzois = 2 * channels * 512 + channels * channels + channels * (channels + 1) + 32 * 512 + 2 * 512
    assert count(agblocks.build("flashzoi", device="meta")) == 190_902_667 + layers * (theirs - borzois) == 197_079_435


@pytest.mark.parametrize("length", [1, 7, 20])
def test_a_layer_of_flashzoi_position_by_position(length):
    model = agblocks.build({
        "recipe": 1, "inputs": {"x": "B 48 L"}, "keep": ["tower"],
        "nodes": {"tower": {"block": "tower.flashzoi", "in": "x",
                            "args": {"depth": 1, "heads": 4, "kv_heads": 2, "rotary_dim": 8}}},
    }).double().eval()  # fmt: skip
    layer = model.tower.layer1
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            mean = 1.0 if "norm.weight" in name else 0.0
            parameter.copy_(torch.from_numpy(seeded.normal(name, tuple(parameter.shape), 0.3, mean)))
    x = torch.from_numpy(seeded.normal(f"track {length}", (2, 48, length))).double()
    with torch.no_grad():
        found = model(x=x)["tower"].numpy()
    assert np.abs(found - flashzoi_layer(x.numpy(), layer)).max() < 1e-10


def flashzoi_layer(x, layer, heads=4, kv_heads=2, rotary=8, base=20000.0):
    """From the facts: pre-norm, half-split rotation of the first channels, grouped heads, scale width ** -0.5."""
    h = x.transpose(0, 2, 1)
    part, width = layer.attention, x.shape[1] // heads

    def turned(v):
        v = v.copy()
        for position in range(v.shape[1]):
            for i in range(rotary // 2):
                angle = position / base ** (2 * i / rotary)
                a, b = v[:, position, ..., i].copy(), v[:, position, ..., i + rotary // 2].copy()
                v[:, position, ..., i] = a * np.cos(angle) - b * np.sin(angle)
                v[:, position, ..., i + rotary // 2] = a * np.sin(angle) + b * np.cos(angle)
        return v

    normed = norm(h, part.norm)
    split = lambda linear, n: naive.linear(normed, linear).reshape(*h.shape[:2], n, width)  # noqa: E731
    q, k, v = turned(split(part.q, heads)), turned(split(part.k, kv_heads)), split(part.v, kv_heads)
    mixed = np.zeros_like(q)
    for head in range(heads):
        shared = head // (heads // kv_heads)
        logits = q[:, :, head] @ k[:, :, shared].transpose(0, 2, 1) * width**-0.5
        mixed[:, :, head] = naive.softmax(logits) @ v[:, :, shared]
    h = h + naive.linear(mixed.reshape(h.shape), part.out)
    hidden = np.maximum(naive.linear(norm(h, layer.mlp.norm), layer.mlp.up), 0)
    return (h + naive.linear(hidden, layer.mlp.down)).transpose(0, 2, 1)


def norm(x, module):
    """Layer norm with the eps of Borzoi."""
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    return scaled * naive.array(module.weight) + naive.array(module.bias)


def count(model):
    return sum(p.numel() for p in model.parameters())
