"""Each map is a bijection between a peer's full state dict and the shipped recipe's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import backwards, flashzoi, listing, matched

import agblocks
from agblocks.weights import FORMATS, WeightsError, load_weights
from agblocks.weights.formats import TABLES, map_of
from agblocks.weights.pattern import Pattern
from agblocks.weights.transform import Transform

FULL = {
    "alphagenome": (lambda: listing("alphagenome"), "alphagenome-pytorch", 677, 682),
    "enformer": (lambda: listing("enformer"), "enformer-pytorch", 571 - 1, None),
    "borzoi": (lambda: listing("borzoi"), "borzoi-pytorch", 218 - 1, None),
    "flashzoi": (flashzoi, "borzoi-pytorch", 217 - 8 * 4, None),
}


@pytest.mark.parametrize("recipe", FULL)
def test_every_key_of_the_full_model_has_its_place(recipe):
    made, format, keys, tensors = FULL[recipe]
    state, model = made(), agblocks.build(recipe, device="meta")
    assert len(state) == keys
    report = matched(model, state)
    assert report.format == format
    for nothing in ("left", "absent", "missing", "cut", "elsewhere", "unexpected", "wrong_shape"):
        assert not getattr(report, nothing), nothing
    assert list(report.loaded) == list(model.state_dict())
    assert tensors in (None, len(report.loaded))
    # every key is taken or repeats one that is
    assert {*report.loaded.values(), *report.repeats} == set(state)
    assert not set(report.loaded.values()) & set(report.repeats)


def _shipped():
    """Every recipe that is shipped at full size, and the listing that its weights come from."""
    folder = Path(agblocks.__file__).parent.parent / "recipes"
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder).with_suffix("").as_posix()
        for peer in ("alphagenome", "enformer", "borzoi", "flashzoi"):
            if path.stem.startswith(peer) and not path.stem.endswith(("_small", "_style")):
                yield name, peer


@pytest.mark.parametrize(("recipe", "peer"), list(_shipped()))
def test_shipped_recipes_take_what_they_have_of_the_published_weights(recipe, peer):
    """Hybrids, ablations and encoders too: nothing is missing or unexpected, the rest is cut away."""
    made, format, *_ = FULL[peer]
    report = matched(agblocks.build(recipe, device="meta"), made(), format)
    for nothing in ("missing", "unexpected", "wrong_shape"):
        assert not getattr(report, nothing), nothing
    assert {name for name in report.loaded if name.startswith("encoder.")}


def test_parts_of_optional_inputs_are_cut_where_they_are_not_built():
    report = matched(agblocks.build("ablations/alphagenome_no_pair_map", device="meta"), listing("alphagenome"))
    assert len([key for key in report.cut if ".attn_bias." in key]) == 36
    inputs = {"x": "decoder", "organism": "organism"}
    coarseless = {
        "recipe": 1, "name": "coarseless", "base": "alphagenome",
        "replace": {"embed_1bp": {"block": "embed.track", "in": inputs, "args": {"channels": 1536}}},
    }  # fmt: skip
    report = matched(agblocks.build(coarseless, device="meta"), listing("alphagenome"))
    assert report.cut == ["embedder_1bp.project_skip.weight"] and not report.unexpected


@pytest.mark.parametrize("recipe", FULL)
def test_keys_go_to_one_tensor_each_or_are_known_to_be_shared(recipe):
    made, _, _, _ = FULL[recipe]
    report = matched(agblocks.build(recipe, device="meta"), made())
    taken = list(report.loaded.values())
    shared = {key for key in taken if taken.count(key) > 1}
    assert all(key.endswith("track_means") or ".Wqkv." in key for key in shared)
    assert len([key for key in shared if key.endswith("track_means")]) == (5 if recipe == "alphagenome" else 0)
    rows = [key for key in taken if ".Wqkv." in key]
    assert len(rows) == 3 * len(set(rows)) == (48 if recipe == "flashzoi" else 0)


def test_parameters_of_the_full_models_are_the_published_ones():
    counts = {name: sum(p.numel() for p in agblocks.build(name, device="meta").parameters()) for name in FULL}
    assert counts["alphagenome"] == 450_452_613
    for name in ("alphagenome", "enformer", "borzoi", "flashzoi"):
        state = FULL[name][0]()
        repeats = matched(agblocks.build(name, device="meta"), state).repeats
        moving = ("running_mean", "running_var", "num_batches_tracked", "track_means")
        theirs = [t.numel() for key, t in state.items() if key not in repeats and not key.endswith(moving)]
        assert sum(theirs) == counts[name]


@pytest.mark.parametrize("family", ["plain", "_trunk."])
def test_either_family_of_enformer_keys_is_complete(family):
    state = listing("enformer")
    trunk = {key for key in state if key.startswith("_trunk.")}
    plain = {key for key in state if key.startswith(("stem.", "conv_tower.", "transformer.", "final_pointwise."))}
    gone = trunk if family == "plain" else plain
    report = matched(agblocks.build("enformer", device="meta"), {k: v for k, v in state.items() if k not in gone})
    assert not report.missing
    assert not report.repeats
    assert not report.unexpected
    assert len(report.loaded) == len(agblocks.build("enformer", device="meta").state_dict())


SMALL = {
    "alphagenome_small": "alphagenome-pytorch",
    "enformer_small": "enformer-pytorch",
    "borzoi_small": "borzoi-pytorch",
    "flashzoi_small": "borzoi-pytorch",
    "mpralegnet": "mpralegnet",
    "mpralegnet_example": "mpralegnet",
    "dream_rnn": "dream",
    "dream_cnn": "dream",
    "dream_attn": "dream",
    "deepstarr": "deepstarr-keras",
}


@pytest.mark.parametrize("recipe", SMALL)
def test_every_tensor_arrives_with_its_values(recipe):
    """From the source's shapes and order of axes into ours, into a model with memory and one without."""
    format = SMALL[recipe]
    model = agblocks.build(recipe, seed=1)
    state, expected = backwards(model, format)
    assert set(expected) == set(model.state_dict())
    twin = agblocks.build(recipe, device="meta")
    for target in (model, twin):
        report = load_weights(target, state)
        assert report.format == format
        assert not report.left
        assert not report.missing
        for name, value in target.state_dict().items():
            assert torch.equal(value, expected[name]), name
            assert value.is_contiguous()
    for one, other in zip(model.buffers(), twin.buffers(), strict=True):  # constants too
        assert torch.equal(one, other)


