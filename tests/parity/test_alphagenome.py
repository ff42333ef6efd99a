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

import alphagenome_cases as cases
from alphagenome_cases import seeded

DOUBLE = ["float64_2048", "float64_4096", "float64_6144"]
NOT_EDGES = ("gradient.", "loss", "positions", "predicted", "splice_junctions of")
DTYPES = {"float64": torch.float64, "float32": torch.float32, "full": torch.float32}


@pytest.fixture(scope="module")
def models():
    """One model for each precision: the lengths share it, one after the other."""
    made = {}

    def model(name):
        kind = name.partition("_")[0]
        if kind not in made:
            made[kind] = cases.load(name, DTYPES[kind])
        return made[kind]

    return model


def compared(model, name, dtype):
    """Our outputs for a fixture's edges; and the inputs."""
    wanted, _ = cases.fixture(name)
    inputs = cases.inputs(name, dtype)
    edges = [edge for edge in wanted if not edge.startswith(NOT_EDGES)]
    out = model(**inputs, positions=torch.from_numpy(wanted["positions"]), outputs=edges)
    return out, inputs


@pytest.mark.parametrize("name", [*DOUBLE, "float32_4096"])
def test_every_edge_and_every_head(models, name):
    dtype = DTYPES[name.partition("_")[0]]
    with torch.no_grad():
        out, _ = compared(models(name)[0], name, dtype)
    assert len(out) > 35
    assert cases.differences(out, cases.fixture(name)[0], cases.TOLERANCE[dtype]) == {}


@pytest.mark.parametrize("name", ["float64_2048", "float64_6144", "float32_4096"])
def test_gradients(models, name):
    """Of a weighed sum of embeddings and heads, with respect to the DNA and to weights all over the model."""
    wanted, _ = cases.fixture(name)
    dtype = DTYPES[name.partition("_")[0]]
    model, loaded = models(name)
    model.zero_grad()
    weighed = [e for e in wanted if e.startswith(("embed_", "atac", "rna_seq", "chip_tf", "contact", "splice"))]
    weighed = [e for e in weighed if not e.startswith(NOT_EDGES)]
    inputs = cases.inputs(name, dtype)
    inputs["dna"].requires_grad_()
    out = model(**inputs, positions=torch.from_numpy(wanted["positions"]), outputs=weighed)
    loss = sum(
        (value * torch.from_numpy(seeded.normal(f"weights of {edge}", tuple(value.shape))).to(dtype)).sum()
        / value.numel() ** 0.5
        for edge, value in out.items()
    )
    loss.backward()
    relative = 1e-9 if dtype == torch.float64 else 1e-4
    assert loss.item() == pytest.approx(wanted["loss"].item(), rel=relative)
    found = {"gradient.dna": inputs["dna"].grad}
    parameters = dict(model.named_parameters())
    for key in (key.removeprefix("gradient.") for key in wanted if key.startswith("gradient.")):
        if key != "dna":
            ours = next(o for o, t in loaded.items() if t == key)
            found[f"gradient.{key}"] = cases.theirs(model, loaded, key, parameters[ours].grad)
    assert len(found) > 20
    assert cases.differences(found, wanted, (relative, relative)) == {}


@pytest.mark.parametrize("name", DOUBLE)
def test_positions_are_predicted(models, name):
    wanted, _ = cases.fixture(name)
    with torch.no_grad():
        out = models(name)[0](
            **cases.inputs(name, torch.float64), outputs=["splice_junctions", "splice_junctions.positions"]
        )
    assert torch.equal(out["splice_junctions.positions"], torch.from_numpy(wanted["predicted"]))
    assert (wanted["predicted"] == -1).any()
    found = {"splice_junctions of predicted": out["splice_junctions"]}
    assert cases.differences(found, wanted, (1e-9, 1e-9)) == {}


@pytest.mark.parametrize("length", [1, 281, 300, 1001])
def test_the_encoder_at_any_length(models, length):
    wanted, _ = cases.fixture(f"encoder_{length}")
    dna = cases.inputs(f"encoder_{length}", torch.float64)["dna"].requires_grad_()
    edges = [e for e in wanted if not e.startswith("gradient.")]
    out = models("float64_2048")[0](dna=dna, outputs=edges)
    made = out["encoder"]
    (made * torch.from_numpy(seeded.normal("weights of encoder", tuple(made.shape)))).sum().backward()
    assert cases.differences({**out, "gradient.dna": dna.grad}, wanted, (1e-9, 1e-9)) == {}


def test_a_tower_over_many_positions():
    """640, so that constants which must not follow the length, and distances of every kind, are seen."""
    model, x = cases.tower()
    x.requires_grad_()
    wanted, _ = cases.fixture("tower_640")
    out = model(x=x, outputs=["tower.pair1", "tower.layer1", "tower.layer2"])
    for name, edge in (("tower", "tower.layer2"), ("pair", "tower.pair1")):
        weight = torch.from_numpy(seeded.normal(f"weights of {name}", tuple(out[edge].shape)))
        (out[edge] * weight).sum().backward(retain_graph=True)
    assert cases.differences({**out, "gradient.x": x.grad}, wanted, (1e-9, 1e-9)) == {}


@pytest.mark.slow
def test_the_full_size(models):
    """450 million parameters at the shortest length."""
    with torch.no_grad():
        out, _ = compared(models("full_2048")[0], "full_2048", torch.float32)
    assert cases.differences(out, cases.fixture("full_2048")[0], cases.TOLERANCE[torch.float32]) == {}


# Losses


def counts(name, *shape):
    return torch.from_numpy(seeded.positive(name, shape, 0, 1) ** 4 * 40).double()


REAL = torch.tensor([[True] * 4, [True, True, False, False]])


def loss_of(name):
    return pytest.approx(cases.fixture("losses")[0][name][0], rel=3e-6)  # the peer's totals are float32


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


@pytest.mark.parametrize("name", [*DOUBLE, "float32_4096", "encoder_281", "tower_640", "losses"])
def test_fixtures_say_what_they_are(name):
    _, about = cases.fixture(name)
    assert (about["peer"], about["version"]) == ("alphagenome-pytorch", "0.3.1")
    assert about["command"] == "python tools/fixtures/alphagenome.py"
