"""Strictness: what is an error, what is reported, and that an error changes nothing."""

import pytest
import torch
from helpers import backwards

import agblocks
from agblocks.weights import WeightsError, load_weights

SIZES = ("encoder.channels=8", "encoder.growth=4")
HEAD = "activity.hidden=[4]"
ENCODER = {
    "recipe": 1,
    "name": "mine",
    "base": "alphagenome_encoder_mpra",
    "set": {"encoder.channels": 8, "encoder.growth": 4, "activity.hidden": [4]},
}


def encoder(**more):
    return agblocks.build("alphagenome_encoder_mpra", *SIZES, HEAD, **more)


@pytest.fixture(scope="module")
def small():
    return agblocks.build("alphagenome_small", device="meta")


@pytest.fixture(scope="module")
def state():
    """Of an AlphaGenome with an encoder of the same size, and all its heads."""
    whole = agblocks.build("alphagenome_small", *SIZES, device="meta")
    return backwards(whole, "alphagenome-pytorch")[0]


@pytest.fixture(scope="module")
def whole():
    return agblocks.build("alphagenome_small", *SIZES, seed=3)


def bits(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model, before):
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def refused(model, state, message, **options):
    before = bits(model)
    with pytest.raises(WeightsError, match=message) as caught:
        load_weights(model, state, **options)
    assert same(model, before)
    return caught.value


def test_an_encoder_takes_what_is_its_own_and_says_the_rest(state):
    model = encoder(seed=2)
    before = bits(model)
    report = load_weights(model, state)
    assert {name.split(".")[0] for name in report.loaded} == {"encoder"}
    assert report.left == [name for name in before if name.startswith("activity.")]
    assert set(report.cut) == set(state) - set(report.loaded.values())
    assert not report.missing and not report.unexpected and not report.elsewhere
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in report.left)
    assert all(not torch.equal(after[name], before[name]) for name in report.loaded)
    said = str(report)
    assert "80 tensors loaded" in said and "left initialised (6): activity.norm.* (2)" in said and "cut away" in said


def test_a_cut_encoder(state):
    model = agblocks.build("alphagenome_encoder_mpra", *SIZES, HEAD, "activity.in=encoder.stage3")
    report = load_weights(model, state)
    assert {name.rsplit(".", 2)[0] for name in report.loaded} == {f"encoder.stage{i}" for i in (1, 2, 3)}
    assert "encoder.down_blocks.2.block1.conv.weight" in report.cut


def test_missing_tensors(state, whole):
    less = {k: v for k, v in state.items() if k != "tower.blocks.1.mha.q_proj.weight"}
    error = refused(whole, less, r"missing: tower\.blocks\.1\.mha\.q_proj\.weight \(for tower\.layer2\.attention\.q")
    assert error.report.missing == {"tower.layer2.attention.q.weight": "tower.blocks.1.mha.q_proj.weight"}
    before = bits(whole)
    report = load_weights(whole, less, allow=["missing"])
    assert list(report.missing) == ["tower.layer2.attention.q.weight"]
    assert torch.equal(whole.state_dict()["tower.layer2.attention.q.weight"], before["tower.layer2.attention.q.weight"])


def test_a_missing_decoder_is_missing(state, whole):
    less = {k: v for k, v in state.items() if not k.startswith("decoder.")}
    error = refused(whole, less, "decoder.up_blocks.0")
    assert all(name.startswith("decoder.up") for name in error.report.missing)
    assert error.report.missing["decoder.up64.main.scale"] == "decoder.up_blocks.0.residual_scale"


def test_unexpected_keys_with_near_names(state, whole):
    more = {**state, "encoder.dna_embeder.conv1.weight": torch.zeros(1)}
    refused(whole, more, r"unexpected: encoder\.dna_embeder\.conv1\.weight; did you mean encoder\.dna_embedder")
    report = load_weights(whole, more, allow=["unexpected"])
    assert report.unexpected == ["encoder.dna_embeder.conv1.weight"]


