"""The built model: what it computes, what it refuses, and that it is an ordinary module."""

import copy
import io
import pickle

import pytest
import torch

import agblocks
from agblocks import InputError, build, resolve

TWO_HEADS = """
recipe: 1
name: two_heads
inputs: {dna: B 4 L, organism: B}
nodes:
  encoder: {block: encoder.alphagenome, in: dna, args: {channels: 8, growth: 4, stages: 4}}
  trunk: {block: embed.organism, in: {x: encoder, organism: organism}}
  decoder: {block: decoder.unet, in: {x: trunk, skips: encoder}}
heads:
  activity: {block: head.scalar, in: trunk, weight: 0.5}
  profile: {block: head.scalar, in: decoder, args: {targets: 2}}
"""


@pytest.fixture(scope="module")
def model():
    return build(TWO_HEADS, keep=["encoder.*"], seed=0).eval()


def dna(batch=2, length=64, seed=0):
    return torch.eye(4)[torch.randint(4, (batch, length), generator=torch.Generator().manual_seed(seed))].mT


ORGANISM = torch.tensor([0, 1])


def test_heads_by_default_and_edges_by_name(model):
    out = model(dna=dna(), organism=ORGANISM)
    assert {name: tuple(value.shape) for name, value in out.items()} == {"activity": (2, 1), "profile": (2, 2)}
    out = model(dna=dna(), outputs=["encoder", "encoder.stage2"])
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "encoder": (2, 20, 4),
        "encoder.stage2": (2, 12, 32),
    }
    assert torch.equal(model(dna(), ORGANISM)["activity"], model(dna=dna(), organism=ORGANISM)["activity"])


def test_only_what_is_asked_for_runs(model):
    called = []
    hooks = [
        model.get_submodule(name).register_forward_hook(lambda *_, name=name: called.append(name))
        for name in model.resolved.nodes
    ]
    try:
        model(dna=dna(), organism=ORGANISM, outputs=["activity"])
        assert called == [*(f"encoder.stage{k}" for k in (1, 2, 3, 4)), "encoder.pool", "trunk", "activity"]
        called.clear()
        model(dna=dna(), outputs=["encoder.stage2"])
        assert called == ["encoder.stage1", "encoder.stage2"]
    finally:
        for hook in hooks:
            hook.remove()


def test_length_rules_follow_the_outputs(model):
    assert str(model.resolved.rule()) == "L must be a multiple of 16"
    assert str(model.resolved.rule(["activity"])) == "any length"
    model(dna=dna(length=61), organism=ORGANISM, outputs=["activity"])
    with pytest.raises(InputError) as caught:
        model(dna=dna(length=60), organism=ORGANISM)
    assert str(caught.value) == "L = 60 does not fit: L must be a multiple of 16 (at decoder.up4.in.skip)"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "input 'dna' [B 4 L] is missing"),
        ({"dna": torch.zeros(2, 64, 4), "organism": ORGANISM}, "axis 1 of input 'dna' [B 4 L] should be 4, but is 64"),
        ({"dna": torch.zeros(2, 4), "organism": ORGANISM}, "input 'dna' should be [B 4 L], but is [2, 4]"),
        (
            {"dna": torch.zeros(3, 4, 64), "organism": ORGANISM},
            "axis 0 of input 'organism' [B] whole numbers should be 3, but is 2",
        ),
        ({"dna": dna(), "organism": ORGANISM, "rna": dna()}, "the model has no input 'rna'; did you mean dna?"),
        (
            {"dna": dna(), "organism": ORGANISM, "outputs": ["encoder.stage9"]},
            "there is no output 'encoder.stage9'; did you mean",
        ),
        ({"dna": dna(), "organism": ORGANISM, "outputs": "activity"}, "outputs should be a list of names"),
    ],
)
def test_refused_calls(model, arguments, said):
    with pytest.raises(InputError) as caught:
        model(**arguments)
    assert said in str(caught.value)


