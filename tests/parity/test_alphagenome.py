"""AlphaGenome against alphagenome-pytorch 0.3.1, made official where it differs: edges, heads, gradients, losses.

The numbers are in tests/fixtures, by tools/fixtures/alphagenome.py, which says what was run and how.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from agblocks.heads.contacts import ContactHead
from agblocks.heads.junctions import SpliceJunctionHead
from agblocks.heads.splicing import SpliceSiteHead, SpliceUsageHead
from agblocks.heads.tracks import TrackHead

sys.path.insert(0, str(Path(__file__).parent))

import peer_fixtures as peers
from peer_fixtures import seeded

DOUBLE = ["alphagenome_float64_2048", "alphagenome_float64_4096", "alphagenome_float64_6144"]
SINGLE, FULL = "alphagenome_float32_4096", "alphagenome_full_2048"
NOT_EDGES = ("gradient.", "loss", "positions", "predicted", "splice_junctions of")
DTYPES = {"float64": torch.float64, "float32": torch.float32, "full": torch.float32}


@pytest.fixture(scope="module")
def models():
    """One model for each precision: the lengths share it, one after the other."""
    made = {}

    def model(name):
        kind = name.split("_")[1]
        if kind not in made:
            made[kind] = peers.load(peers.alphagenome(name), (), name, "alphagenome-pytorch", DTYPES[kind])
        return made[kind]

    return model


def compared(model, name, dtype):
    """Our outputs for a fixture's edges; and the inputs."""
    wanted, _ = peers.fixture(name)
    inputs = peers.alphagenome_inputs(name, dtype)
    edges = [edge for edge in wanted if not edge.startswith(NOT_EDGES)]
    out = model(**inputs, positions=torch.from_numpy(wanted["positions"]), outputs=edges)
    return out, inputs


@pytest.mark.parametrize("name", [*DOUBLE, SINGLE])
def test_every_edge_and_every_head(models, name):
    dtype = DTYPES[name.split("_")[1]]
    with torch.no_grad():
        out, _ = compared(models(name)[0], name, dtype)
    assert len(out) > 35
    assert peers.differences(out, name, peers.TOLERANCE[dtype]) == {}


@pytest.mark.parametrize("name", [DOUBLE[0], DOUBLE[2], SINGLE])
def test_gradients(models, name):
    """Of a weighed sum of embeddings and heads, with respect to the DNA and to weights all over the model."""
    wanted, _ = peers.fixture(name)
    dtype = DTYPES[name.split("_")[1]]
    model, loaded = models(name)
    model.zero_grad()
    weighed = [e for e in wanted if e.startswith(("embed_", "atac", "rna_seq", "chip_tf", "contact", "splice"))]
    weighed = [e for e in weighed if not e.startswith(NOT_EDGES)]
    inputs = peers.alphagenome_inputs(name, dtype)
    inputs["dna"].requires_grad_()
    out = model(**inputs, positions=torch.from_numpy(wanted["positions"]), outputs=weighed)
    loss = sum(
        (value * torch.from_numpy(seeded.normal(f"weights of {edge}", tuple(value.shape))).to(dtype)).sum()
        / value.numel() ** 0.5
        for edge, value in out.items()
    )
    loss.backward()
    assert loss.item() == pytest.approx(wanted["loss"].item(), rel=peers.GRADIENTS[dtype][1])
    found = {"gradient.dna": inputs["dna"].grad}
    parameters = dict(model.named_parameters())
    for key in (key.removeprefix("gradient.") for key in wanted if key.startswith("gradient.")):
        if key != "dna":
            ours = next(o for o, t in loaded.items() if t == key)
            found[f"gradient.{key}"] = peers.alphagenome_layout(model, loaded, key, parameters[ours].grad)
    assert len(found) > 20
    assert peers.differences(found, name, peers.GRADIENTS[dtype]) == {}


@pytest.mark.parametrize("name", DOUBLE)
def test_positions_are_predicted(models, name):
    wanted, _ = peers.fixture(name)
    with torch.no_grad():
        out = models(name)[0](
            **peers.alphagenome_inputs(name, torch.float64), outputs=["splice_junctions", "splice_junctions.positions"]
        )
    assert torch.equal(out["splice_junctions.positions"], torch.from_numpy(wanted["predicted"]))
    assert (wanted["predicted"] == -1).any()
    found = {"splice_junctions of predicted": out["splice_junctions"]}
    assert peers.differences(found, name, peers.TOLERANCE[torch.float64]) == {}