def test_a_tensor_that_the_node_has_no_place_for_is_unexpected(state, whole):
    """Known to the format, of a layer that is there: not something that was cut away."""
    more = {**state, "tower.blocks.1.pair_update.row_attn.norm.weight": torch.zeros(8)}
    refused(whole, more, "unexpected: tower.blocks.1.pair_update.row_attn.norm.weight")


def test_a_stray_layer_moves_no_others(state, whole):
    """The decoder's stages count from the last one; a key more or less is told, not counted by."""
    more = {**state, "decoder.up_blocks.7.residual_scale": torch.tensor([9.0])}
    refused(whole, more, r"row decoder\.up_blocks\.\* has no clear end.*decoder\.up_blocks\.7\.residual_scale")
    less = {key: value for key, value in state.items() if key != "decoder.up_blocks.6.residual_scale"}
    refused(whole, less, r"nothing like decoder\.up_blocks\.5\.residual_scale beyond 5")


def test_wrong_shapes(state, whole):
    bad = {**state, "contact_maps_head.linear.weight": torch.zeros(2, 3, 5)}
    refused(
        whole, bad, r"contact_maps\.linear\.weight: contact_maps_head\.linear\.weight is \[2, 3, 5\] \(o i u -> o u i\)"
    )
    bad = {**state, "encoder.down_blocks.0.block1.conv.scale": torch.zeros(12, 1)}
    refused(whole, bad, r"is \[12, 1\]")
    before = bits(whole)
    report = load_weights(whole, bad, allow=["shape"])
    assert list(report.wrong_shape) == ["encoder.stage2.conv1.scale"]
    assert torch.equal(whole.state_dict()["encoder.stage2.conv1.scale"], before["encoder.stage2.conv1.scale"])


def test_whole_numbers_are_no_weights(whole, state):
    bad = {**state, "organism_embed.weight": state["organism_embed.weight"].long()}
    refused(whole, bad, "is torch.int64")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_is_refused_before_anything_changes(state, whole, value):
    bad = dict(state)
    key = list(bad)[-1]
    bad[key] = bad[key].clone()
    bad[key].flatten()[-1] = value
    refused(whole, bad, "1 values that are not finite")
    meta = agblocks.build("alphagenome_small", *SIZES, device="meta")
    with pytest.raises(WeightsError, match="not finite"):
        load_weights(meta, bad)
    assert all(tensor.is_meta for tensor in (*meta.parameters(), *meta.buffers()))


@pytest.mark.parametrize(("value", "given", "here"), [(1e300, "float64", "float32"), (1e6, "float32", "float16")])
def test_what_the_models_type_cannot_hold_is_refused(state, value, given, here):
    """Finite in the source, infinite in the model."""
    key = "encoder.dna_embedder.conv1.bias"
    bad = {**state, key: state[key].to(getattr(torch, given))}
    bad[key][3] = value
    said = f"{key}' holds 1 values that are not finite in torch.{here}, in which the model has it \\(torch.{given}"
    refused(encoder(dtype=getattr(torch, here)), bad, said)
    meta = encoder(dtype=getattr(torch, here), device="meta")
    with pytest.raises(WeightsError, match="not finite in"):
        load_weights(meta, bad)


def test_large_half_precision_values_are_finite(state):
    model = encoder()
    halves = {key: torch.full_like(value, 6e4, dtype=torch.float16) for key, value in state.items()}
    report = load_weights(model, halves)
    assert report.converted == {("float16", "float32"): len(report.loaded)}
    assert "converted: 80 tensors from float16 to float32" in str(report)


def test_another_architecture_is_refused(state):
    model = agblocks.build("enformer_small", seed=1)
    refused(model, state, "shape|missing|nothing")
    refused(model, state, "are not those of enformer-pytorch", format="enformer-pytorch")
    refused(model, {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}, r"its 2 keys \(fc\.bias, fc\.weight")
    refused(model, {}, "the state dict: holds no tensors")
    refused(model, state, "there is no format 'enformer'; did you mean enformer-pytorch", format="enformer")