def test_a_pruned_edge_says_how_to_keep_it():
    model = build(TWO_HEADS, "activity.in=encoder.stage2", "profile.in=encoder.stage2")
    assert list(model.resolved.nodes) == ["encoder.stage1", "encoder.stage2", "activity", "profile"]
    assert list(model.resolved.inputs) == ["dna"]
    with pytest.raises(InputError) as caught:
        model(dna=dna(), outputs=["decoder"])
    assert str(caught.value) == (
        "'decoder' was dropped, as no head reads it; keep it by 'keep: [decoder]' in the recipe or "
        "build(..., keep=['decoder'])"
    )


def test_a_cut_model_is_the_whole_one_up_to_there(model):
    cut = build(TWO_HEADS, "activity.in=encoder.stage3", "profile.in=encoder.stage3").eval()
    kept = {k: v for k, v in model.state_dict().items() if k.startswith("encoder")}
    cut.load_state_dict(kept, strict=False)
    whole = model(dna=dna(), outputs=["encoder.stage3"])["encoder.stage3"]
    assert torch.equal(cut(dna=dna(), outputs=["encoder.stage3"])["encoder.stage3"], whole)
    assert cut.resolved.info("encoder.stage3").digest == model.resolved.info("encoder.stage3").digest
    assert cut.resolved.digest != model.resolved.digest


def test_losses_are_summed_with_weights(model):
    outputs = model(dna=dna(), organism=ORGANISM, outputs=model.loss_outputs)
    targets = {"activity": torch.ones(2, 1), "profile": torch.zeros(2, 2)}
    parts = {name: (outputs[name] - target).square().mean() for name, target in targets.items()}
    torch.testing.assert_close(model.loss(outputs, targets), 0.5 * parts["activity"] + parts["profile"])
    torch.testing.assert_close(model.loss(outputs, {"profile": targets["profile"]}), parts["profile"])
    with pytest.raises(InputError, match="there is no head 'actvity' for this target; did you mean activity"):
        model.loss(outputs, {"actvity": torch.ones(2, 1)})
    with pytest.raises(InputError, match="no targets"):
        model.loss(outputs, {})


def test_a_failure_inside_a_block_names_node_block_and_places(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TWO_HEADS.strip())
    model = build(path)
    model.encoder.stage2.forward = lambda x: x @ x
    with pytest.raises(RuntimeError) as caught:
        model(dna=dna(), organism=ORGANISM)
    (note,) = caught.value.__notes__
    assert note.startswith(f"in node 'encoder.stage2' ({path}:5:20), block 'conv.down' (")
    assert "agblocks/blocks/" in note
    assert note.endswith("with x = encoder.stage1 [2, 8, 64]")


def test_copies_pickles_and_state_dicts(model):
    want = model(dna=dna(), organism=ORGANISM)
    again = build(model.resolved, seed=1).eval()
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    stream.seek(0)
    again.load_state_dict(torch.load(stream, weights_only=True))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), again):
        assert all(torch.equal(value, want[name]) for name, value in other(dna=dna(), organism=ORGANISM).items())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        next(twin.parameters()).add_(1)
    assert not torch.equal(twin(dna(), ORGANISM)["activity"], want["activity"])


def test_meta_construction_then_memory_then_weights():
    model = build(TWO_HEADS, device="meta")
    assert all(p.is_meta for p in model.parameters())
    model.to_empty(device="cpu")
    torch.manual_seed(3)
    agblocks.reset_parameters(model)
    assert all(torch.isfinite(p).all() for p in model.state_dict().values())
    assert model.eval()(dna=dna(), organism=ORGANISM)["activity"].isfinite().all()


def test_a_seed_gives_the_weights_and_leaves_torch_alone():
    before = torch.get_rng_state()
    one, two, other = (build("tiny", seed=s) for s in (5, 5, 6))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_whole(model, backend):
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for length in (64, 96):
        want = model(dna=dna(length=length), organism=ORGANISM)
        got = compiled(dna=dna(length=length), organism=ORGANISM)
        for name in want:
            torch.testing.assert_close(got[name], want[name], atol=1e-5, rtol=1e-5)


def test_exports(model):
    program = torch.export.export(model, (), {"dna": dna(), "organism": ORGANISM})
    want = model(dna=dna(seed=1), organism=ORGANISM)
    got = program.module()(dna=dna(seed=1), organism=ORGANISM)
    assert all(torch.allclose(got[name], want[name], atol=1e-6) for name in want)


