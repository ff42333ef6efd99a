"""Which tracks a head learns, at which resolution, and on which scale."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from agblocks import build, resolve
from agblocks.data.tracks import Track
from agblocks.layers.squash import squash
from agblocks.training import RunError
from agblocks.training.tracks import TrackWiring, wire_tracks
from agblocks.training.wiring import Wiring

TRACKS = [
    Track("gc", "x"),
    Track("fwd", "x", pair="rev", aggregation="sum"),
    Track("rev", "x", pair="fwd", aggregation="sum"),
]
MEANS = [4.0, 3.0, 2.5]


def recipe(**heads):
    """An encoder of stride 16 (a position sees 19 + 17 + ... bases), heads as said."""
    nodes = {
        "encoder": {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": 8, "growth": 4, "stages": 4}}
    }
    return {"recipe": 1, "name": "r", "inputs": {"dna": "B 4 L"}, "nodes": nodes, "heads": heads}


def coverage(edge, **args):
    return {"block": "head.coverage", "in": edge, "args": {"tracks": 3, **args}}


def test_heads_at_several_resolutions():
    resolved = resolve(recipe(fine=coverage("encoder.stage1"), coarse=coverage("encoder")))
    wiring = wire_tracks(resolved, TRACKS, 128).with_means(MEANS)
    assert [(e.head, e.resolution, e.offset, e.bins, e.swap) for e in wiring.layouts] == [
        ("fine", 1, 0, 128, (0, 2, 1)),
        ("coarse", 16, 0, 8, (0, 2, 1)),
    ]
    assert wiring.of["fine"].unit == (4.0, 3.0, 2.5) and wiring.of["coarse"].unit == (4.0, 48.0, 40.0)
    assert [t.name for t in wiring.targets] == [f"{h}/{t.name}" for h in ("fine", "coarse") for t in TRACKS]
    assert not wiring.of["fine"].own
    text = json.loads(json.dumps(wiring.to_dict()))
    assert TrackWiring.from_dict(text) == wiring
    with pytest.raises((KeyError, TypeError)):
        Wiring.from_dict(text)
    for break_it in ({"layouts": [{**text["layouts"][0], "more": 1}]}, {"layouts": text["layouts"][:1]}):
        with pytest.raises((KeyError, ValueError)):
            TrackWiring.from_dict({**text, **break_it})


def test_resolutions_of_tracks_choose_their_heads():
    tracks = [Track("a", "x"), Track("b", "x", resolutions=(1,)), Track("c", "x", resolutions=(16,))]
    made = recipe(fine=coverage("encoder.stage1", tracks=2), coarse=coverage("encoder", tracks=2))
    wiring = wire_tracks(resolve(made), tracks, 64)
    assert {head: of.names for head, of in wiring.of.items()} == {"fine": ("a", "b"), "coarse": ("a", "c")}
    wiring = wire_tracks(resolve(made), tracks, 64, {"fine": ["c", "a"], "coarse": ["b", "a"]})
    assert wiring.of["fine"].tracks == (2, 0)
    with pytest.raises(RunError, match=r"head 'coarse' has 2 tracks, but would learn 1: a; set coarse.tracks=1"):
        wire_tracks(resolve(made), tracks[:2], 64)
    with pytest.raises(RunError, match=r"no head learns c; the heads have bins of fine 1 bp, coarse 16 bp"):
        wire_tracks(resolve(made), tracks, 64, {"fine": ["a", "b"], "coarse": ["a", "b"]})
    with pytest.raises(RunError, match=r"head 'coarse' would learn nothing"):
        wire_tracks(resolve(made), tracks, 64, {"fine": ["a", "b"]})
    with pytest.raises(RunError, match=r"there is no track 'd'"):
        wire_tracks(resolve(made), tracks, 64, {"fine": ["a", "d"], "coarse": ["a", "b"]})


def test_windows_and_heads_that_do_not_fit():
    resolved = resolve(recipe(coarse=coverage("encoder")))
    with pytest.raises(RunError, match=r"7 bins of 16 bp pass a window of 100 bases; wanted a multiple of 16"):
        wire_tracks(resolved, TRACKS, 100)
    with pytest.raises(RunError, match=r"don't fit 'yeast_alphagenome': it wants a length where"):
        wire_tracks(resolve("yeast_alphagenome"), [Track(n, "x") for n in "abcde"], 1000)
    scalar = resolve(recipe(one={"block": "head.scalar", "in": "encoder", "args": {"targets": 3}}))
    with pytest.raises(RunError, match=r"head 'one' gives \[B 3\], no track along the sequence"):
        wire_tracks(scalar, TRACKS, 128)


def test_a_cropped_head_says_where_its_bins_lie():
    made = recipe(coarse=coverage("crop"))
    made["nodes"]["crop"] = {"block": "crop.sides", "in": "encoder", "args": {"crop": 2}}
    wiring = wire_tracks(resolve(made), TRACKS, 128)
    assert (wiring.of["coarse"].offset, wiring.of["coarse"].bins) == (32, 4)
    made["nodes"]["crop"] = {"block": "crop.center", "in": "encoder", "args": {"target_length": 6}}
    centre = wire_tracks(resolve(made), TRACKS, 128)
    assert (centre.of["coarse"].offset, centre.of["coarse"].bins) == (16, 6)


def reach_by_gradient(model, head, wiring, length):
    """How far from the bases of each bin the DNA reaches that moves it."""
    layout, furthest = wiring.of[head], 0
    x = torch.randn(1, 4, length, dtype=torch.float64, requires_grad=True)
    out = model.double().eval()(dna=x)[head]
    for i in range(layout.bins):
        (grad,) = torch.autograd.grad(out[0, :, i].sum(), x, retain_graph=True)
        seen = np.flatnonzero(grad[0].abs().sum(0).numpy())
        first = layout.offset + i * layout.resolution
        furthest = max(furthest, first - seen.min(), seen.max() - (first + layout.resolution - 1))
    return furthest


@pytest.mark.parametrize("crop", [0, 2])
def test_sight_is_what_a_model_sees(crop):
    made = recipe(coarse=coverage("crop"))
    made["nodes"]["crop"] = {"block": "crop.sides", "in": "encoder", "args": {"crop": crop}}
    resolved = resolve(made)
    wiring = wire_tracks(resolved, TRACKS, 512)
    sight = wiring.sight(resolved, shift=5)
    assert sight.reach == reach_by_gradient(build(resolved, seed=0), "coarse", wiring, 512)
    assert (sight.target_start, sight.target_stop, sight.shift) == (16 * crop, 512 - 16 * crop, 5)
    assert wire_tracks(resolve("yeast_alphagenome"), [Track(n, "x") for n in "abcde"], 4096).sight(
        resolve("yeast_alphagenome")
    ).reach is None  # fmt: skip


def test_scales_there_and_back():
    tracks = [Track("a", "x"), Track("b", "x", squash="old"), Track("c", "x", squash="new", aggregation="sum")]
    wiring = wire_tracks(resolve(recipe(coarse=coverage("encoder"))), tracks, 64).with_means([5.0, 4.0, 3.0])
    target = torch.tensor(np.random.default_rng(0).gamma(1, 200, (2, 3, 4)), dtype=torch.float32)
    target[0, 1, 2] = torch.nan
    trained = wiring.trained({"coarse": target})["coarse"]
    torch.testing.assert_close(trained[:, 0], target[:, 0] / 5)
    torch.testing.assert_close(trained[:, 1], squash(target[:, 1], form="old"), equal_nan=True)
    torch.testing.assert_close(trained[:, 2], squash(target[:, 2], form="new"))
    torch.testing.assert_close(
        wiring.measured({"coarse": trained})["coarse"], target, equal_nan=True, rtol=1e-4, atol=1e-3
    )
    plain = wire_tracks(resolve(recipe(coarse=coverage("encoder"))), TRACKS, 64).with_means(MEANS, standardise=False)
    assert plain.of["coarse"].unit == (4.0, 48.0, 40.0)  # what scores across tracks count in
    for there in (plain.trained, plain.measured):
        torch.testing.assert_close(there({"coarse": target})["coarse"], target, equal_nan=True)
    turned = wiring.turned({"coarse": target})["coarse"]
    torch.testing.assert_close(turned, target.flip(-1), equal_nan=True)


def own(**args):
    made = recipe(h={"block": "head.tracks", "in": {"x": "encoder", "organism": "organism"}, "args": args})
    made["inputs"]["organism"] = "B"
    return resolve(made)


def test_alphagenomes_heads_get_the_means():
    resolved = own(tracks=4, resolution=16, real=[4, 3])
    wiring = wire_tracks(resolved, [Track(t.name, "x", t.pair, 1, aggregation=t.aggregation) for t in TRACKS], 128)
    assert wiring.constants == (("organism", 1),)
    wiring = wiring.with_means(MEANS, standardise=False)  # their scale is no choice
    model = build(resolved, seed=0)
    wiring.ready(model)
    assert model.h.track_means.tolist() == [[1, 1, 1, 1], [0.25, 3.0, 2.5, 1.0]]
    made = model(dna=torch.zeros(2, 4, 128), organism=torch.ones(2, dtype=torch.int64), outputs=["h", "h.unit"])
    assert made["h.unit"][0].tolist() == [4.0, 48.0, 40.0, 16.0]  # a mean, and sums of 16 bases
    target = torch.rand(2, 3, 8)
    trained = wiring.trained({"h": target})["h"]
    assert torch.equal(trained[:, :3], target) and trained[:, 3].isnan().all()
    assert torch.equal(wiring.measured(made)["h"], made["h"][:, :3])


def test_heads_that_scale_themselves_and_do_not_fit():
    said = r"head 'h' has 3 tracks of this organism, but would learn 2: gc, x; set h.real=2"
    with pytest.raises(RunError, match=said):
        wire_tracks(own(tracks=4, resolution=16, real=[3, 1]), [TRACKS[0], Track("x", "x")], 128)
    with pytest.raises(RunError, match=r"says resolution 1, but its bins are of 16 bp; set h.resolution=16"):
        wire_tracks(own(tracks=3), TRACKS, 128)
    with pytest.raises(RunError, match=r"has a scale of its own, so 'b' is not squashed"):
        wire_tracks(own(tracks=1, resolution=16), [Track("b", "x", squash="old")], 128)
    with pytest.raises(RunError, match=r"track 'b' is of organism 1, trained is 0; one at a time"):
        wire_tracks(own(tracks=2, resolution=16), [Track("a", "x"), Track("b", "x", organism=1)], 128)
    with pytest.raises(RunError, match=r"input 'organism' is 2, wanted a whole number from 0 to 1"):
        wire_tracks(own(tracks=1, resolution=16), [Track("a", "x", organism=2)], 128)
