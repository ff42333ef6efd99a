"""Multiply-adds counted by torch, against the textbook's formulas for each kind of block."""

import pytest

from agblocks import resolve
from agblocks.graph import describe
from agblocks.graph.cost import cost


def one(block, x="B 8 L", **args):
    return resolve(
        {"recipe": 1, "inputs": {"x": x}, "nodes": {"n": {"block": block, "in": "x", "args": args}}, "keep": ["n"]}
    )


@pytest.mark.parametrize(
    ("block", "args", "per_base"),
    [
        ("conv.stem", {"channels": 6, "kernel": 5}, 8 * 6 * 5),
        ("conv.block", {"channels": 6, "kernel": 3, "standardize": True}, 8 * 6 * 3),
        ("conv.next", {"kernel": 7, "expand": 4}, 8 * 7 + 2 * 8 * 32),
        ("conv.down", {"growth": 4}, (8 * 12 + 12 * 12) * 5 / 2),
        ("conv.up_plain", {"channels": 6}, (8 * 6 * 5) + 2 * (6 * 6 * 5)),
        ("pool.attention", {"pool": 4}, 8 * 8),
        ("pool.max", {}, 0),
        ("tower.lstm", {"hidden": 5}, 2 * 4 * 5 * (8 + 5)),
    ],
)
def test_of_a_block_whose_cost_grows_with_the_length(block, args, per_base):
    found = cost(one(block, **args))
    assert found.per_base["n"] == per_base
    assert found.lengths == {"L": 256}
    assert found.bases == 256
    assert found.nodes == cost(one(block, **args), {"L": 256}).nodes


def test_of_squeeze_excite_and_grouped_convolutions():
    found = cost(one("conv.legnet", channels=6, kernel=7, expand_from="out", group=2, squeeze_from="in"), {"L": 100})
    inner = 24
    assert found.total == 100 * (2 * 8 * inner + inner * 2 * 7 + 2 * 8 * 6 * 7) + 2 * inner * 2


@pytest.mark.parametrize("length", [128, 512])
def test_of_attention_that_streams_inside_an_autograd_function(length):
    heads, key, value = 3, 4, 5
    found = cost(one("tower.layer", heads=heads, key_dim=key, value_dim=value, expand=2), {"L": length})
    linear = 8 * (heads * key + key + value) + heads * value * 8 + 2 * 8 * 16
    assert found.total == length * linear + heads * length**2 * (key + value)


def test_of_torchs_own_attention():
    found = cost(one("tower.conformer_layer", kernel=3, heads=2, expand=4), {"L": 50})
    assert found.total == 50 * (2 * (8 * 32 + 16 * 8) + 8 * 3 + 64 + 4 * 64) + 2 * 50**2 * 8


def test_of_a_block_that_cannot_run_on_the_meta_device():
    found = cost(one("tower.transformer", depth=1, heads=2, head_dim=32, expand=4), {"L": 64})
    assert found.total == 64 * (4 * 8 * 64 + 2 * 8 * 32) + 2 * 2 * 64**2 * 32


def test_the_published_encoder():
    stages = [(4 * 768 * 15 + 768 * 768 * 5)]
    for stage in range(1, 7):
        narrow, wide = 768 + 128 * (stage - 1), 768 + 128 * stage
        stages.append((narrow + wide) * wide * 5 / 2**stage)
    found = cost(resolve("alphagenome_encoder_mpra"), {"L": 256})
    assert [found.per_base[f"encoder.stage{i}"] for i in range(1, 8)] == stages


def test_a_length_bound_model_is_counted_at_its_length():
    found = cost(resolve("deepstarr"))
    assert (found.bases, found.lengths) == (249, {})
    assert found.nodes["encoder.stage2"] == 124 * 256 * 60 * 3
    assert found.nodes["dense1"] == 1800 * 256


def test_show_says_so(monkeypatch):
    shown = describe.summary(resolve("deepstarr"))
    assert shown.splitlines()[-1] == "39,402 multiply-adds for each base"

    def broken(*_):
        raise RuntimeError("no kernel\nand more")

    monkeypatch.setattr("agblocks.graph.cost._counted", broken)
    assert describe.summary(resolve("deepstarr")).splitlines()[-1] == "multiply-adds not counted: no kernel"