def test_numpy_arrays_and_trainers_prefixes():
    model = agblocks.build("mpralegnet", "encoder.stem=8", "encoder.channels=[8, 8, 8, 8]", "activity.hidden=[4]")
    state, expected = backwards(model, "mpralegnet")
    for prefix in ("model.", "module."):
        arrays = {prefix + key: value.numpy() for key, value in state.items()}
        load_weights(model, arrays)
        assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())
    arrays["loss.weight"] = np.ones(3, np.float32)
    with pytest.raises(WeightsError, match=r"unexpected: loss\.weight"):
        load_weights(model, arrays)


def test_formats_are_frozen():
    assert FORMATS == (
        "agblocks", "alphagenome-pytorch", "enformer-pytorch", "borzoi-pytorch", "mpralegnet", "dream", "deepstarr-keras",
    )  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_no_two_rows_claim_the_same_name(name):
    """Apart from rows for other blocks at one place, and rows that say that an earlier one goes first."""
    mapping = map_of(name)
    seen = {}
    for rule in mapping.rules:
        for block in rule.blocks:
            assert seen.setdefault((rule.ours.text, block), rule) is rule
    assert mapping.name == name


def test_patterns():
    assert Pattern("decoder.up{2**(last-i)}.norm").match("decoder.up16.norm", 6) == {"i": 2}
    assert Pattern("decoder.up{2**(last-i)}.norm").match("decoder.up12.norm", 6) is None
    assert Pattern("up_blocks.{i}.norm").fill({"i": 2}) == "up_blocks.2.norm"
    assert Pattern("stage{i+2}").match("stage1") is None
    assert Pattern("stage{i+2}").match("stage02") is None
    assert Pattern("stage{i+2}").fill({"i": 3}) == "stage5"
    assert Pattern("blocks.{2*i-2}").match("blocks.3") is None
    assert Pattern("blocks.{2*i-2}").fill({"i": 0}) is None
    assert Pattern("{head}_{r}bp").match("rna_seq_128bp") == {"head": "rna_seq", "r": 128}
    assert Pattern("{head}_{r}bp").fill({"head": "atac"}) == "atac_{r}bp"
    assert Pattern("t.{last}.w").match("t.5.w", 5) == {}
    assert Pattern("t.{last}.w").match("t.4.w", 5) is None
    assert Pattern("a.b").match("a_b") is None
    with pytest.raises(ValueError, match="one variable"):
        Pattern("x{i+j}").match("x3")


def test_what_is_assumed_is_told_where_it_matters():
    borzoi = matched(agblocks.build("borzoi", device="meta"), listing("borzoi"))
    assert borzoi.assumed == ()
    (said,) = matched(agblocks.build("flashzoi", device="meta"), flashzoi()).assumed
    assert "flash-attn" in said and said in str(matched(agblocks.build("flashzoi", device="meta"), flashzoi()))


def test_rows_and_shapes_that_do_not_fit():
    thirds = [Transform(f"rows {i}:{i + 1}/3") for i in range(3)]
    given = torch.rand(6, 2)
    assert torch.equal(torch.cat([third(given) for third in thirds]), given)
    assert thirds[0].shape((7, 2)) is None and thirds[0].shape(()) is None
    assert Transform("c 1 1 -> c").shape((3, 2, 1)) is None