def test_absent_track_means_stay_one(state, whole):
    load_weights(whole, state)
    assert not (whole.get_submodule("atac_1bp").track_means == 1).all()
    less = {k: v for k, v in state.items() if not k.endswith("track_means")}
    fresh = agblocks.build("alphagenome_small", *SIZES, device="meta")
    report = load_weights(fresh, less)
    assert len(report.absent) == 12 and all(name.endswith("track_means") for name in report.absent)
    assert (fresh.get_submodule("atac_1bp").track_means == 1).all()
    assert "absent in the source, kept" in str(report)


def test_track_means_are_shared_by_both_resolutions(state, whole):
    load_weights(whole, state)
    both = [whole.get_submodule(f"rna_seq_{r}bp").track_means for r in (1, 128)]
    assert torch.equal(*both) and torch.equal(both[0], state["heads.rna_seq.track_means"])
    assert both[0].data_ptr() != both[1].data_ptr()


# Parts


@pytest.mark.parametrize("into", ["encoder", "encoder.*", "encoder.**", ["encoder.stage1", "encoder.stage[2-7]"]])
def test_into(state, whole, into):
    before = bits(whole)
    report = load_weights(whole, {**state, "somebodys_head.weight": torch.zeros(1)}, into=into)
    assert {name.split(".")[0] for name in report.loaded} == {"encoder"}
    assert len(report.loaded) == 80
    assert "organism_embed.weight" in report.elsewhere and "somebodys_head.weight" in report.elsewhere
    assert not report.left and not report.cut
    after = whole.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("encoder."))


def test_into_is_strict_inside(state, whole):
    less = {k: v for k, v in state.items() if k != "encoder.dna_embedder.conv1.bias"}
    refused(whole, less, "missing: encoder.dna_embedder.conv1.bias", into="encoder")
    less = {k: v for k, v in state.items() if not k.startswith("tower.")}
    assert load_weights(whole, less, into="encoder").loaded
    more = {**state, "encoder.dna_embedder.block.norm.running_mean": torch.zeros(8)}
    refused(whole, more, "unexpected: encoder.dna_embedder.block.norm.running_mean", into="encoder")


def test_into_a_node_that_has_no_place_for_a_known_tensor(state, whole):
    more = {**state, "tower.blocks.1.pair_update.row_attn.norm.weight": torch.zeros(8)}
    assert load_weights(whole, more, into="encoder").loaded
    more = {**state, "encoder.down_blocks.0.block1.conv.scale": torch.zeros(13, 1, 1)}
    refused(agblocks.build("alphagenome_small", *SIZES), more, r"\[13, 1, 1\]", into="encoder.stage2")


def test_with_into_what_lies_outside_the_prefix_is_no_matter(state, whole):
    wrapped = {f"model.{key}": value for key, value in state.items()}
    wrapped |= {"loss.weight": torch.zeros(1), "hyper": "parameters"}
    refused(whole, wrapped, r"unexpected: loss\.weight")
    refused(whole, wrapped, r"unexpected: hyper \(no tensor\)")
    report = load_weights(whole, wrapped, into="encoder")
    assert {"loss.weight", "hyper (no tensor)"} <= set(report.elsewhere)


def test_into_a_module_of_a_node(state, whole):
    report = load_weights(whole, state, into="tower.layer2.attention")
    assert len(report.loaded) == 17 and all(name.startswith("tower.layer2.attention.") for name in report.loaded)


def test_into_nothing(state, whole):
    refused(whole, state, "into names no part of the model; leave it out to load all", into=[])
    refused(whole, state, r"into 'encodr' fits no part of the model with weights; did you mean encoder", into="encodr")


