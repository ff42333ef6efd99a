"""What ports of AlphaGenome get wrong, put in here: the comparison with the peer's numbers finds each of them.

Every test first sees that the comparison is clean, then that with the wrong variant it is not, and which edge shows it
first.
"""

import math
import re
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from agblocks import layers
from agblocks.layers import attention, conv

sys.path.insert(0, str(Path(__file__).parent))

import peer_fixtures as peers

TOWER = ["tower.pair1", "tower.layer1", "tower.layer2"]
ENCODER = [*(f"encoder.stage{i}" for i in range(1, 8)), "encoder"]


@pytest.fixture
def tower():
    name = "alphagenome_tower_640"
    model, x = peers.alphagenome_tower(name)

    def apart():
        """The edges that differ from the peer's."""
        with torch.no_grad():
            out = model(x=x, outputs=TOWER)
        return list(peers.differences(out, name, peers.TOLERANCE[torch.float64]))

    assert apart() == []
    return model, apart


@pytest.fixture
def encoder():
    name = "alphagenome_encoder_281"
    model, _ = peers.load(peers.alphagenome(name), (), name, "alphagenome-pytorch")

    def apart(length):
        name = f"alphagenome_encoder_{length}"
        model.train().eval()  # kernels that were kept are dropped
        with torch.no_grad():
            out = model(dna=peers.alphagenome_inputs(name)["dna"], outputs=ENCODER)
        return list(peers.differences(out, name, peers.TOLERANCE[torch.float64]))

    assert apart(281) == apart(300) == []
    return model, apart


def parts(model, kind):
    found = [part for part in model.modules() if isinstance(part, kind)]
    assert found
    return found


@pytest.mark.parametrize(
    ("owner", "first"), [(layers.SequenceToPair, "tower.pair1"), (layers.PairBias, "tower.layer1")]
)
def test_erf_gelu_in_the_pair_code(tower, monkeypatch, owner, first):
    """As in three of the ports."""
    model, apart = tower
    for part in parts(model, owner):
        monkeypatch.setattr(part.activation, "approximate", "none")
    assert apart()[0] == first


def test_zeros_around_an_odd_length(encoder, monkeypatch):
    """A pool that pads by 0 makes a negative last value 0. 281 is odd, and so is what 300 comes to after two pools."""
    _, apart = encoder

    def padded(self, x):
        return F.max_pool1d(F.pad(x, (0, x.shape[-1] % 2)), 2)

    monkeypatch.setattr(layers.MaxPool, "forward", padded)
    assert apart(281)[0] == "encoder.stage2"
    assert apart(300)[0] == "encoder.stage4"


def test_unbiased_variance_of_kernels(encoder, monkeypatch):
    _, apart = encoder

    def unbiased(weight, scale):
        centred = weight - weight.mean((1, 2), keepdim=True)
        variance = weight.var((1, 2), unbiased=True)
        return centred * (scale * torch.rsqrt((weight[0].numel() * variance).clamp(min=1e-4)))[:, None, None]

    monkeypatch.setattr(conv, "standardize", unbiased)
    assert apart(300)[0] == "encoder.stage1"


def test_soft_cap_before_the_bias(tower, monkeypatch):
    _, apart = tower

    def attend(q, k, v, bias, *, repeat, cap):
        logits = torch.einsum("bqhd,bkd->bhqk", q, k) / math.sqrt(q.shape[-1])
        spread = bias.repeat_interleave(repeat, 2).repeat_interleave(repeat, 3)
        order = {"official": lambda: cap * torch.tanh((logits + spread) / cap),
                 "wrong": lambda: cap * torch.tanh(logits / cap) + spread}  # fmt: skip
        return torch.einsum("bhqk,bkd->bqhd", order[variant]().softmax(-1), v)

    monkeypatch.setattr(attention, "attend", attend)
    variant = "official"
    assert apart() == [], "the stand-in itself is right"
    variant = "wrong"
    assert apart()[0] == "tower.layer1"


@pytest.mark.parametrize("wrong", ["without its offset", "centred"])
@pytest.mark.parametrize(
    ("owner", "first"),
    [(layers.SequenceToPair, "tower.pair1"), (layers.RowAttention, "tower.pair1"), (layers.PairMLP, "tower.pair1")],
)
def test_rms_norm(tower, monkeypatch, wrong, owner, first):
    """One port centres the norm of the pair map's MLP."""
    model, apart = tower
    for part in parts(model, owner):
        norm = part.norm
        assert norm.rms
        if wrong == "centred":
            monkeypatch.setattr(norm, "rms", False)
        else:
            monkeypatch.setattr(norm, "bias", nn.Parameter(torch.zeros_like(norm.bias)))
    assert apart()[0] == first


def test_rotary_positions_by_the_length(tower, monkeypatch):
    """8192 is a constant of the model."""
    model, apart = tower
    for rope in parts(model, layers.Rope):
        monkeypatch.setattr(rope, "max_position", 640)
        rope.reset_parameters()
    assert apart()[0] == "tower.layer1"


def test_distances_by_the_length(tower, monkeypatch):
    """512 is a constant of the model; here it follows the 40 positions of the pair map."""
    model, apart = tower
    monkeypatch.setattr(layers.SequenceToPair, "FARTHEST", 40)
    for part in parts(model, layers.SequenceToPair):
        part.thresholds.copy_(torch.arange(32) + 9.0 ** (torch.arange(32, dtype=torch.float64) / 32))
    assert apart()[0] == "tower.pair1"


def test_the_table_of_wrong_variants_is_whole():
    """docs/testing.md names every test of a wrong variant, and no other."""
    here = Path(__file__).parent
    files = [Path(__file__), here / "test_enformer_borzoi_wrong_variants.py", here / "test_mpra_nets.py"]
    found = {test for file in files for test in re.findall(r"^def (test_\w+)", file.read_text(), re.M)
             if "wrong_variants" in file.name or "wrong" in test}  # fmt: skip
    page = (peers.ROOT / "docs" / "testing.md").read_text().partition("## Testing your own adapters")[0]
    named = set(re.findall(r"`(test_\w+)` \|", page))
    assert named == found - {"test_the_table_of_wrong_variants_is_whole"}