@pytest.mark.parametrize("length", [1, 281, 300, 1001])
def test_the_encoder_at_any_length(models, length):
    name = f"alphagenome_encoder_{length}"
    dna = peers.alphagenome_inputs(name)["dna"].requires_grad_()
    out = models(DOUBLE[0])[0](dna=dna, outputs=peers.edges(name))
    made = out["encoder"]
    (made * torch.from_numpy(seeded.normal("weights of encoder", tuple(made.shape)))).sum().backward()
    assert peers.differences(out, name, peers.TOLERANCE[torch.float64]) == {}
    assert peers.differences({"gradient.dna": dna.grad}, name, peers.GRADIENTS[torch.float64]) == {}


def test_a_tower_over_many_positions():
    """640, so that constants which must not follow the length, and distances of every kind, are seen."""
    name = "alphagenome_tower_640"
    model, x = peers.alphagenome_tower(name)
    x.requires_grad_()
    out = model(x=x, outputs=["tower.pair1", "tower.layer1", "tower.layer2"])
    for track, edge in (("tower", "tower.layer2"), ("pair", "tower.pair1")):
        weight = torch.from_numpy(seeded.normal(f"weights of {track}", tuple(out[edge].shape)))
        (out[edge] * weight).sum().backward(retain_graph=True)
    assert peers.differences(out, name, peers.TOLERANCE[torch.float64]) == {}
    assert peers.differences({"gradient.x": x.grad}, name, peers.GRADIENTS[torch.float64]) == {}


@pytest.mark.slow
def test_the_full_size(models):
    """450 million parameters at the shortest length."""
    with torch.no_grad():
        out, _ = compared(models(FULL)[0], FULL, torch.float32)
    assert peers.differences(out, FULL, peers.TOLERANCE[torch.float32]) == {}


# Losses


def counts(name, *shape):
    return torch.from_numpy(seeded.positive(name, shape, 0, 1) ** 4 * 40).double()


REAL = torch.tensor([[True] * 4, [True, True, False, False]])


def loss_of(name):
    return pytest.approx(peers.fixture("alphagenome_losses")[0][name][0], rel=3e-6)  # the peer's totals are float32


@pytest.mark.parametrize("squash", [False, True])
def test_the_loss_of_tracks(squash):
    head = TrackHead(8, tracks=4, resolution=128, squash=squash, real=[4, 2], segment=16 * 128).double()
    head.track_means.copy_(torch.from_numpy(seeded.positive("track_means", (2, 4))))
    outputs = {"scaled": counts("prediction", 2, 4, 64), "unit": head.track_means * 128, "real": REAL}
    assert head.loss(outputs, counts("target", 2, 4, 64) * 128).item() == loss_of(f"tracks squash={squash}")


def test_the_loss_of_contacts():
    target = counts("contacts", 2, 3, 3, 4)
    target[0, 1, 2] = torch.nan
    outputs = {"out": counts("prediction of contacts", 2, 3, 3, 4), "real": REAL}
    assert ContactHead(8, tracks=4, real=[4, 2]).loss(outputs, target).item() == loss_of("contacts")


def test_the_loss_of_splice_sites():
    labels = torch.eye(5)[seeded.generator("labels").integers(0, 5, (2, 30))].double()
    labels[:, ::3] = 0
    logits = torch.from_numpy(seeded.normal("logits", (2, 30, 5), 2)).double()
    assert SpliceSiteHead(8).loss({"logits": logits.mT}, labels.mT).item() == loss_of("sites")


def test_the_loss_of_usage():
    logits = torch.from_numpy(seeded.normal("logits of usage", (2, 4, 30), 2)).double()
    target = counts("shares", 2, 4, 30) / 20
    assert (target > 1).any(), "shares are clipped"
    assert SpliceUsageHead(8, tracks=4).loss({"logits": logits, "real": REAL}, target).item() == loss_of("usage")


def test_the_loss_of_junctions():
    rows = [np.sort(seeded.generator(f"sites {i}").choice(50, 6, replace=False)) for i in range(8)]
    positions = torch.from_numpy(np.array(rows).reshape(2, 4, 6))
    positions[:, :, -2:] = -1
    head = SpliceJunctionHead(8, 5, tissues=4, candidates=6, channels=4)
    outputs = {"out": counts("predicted reads", 2, 6, 6, 8), "positions": positions, "real": REAL}
    assert head.loss(outputs, counts("reads", 2, 6, 6, 8)).item() == loss_of("junctions")


@pytest.mark.parametrize(
    "name", [*DOUBLE, SINGLE, *(f"alphagenome_{n}" for n in ("encoder_281", "tower_640", "losses"))]
)
def test_fixtures_say_what_they_are(name):
    _, about = peers.fixture(name)
    assert (about["peer"], about["version"]) == ("alphagenome-pytorch", "0.3.1")
    assert about["command"] == "python tools/fixtures/alphagenome.py"