def test_nodes_of_other_names(state):
    mine = {
        "recipe": 1, "name": "two", "inputs": {"dna": "B 4 L"},
        "nodes": {"front": {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": 8, "growth": 4}}},
        "heads": {"activity": {"block": "head.scalar", "in": "front", "args": {"targets": 1, "pool": "mean"}}},
    }  # fmt: skip
    model = agblocks.build(mine)
    refused(model, state, "its nodes are called otherwise")
    refused(model, state, "has nothing for 'front' as 'encodr'; did you mean encoder", nodes={"encodr": "front"})
    refused(model, state, "has nothing for 'activity' as 'tower'", nodes={"encoder": "front", "tower": "activity"})
    refused(
        model,
        state,
        "'encoder' is to be 'frnt', which the model doesn't have; did you mean front",
        nodes={"encoder": "frnt"},
    )
    refused(
        model, state, "has nothing for 'activity' as 'encoder'; its blocks are others", nodes={"encoder": "activity"}
    )
    report = load_weights(model, state, nodes={"encoder": "front"})
    assert len(report.loaded) == 80 and all(name.startswith("front.") for name in report.loaded)
    one = load_weights(encoder(), state)
    assert list(report.loaded.values()) == list(one.loaded.values())


def test_a_name_given_away_is_not_taken(state):
    """Where `nodes` says that their encoder is another node, the model's own `encoder` gets nothing of it."""
    mine = {
        "recipe": 1, "name": "two", "inputs": {"dna": "B 4 L"},
        "nodes": {
            name: {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": 8, "growth": 4}}
            for name in ("encoder", "second")
        },
        "heads": {
            "a": {"block": "head.scalar", "in": "encoder", "args": {"targets": 1, "pool": "mean"}},
            "b": {"block": "head.scalar", "in": "second", "args": {"targets": 1, "pool": "mean"}},
        },
    }  # fmt: skip
    model = agblocks.build(mine)
    report = load_weights(model, state, nodes={"encoder": "second"})
    assert all(name.startswith("second.") for name in report.loaded)
    assert any(name.startswith("encoder.") for name in report.left)


def test_another_block_in_its_place_takes_nothing(state):
    mine = {**ENCODER, "replace": {"encoder.stage3": {"block": "conv.legnet", "args": {"channels": 16, "pool": 2}}}}
    model = agblocks.build(mine)
    report = load_weights(model, state)
    assert report.other_block == {"encoder.stage3": "conv.legnet here, conv.down in the source"}
    assert "encoder.down_blocks.1.block1.conv.weight" in report.cut
    assert any(name.startswith("encoder.stage3.") for name in report.left)
    assert "encoder.stage4.conv1.weight" in report.loaded
    assert "encoder.stage3: conv.legnet here, conv.down in the source" in str(report)


def test_a_hybrid_takes_its_parts_from_two_sources(state):
    """AlphaGenome's encoder with Enformer's tower: same node names, other blocks."""
    mine = {
        "recipe": 1, "name": "hybrid", "inputs": {"dna": "B 4 L"},
        "nodes": {
            "encoder": {"block": "encoder.alphagenome", "in": "dna", "args": {"channels": 8, "growth": 4}},
            "tower": {"block": "tower.enformer", "in": "encoder",
                      "args": {"depth": 1, "heads": 2, "key_dim": 4, "train_length": 8}},
        },
        "heads": {"activity": {"block": "head.scalar", "in": "tower", "args": {"targets": 1, "pool": "mean"}}},
    }  # fmt: skip
    model = agblocks.build(mine, seed=0)
    theirs, expected = backwards(model, "enformer-pytorch")
    first = load_weights(model, state)
    assert {name.split(".")[0] for name in first.loaded} == {"encoder"}
    assert any(node.startswith("tower.layer1") for node in first.other_block)
    refused(model, theirs, "may be enformer-pytorch or borzoi-pytorch", into="tower")  # the tower alone is both's
    second = load_weights(model, theirs, "enformer-pytorch", into="tower")
    assert {name.split(".")[0] for name in second.loaded} == {"tower"}
    after = model.state_dict()
    assert all(torch.equal(after[name], expected[name]) for name in second.loaded)
    assert torch.equal(after["encoder.stage1.conv1.weight"], state["encoder.dna_embedder.conv1.weight"])


# Where weights go


def test_meta_models_are_whole_afterwards(state):
    meta, seeded = encoder(device="meta"), encoder(seed=5)
    meta.train()
    load_weights(seeded, state)
    torch.manual_seed(1)
    load_weights(meta, state)
    assert not any(t.is_meta for t in (*meta.parameters(), *meta.buffers()))
    assert all(type(p) is torch.nn.Parameter and p.requires_grad for p in meta.parameters())
    assert meta.training
    dna = torch.rand(2, 4, 200)
    edges = ["encoder", "encoder.stage3"]
    for name, value in meta.eval()(dna=dna, outputs=edges).items():
        assert torch.equal(value, seeded.eval()(dna=dna, outputs=edges)[name])
    meta(dna=dna)["activity"].sum().backward()
    assert all(p.grad is not None for p in meta.parameters())


def test_what_is_left_on_meta_is_drawn_as_for_training(state):
    meta, built = encoder(device="meta"), encoder(seed=7)
    torch.manual_seed(1)
    load_weights(meta, state)
    torch.manual_seed(1)
    agblocks.reset_parameters(built.get_submodule("activity"))
    drawn = built.get_submodule("activity").state_dict()
    assert any(value.std() > 0 for value in drawn.values())
    for name, value in meta.get_submodule("activity").state_dict().items():
        assert torch.equal(value, drawn[name])


def test_frozen_parameters_types_and_memory_stay(state):
    model = encoder(dtype=torch.bfloat16)
    for parameter in model.get_submodule("encoder.stage1").parameters():
        parameter.requires_grad_(False)
    held = {name: (p, p.data_ptr()) for name, p in model.named_parameters()}
    report = load_weights(model, state)
    for name, parameter in model.named_parameters():
        assert parameter is held[name][0] and parameter.data_ptr() == held[name][1]
        assert parameter.dtype == torch.bfloat16
    assert model.get_submodule("encoder.stage1.norm2").mean_square.dtype == torch.float32
    assert ("float32", "bfloat16") in report.converted
    meta = agblocks.build("alphagenome_encoder_mpra", *SIZES, HEAD, device="meta", dtype=torch.bfloat16)
    for parameter in meta.get_submodule("encoder.stage1").parameters():
        parameter.requires_grad_(False)
    load_weights(meta, state)
    for name, value in meta.state_dict().items():
        assert value.dtype == model.state_dict()[name].dtype
        if name.startswith("encoder."):
            assert torch.equal(value, model.state_dict()[name])
    assert [p.requires_grad for p in meta.parameters()] == [p.requires_grad for p in model.parameters()]


def test_the_state_dict_given_is_not_shared(state):
    model = encoder(device="meta")
    load_weights(model, state)
    before = bits(model)
    for value in state.values():
        assert all(value.data_ptr() != p.data_ptr() for p in model.parameters())
    with torch.no_grad():
        next(model.parameters()).add_(1)
    assert not torch.equal(next(iter(bits(model).values())), next(iter(before.values())))
    assert torch.equal(state["encoder.dna_embedder.conv1.weight"], before["encoder.stage1.conv1.weight"])


def test_kept_kernels_follow(state):
    """A convolution that kept its kernel in evaluation works it out again."""
    model = encoder(seed=0).eval()
    dna = torch.rand(1, 4, 128)
    with torch.no_grad():
        before = model(dna=dna, outputs=["encoder"])["encoder"]
        load_weights(model, state)
        after = model(dna=dna, outputs=["encoder"])["encoder"]
    fresh = encoder(device="meta")
    load_weights(fresh, state)
    with torch.no_grad():
        assert torch.equal(after, fresh.eval()(dna=dna, outputs=["encoder"])["encoder"])
    assert not torch.allclose(before, after)


def test_allow_and_arguments(state, whole):
    refused(whole, state, "allow: .everything. is none of missing", allow=["everything"])
    less = {key: value for key, value in state.items() if key != "organism_embed.weight"}
    assert list(load_weights(whole, less, allow="missing").missing) == ["trunk.embedding.weight"]
    with pytest.raises(WeightsError, match="no such file"):
        load_weights(whole, "nowhere.safetensors")


def test_parameters_hold_no_more_than_themselves(tmp_path):
    """Rows of a larger matrix are copied out of it."""
    from safetensors.torch import save_file

    model = agblocks.build("flashzoi_small", device="meta")
    given, _ = backwards(model, "borzoi-pytorch")
    save_file(given, tmp_path / "weights.safetensors")
    for source in (given, tmp_path / "weights.safetensors"):
        model = agblocks.build("flashzoi_small", device="meta")
        load_weights(model, source)
        for parameter in model.parameters():
            assert parameter.untyped_storage().nbytes() == parameter.nbytes


def test_other_models_and_inference_tensors(state):
    with pytest.raises(WeightsError, match="a model that agblocks.build made, not a Linear"):
        load_weights(torch.nn.Linear(2, 2), state)
    with torch.inference_mode():
        model = encoder()
    refused(model, state, "made in inference mode and cannot be changed")


def test_a_file_that_breaks_between_readings_is_told(state, tmp_path, monkeypatch):
    from agblocks.weights.source import Held

    reads = []

    def read(self, key, plain=Held.read):
        reads.append(key)
        if len(reads) > 80 + 3:
            raise OSError("gone")
        return plain(self, key)

    monkeypatch.setattr(Held, "read", read)
    with pytest.raises(
        WeightsError, match=r"second time \(gone\); 3 of 80 tensors are new, the others old: load again"
    ):
        load_weights(encoder(), state)


def test_lstms_know_their_new_weights():
    """An LSTM keeps a list of its weights beside them."""
    sizes = ("encoder.channels=8", "tower.hidden=4", "mixer.channels=8", "mapper.channels=8")
    model, meta = agblocks.build("dream_rnn", *sizes), agblocks.build("dream_rnn", *sizes, device="meta")
    given, _ = backwards(model, "dream")
    load_weights(model, given), load_weights(meta, given)
    inputs = {"dna": torch.rand(2, 4, 30), "reverse": torch.zeros(2)}
    model.eval(), meta.eval()
    assert torch.equal(model(**inputs)["activity"], meta(**inputs)["activity"])


def test_values_that_share_memory_are_refused_before_anything_changes(state):
    model = encoder(seed=1)
    stage = model.get_submodule("encoder.stage7.conv2")
    stage.bias = torch.nn.Parameter(torch.zeros(1).expand(stage.bias.shape))
    refused(model, state, r"'encoder\.stage7\.conv2\.bias' has values that share memory")
    stage.bias = torch.nn.Parameter(torch.arange(100.0).as_strided(stage.bias.shape, (2,)))  # apart, but not packed
    load_weights(model, state)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_one_tensor_of_two_names_has_one_value(state, device):
    model = encoder(device=device)
    first, second = (model.get_submodule(f"encoder.stage{i}.conv1") for i in (2, 3))
    second.bias = first.bias = model.get_submodule("encoder.stage2.conv1").bias
    key = "encoder.down_blocks.{}.block1.conv.bias"
    state = {**state, key.format(1): state[key.format(1)][: len(first.bias)].clone()}
    with pytest.raises(WeightsError, match=r"stage2\.conv1\.bias' and 'encoder\.stage3\.conv1\.bias' are one tensor"):
        load_weights(model, state)
    load_weights(model, {**state, key.format(1): state[key.format(0)].clone()})
    assert torch.equal(model.state_dict()["encoder.stage3.conv1.bias"], state[key.format(0)])


def test_loaded_in_inference_mode_and_trained_afterwards(state):
    model = encoder(device="meta")
    with torch.inference_mode():
        load_weights(model, {key: value.clone() for key, value in state.items()})
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    model(dna=torch.rand(2, 4, 128))["activity"].sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
