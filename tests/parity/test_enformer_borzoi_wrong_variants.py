"""What ports of Enformer and Borzoi get wrong, put in here: the comparison with the peers' numbers finds each of them.

Every test first sees that the comparison is clean, then that with the wrong variant it is not, and where first.
"""

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from agblocks.blocks.crop import CenterCrop
from agblocks.layers import AttentionPool, MaxPool, QuickGELU
from agblocks.layers.norm import LayerNorm

sys.path.insert(0, str(Path(__file__).parent))

import peer_fixtures as peers

ENFORMER = (
    "encoder.channels=96", "encoder.divisible_by=16", "tower.depth=2", "tower.heads=4", "tower.key_dim=16",
    "tower.train_length=32", "crop.target_length=16", "human.tracks=5", "mouse.tracks=3",
)  # fmt: skip
BORZOI = (
    "encoder.stage7.channels=96", "tower.depth=2", "tower.heads=4", "tower.key_dim=16", "crop.target_length=64"
)  # fmt: skip


def compared(recipe, overrides, peer, name, edges):
    """The model, and what says which edges are apart, in the order of the data."""
    model, _ = peers.load(recipe, overrides, name, peer)
    length = int(name.rpartition("_")[2])

    def apart():
        with torch.no_grad():
            found = model(dna=peers.dna(length), outputs=edges)
        return list(peers.differences(found, name, peers.TOLERANCE[torch.float64]))

    assert apart() == []
    return model, apart


@pytest.fixture
def enformer():
    edges = ["encoder.stage1", "encoder.stage2", "encoder", "tower.layer1", "pointwise", "human"]
    return compared("enformer", ENFORMER, "enformer-pytorch", "enformer_whole_4096", edges)


@pytest.fixture
def borzoi():
    edges = ["encoder.stage1", "encoder.stage2", "encoder.stage7", "tower.layer1", "decoder.up64", "pointwise"]
    return compared("borzoi", BORZOI, "borzoi-pytorch", "borzoi_whole_2048", edges)


def encoder(recipe, overrides, peer, name):
    cut = {"recipe": 1, "name": "cut", "base": recipe, "remove": ["heads.*"], "keep": ["encoder", "encoder.*"]}
    return compared(cut, overrides, peer, name, [f"encoder.stage{i}" for i in range(1, 8)] + ["encoder"])


def swap(model, kind, made):
    """Put another module in the place of every one of a kind."""
    places = [(part, name) for part in model.modules() for name, child in part.named_children() if type(child) is kind]
    assert places
    for part, name in places:
        setattr(part, name, made())


@pytest.mark.parametrize("wrong", [nn.GELU, lambda: nn.GELU(approximate="tanh")])
def test_enformers_gelu_is_the_sigmoid_one(enformer, wrong):
    model, apart = enformer
    swap(model, QuickGELU, wrong)
    assert apart()[0] == "encoder.stage1"


@pytest.mark.parametrize("wrong", [nn.GELU, QuickGELU])
def test_borzois_gelu_is_the_tanh_one(borzoi, wrong):
    model, apart = borzoi
    swap(model, nn.GELU, wrong)
    assert apart()[0] == "encoder.stage2"


@pytest.mark.parametrize(("kind", "first"), [(nn.BatchNorm1d, "encoder.stage2"), (LayerNorm, "tower.layer1")])
def test_borzois_norms_add_a_thousandth(borzoi, kind, first):
    model, apart = borzoi
    for part in model.modules():
        if isinstance(part, kind):
            part.eps = 1e-5
    assert apart()[0] == first


@pytest.mark.parametrize("tower", ["enformer", "borzoi"])
@pytest.mark.parametrize("wrong", ["train_length", "scale", "position_bias", "sign"])
def test_relative_attention(request, tower, wrong):
    model, apart = request.getfixturevalue(tower)
    part = model.tower.layer1.attention
    if wrong == "train_length":  # as if the basis followed the length that comes
        part.train_length = 1536 if tower == "enformer" else 16
    elif wrong == "scale":
        part.scale = (96 // 4) ** -0.5
    elif wrong == "position_bias":
        part.position_bias.data.copy_(part.content_bias.data)
    else:  # distances counted from the key to the query
        part.positions.weight.data[:, part.features // 2 :] *= -1
    assert apart()[0] == "tower.layer1"


def test_a_rest_in_an_attention_pool_has_no_weight_for_what_is_not_there(monkeypatch):
    _, apart = encoder("enformer", ENFORMER[:2], "enformer-pytorch", "enformer_encoder_281")

    def unmasked(self, x):
        x = F.pad(x, (0, x.shape[-1] % 2))
        weights = F.conv1d(x, self.weight[:, :, None]).unflatten(-1, (-1, 2)).softmax(-1)
        return (x.unflatten(-1, (-1, 2)) * weights).sum(-1)

    monkeypatch.setattr(AttentionPool, "forward", unmasked)
    assert apart()[0] == "encoder.stage2"


def test_borzois_pools_leave_a_rest_out(monkeypatch):
    model, apart = encoder("borzoi", BORZOI[:1], "borzoi-pytorch", "borzoi_encoder_281")
    for part in model.modules():
        if isinstance(part, MaxPool):
            part.rest = True
    assert apart()[0] == "encoder.stage2"


def test_the_crop_of_an_odd_difference_loses_no_position():
    """The package negates before it halves: 11 to 4 leaves 3 there. The official model keeps 4, one more cut on the right."""

    def packages(x, target):
        trim = (target - x.shape[-1]) // 2
        return x[..., -trim:trim]

    x = torch.arange(11.0)[None, None]
    assert torch.equal(CenterCrop(target_length=5)(x), packages(x, 5))
    assert CenterCrop(target_length=4)(x).flatten().tolist() == [3, 4, 5, 6]
    assert packages(x, 4).flatten().tolist() == [4, 5, 6]


def test_skips_are_added_after_their_projection(borzoi):
    model, apart = borzoi
    model.decoder.up64.skip.norm = nn.Identity()
    assert apart()[0] == "decoder.up64"


def test_separable_convolutions_have_no_norm(borzoi):
    model, apart = borzoi
    model.decoder.up64.separable.pointwise = nn.Sequential(
        nn.BatchNorm1d(96).double(), model.decoder.up64.separable.pointwise
    )
    model.eval()
    assert apart()[0] == "decoder.up64"