def test_features_and_layers_as_timm_knows_them(model):
    from agblocks._torchvision import mend

    mend()
    from timm.optim import param_groups_layer_decay

    info = {f["module"]: (f["num_chs"], f["reduction"]) for f in model.feature_info}
    assert info["encoder.stage1"] == (8, 1)
    assert info["encoder.stage4"] == (20, 8)
    assert info["decoder.up1"] == (8, 1)
    groups = param_groups_layer_decay(model, weight_decay=0.1, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert len(scale) == len(list(model.parameters()))

    def of(name):
        return {scale[id(p)] for p in model.get_submodule(name).parameters()}

    stages = [of(f"encoder.stage{k}") for k in (1, 2, 3, 4)]
    assert all(len(s) == 1 for s in stages)
    assert [max(b) / max(a) for a, b in zip(stages, stages[1:], strict=False)] == [2, 2, 2]
    assert of("profile") == {1.0}
    assert max(of("activity")) < 1.0


def test_resolved_recipes_build_and_override(model):
    again = build(model.resolved, "encoder.stage2.growth=8")
    assert again.resolved.info("encoder.stage2").axes[1] == 16
    assert resolve(model.resolved.recipe).digest == model.resolved.digest


def test_checkpointing_changes_memory_not_gradients():
    model = agblocks.build("tiny", seed=0).double().eval()
    dna = torch.eye(4, dtype=torch.float64)[torch.randint(4, (2, 64), generator=torch.Generator().manual_seed(0))].mT

    def gradients():
        kept = []

        def keep(tensor):
            kept.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = model(dna=dna)["activity"].square().sum()
            held = sum(tensor.numel() for tensor in kept)
        return held, torch.autograd.grad(loss, list(model.parameters()))

    whole, wanted = gradients()
    model.set_grad_checkpointing(nodes=["encoder.*"])
    less, found = gradients()
    assert less < whole / 2
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)
    model.set_grad_checkpointing(False)
    assert gradients()[0] == whole
    with pytest.raises(InputError, match=r"no node fits 'encoder\.stag9'"):
        model.set_grad_checkpointing(nodes="encoder.stag9")


def test_checkpointing_leaves_running_statistics_as_they_would_be():
    dna = torch.eye(4)[torch.randint(4, (8, 64), generator=torch.Generator().manual_seed(0))].mT

    def after(checkpointing):
        model = agblocks.build("mpra_small", seed=0).train()
        model.set_grad_checkpointing(checkpointing)
        torch.manual_seed(0)
        model(dna=dna)["activity"].sum().backward()
        return dict(model.named_buffers())

    without, statistics = after(False), after(True)
    assert any("running_mean" in name for name in statistics)
    for name, value in statistics.items():
        torch.testing.assert_close(value, without[name], atol=0, rtol=0)
    tiny = agblocks.build("tiny", seed=0).train()
    tiny.set_grad_checkpointing(nodes="encoder")
    tiny(dna=dna)["activity"].sum().backward()
    plain = agblocks.build("tiny", seed=0).train()
    plain(dna=dna)["activity"].sum().backward()
    for name, value in tiny.named_buffers():
        torch.testing.assert_close(value, plain.get_buffer(name), atol=0, rtol=0)


@pytest.mark.parametrize("shape", [(4,), (4, 2), (1, 1)])
def test_a_target_of_another_shape_is_refused(shape):
    model = agblocks.build("mpra_small", seed=0)
    outputs = {"activity": torch.arange(4.0)[:, None]}
    with pytest.raises(InputError, match=r"the target of 'activity' should be \[4, 1\], but is"):
        model.loss(outputs, {"activity": torch.zeros(shape)})
    assert model.loss(outputs, {"activity": torch.arange(4.0)[:, None]}) == 0
    with pytest.raises(InputError, match=r"the mask of 'activity' should spread over \[4, 1\], but is \[3, 1\]"):
        model.loss(outputs, {"activity": torch.zeros(4, 1)}, {"activity": torch.ones(3, 1, dtype=torch.bool)})
