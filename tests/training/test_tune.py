"""What a policy says, and which parameters that names; the way back from freezing."""

from __future__ import annotations

import json
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from tune_helpers import LAYERED, THREE, block, changed, made, nodes_of, stack, state, stem, trained_names

from agblocks import build, resolve
from agblocks.training import RunError, Settings
from agblocks.training.tuning.choose import following, matches
from agblocks.training.tuning.frozen import freeze
from agblocks.training.tuning.tune import Tune

RECIPES = ("tiny", "alphagenome_small", "borzoi_small", "dream_cnn_small", "mpralegnet_small")

names = st.lists(st.sampled_from(["a", "b", "ab", "layer1", "layer12", "weight"]), min_size=1, max_size=4)
parts = st.sampled_from(["a", "b", "*", "**", "layer*", "?", "layer[12]", "*b", "weight"])


@given(st.lists(parts, min_size=1, max_size=4), names)
def test_patterns_are_anchored_and_go_by_parts(pattern, name):
    """Against a regular expression made another way: a part each, `**/` any number of parts."""
    text = ""
    for part in pattern:
        inner = "".join({"*": "[^.]*", "?": "[^.]"}.get(c, c) for c in part)
        text += r"(?:[^.]+\.)*" if part == "**" else rf"{inner}\."
    wanted = re.fullmatch(text, ".".join(name) + ".") is not None
    assert matches(".".join(pattern), ".".join(name)) == wanted


terms = st.one_of(
    st.just(("full",)),
    st.lists(
        st.one_of(
            st.just("head"),
            st.integers(1, 99).map("last:{}".format),
            names.map(lambda n: "from:" + ".".join(n)),
            st.lists(parts, min_size=1, max_size=3).map(".".join),
        ),
        min_size=1,
        max_size=3,
        unique=True,
    ).map(tuple),
)


@given(terms, st.dictionaries(st.integers(1, 50), terms, max_size=3))
def test_a_policy_is_data(what, later):
    schedule = tuple(sorted(later.items())) if what != ("full",) else ()
    tune = Tune(what, schedule)
    assert Tune.from_dict(json.loads(json.dumps(tune.to_dict()))) == tune
    assert Tune.parse(tune.tune, tune.unfreeze) == tune
    assert hash(Tune(list(what), [list(entry) for entry in schedule])) == hash(tune)
    with pytest.raises(AttributeError):
        tune.what = ("head",)
    kept = Settings(epochs=100, tune=tune.tune, unfreeze=tune.unfreeze)
    assert Settings.from_dict(json.loads(json.dumps(kept.to_dict()))).tuning == tune


@pytest.mark.parametrize(
    ("tune", "unfreeze", "message"),
    [
        ("last:0", "", "tune: 'last:0'; wanted full, head, last:2"),
        ("last=2", "", "tune: 'last=2'"),
        ("a b", "", "tune: 'a b'"),
        ("", "", "tune: ''"),
        ("head+head", "", "different terms"),
        ("full+head", "", "full by itself"),
        ("from:*", "", "tune: 'from:\\*'"),
        ("head", "encoder", "'encoder'; wanted epochs=what"),
        ("head", "0=encoder", "unfreeze: 0; wanted a whole number of epochs from 1"),
        ("head", "two=encoder", "'two'; wanted a whole number"),
        ("head", "3=a,3=b", "after 3, 3 epochs"),
        ("head", "5=a,3=b", "after 5, 3 epochs"),
        ("head", "3=", "unfreeze: ''"),
        ("full", "3=encoder", "everything trains from the start"),
    ],
)
def test_wrong_policies_are_refused(tune, unfreeze, message):
    with pytest.raises(RunError, match=message):
        Tune.parse(tune, unfreeze)
    if tune:  # without one settings have a default
        with pytest.raises(RunError, match=f"settings: .*{message}"):
            Settings(tune=tune, unfreeze=unfreeze)


def test_settings_say_what_never_comes():
    with pytest.raises(RunError, match="unfreeze: after 5 epochs, but there are 5"):
        Settings(epochs=5, tune="head", unfreeze="3=a,5=b")
    with pytest.raises(RunError, match="layer_decay is 0, wanted.*head_lr is 0"):
        Settings(layer_decay=0.0, head_lr=0.0)
    with pytest.raises(RunError, match="tune is 3, wanted a text"):
        Settings(tune=3)
    old = {
        k: v
        for k, v in Settings().to_dict().items()
        if k not in ("tune", "unfreeze", "layer_decay", "head_lr", "min_scale")
    }
    assert Settings.from_dict(old) == Settings(tune="full")  # what runs did then


# Which parameters


@pytest.mark.parametrize(
    ("tune", "nodes"),
    [
        ("head", {"early", "activity"}),
        ("last:1", {"tower.layer3", "early", "activity"}),
        ("last:3", {"tower.layer1", "tower.layer2", "tower.layer3", "early", "activity"}),
        ("from:tower.layer2", {"tower.layer2", "tower.layer3", "early", "activity"}),
        (
            "from:encoder.stage2",
            {"encoder.stage2", "tower.layer1", "tower.layer2", "tower.layer3", "early", "activity"},
        ),
        ("from:tower", {"tower.layer1", "tower.layer2", "tower.layer3", "early", "activity"}),
        ("encoder.stage2", {"encoder.stage2"}),
        ("tower.layer[12]+activity", {"tower.layer1", "tower.layer2", "activity"}),
        ("tower", {"tower.layer1", "tower.layer2", "tower.layer3"}),
        ("last:1+encoder", {"encoder.stage1", "encoder.stage2", "tower.layer3", "early", "activity"}),
    ],
)
def test_whole_nodes(tune, nodes):
    model = made(LAYERED)
    freeze(model, tune)
    found = trained_names(model)
    assert found == {n for n, _ in model.named_parameters() if nodes_of(model, {n}) <= nodes}
    assert nodes_of(model, found) == nodes


def test_full_leaves_flags_alone():
    model = made()
    model.encoder.stage1.requires_grad_(False)
    wanted = trained_names(model)
    token = freeze(model, "full")
    assert trained_names(model) == wanted
    token.restore()
    assert trained_names(model) == wanted


def test_patterns_of_parameters_and_modules():
    model = made(LAYERED)
    freeze(model, "**.bias")
    assert trained_names(model) == {n for n, _ in model.named_parameters() if n.rpartition(".")[2] == "bias"}
    model = made(LAYERED)
    freeze(model, "tower.*.attention.q+early.**")
    wanted = {n for n, _ in model.named_parameters() if re.fullmatch(r"tower\.[^.]+\.attention\.q\..*|early\..*", n)}
    assert trained_names(model) == wanted
    assert len(wanted) > 5


def test_last_counts_stages_where_there_is_no_tower():
    model = made(
        resolve("recipes/ablations/enformer_mpra_stage3.yaml", "encoder.channels=64", "encoder.divisible_by=8")
    )
    freeze(model, "last:1")
    wanted = {"encoder.stage3.pool", "encoder.stage3.conv", "encoder.stage3.pointwise", "activity"}
    assert nodes_of(model, trained_names(model)) == wanted


# q, k, v, out and its bias; their norms; the map's bias; up and down with theirs; four norms of the track.
ALPHAGENOME_LAYER = (
    1536 * (8 * 128 + 128 + 192 + 8 * 192 + 1) + 2 * (128 + 128 + 192) + 128 * (8 + 2)
    + 2 * 1536 * 3072 + 3072 + 1536 + 8 * 1536
)  # fmt: skip


@pytest.mark.parametrize(
    ("recipe", "layers", "each"),
    [("alphagenome_small", 3, None), ("alphagenome", 9, ALPHAGENOME_LAYER), ("borzoi_small", 2, None)],
)
def test_shipped_towers(recipe, layers, each):
    model = build(recipe, device="meta")
    heads = sum(p.numel() for h in model.resolved.heads for p in model.get_submodule(h).parameters())
    for n in (1, layers):
        token = freeze(model, f"last:{n}")
        wanted = {f"tower.layer{i}" for i in range(layers - n + 1, layers + 1)} | set(model.resolved.heads)
        assert nodes_of(model, trained_names(model)) == wanted
        if each:
            assert sum(p.numel() for p in model.parameters() if p.requires_grad) == n * each + heads
        token.restore()
    with pytest.raises(RunError, match=f"tower has {layers} layers"):
        freeze(model, f"last:{layers + 1}")


@pytest.mark.parametrize(
    ("recipe", "tune", "message"),
    [
        (LAYERED, "last:4", "tune last:4: tower has 3 layers"),
        (THREE, "last:4", "tune last:4: encoder has 3 stages"),
        ("dream_rnn_small", "last:1", "tower is one node"),
        (LAYERED, "from:encoder.stag2", "did you mean encoder.stage2"),
        (LAYERED, "tower.layer4", "no name fits; did you mean tower.layer"),
        (LAYERED, "hed", "did you mean head"),
        (LAYERED, "ower", "no name fits; did you mean tower"),
        (LAYERED, "encoder.pool", "encoder.pool has no parameters"),
    ],
)
def test_what_fits_nothing_is_said_and_nothing_changes(recipe, tune, message):
    model = made(recipe)
    model.get_parameter(next(n for n, _ in model.named_parameters())).requires_grad_(False)
    before = trained_names(model)
    with pytest.raises(RunError, match=message):
        freeze(model, tune)
    assert trained_names(model) == before


def test_policies_that_cannot_be_are_refused():
    model = made()
    with pytest.raises(RunError, match="unfreeze 3=encoder.stage1: all of it trains before"):
        freeze(model, Tune.parse("from:encoder.stage1", "3=encoder.stage1"))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(RunError, match="nothing trains"):
        freeze(model, "full")
    with pytest.raises(RunError, match="a Linear holds no model of a recipe"):
        freeze(nn.Linear(2, 2), "head")
    freeze(nn.Linear(2, 2), "full")


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_follows_is_what_reads(recipe):
    """Against a search from every node, by what its inputs are made by."""
    model = build(recipe, device="meta")
    nodes = model.resolved.nodes
    maker = {edge: node.name for node in nodes.values() for edge in node.outputs}

    def reads(name, start):
        if name == start or name.startswith(f"{start}."):
            return True
        return any(reads(maker[edge], start) for edge in nodes[name].inputs.values() if edge in maker)

    for start in [*[n for n in nodes if n.count(".") < 2][:6], "encoder"]:
        assert following(model, start) == [name for name in nodes if reads(name, start)]


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_the_token_restores_every_flag(data):
    model = MODEL
    flags = data.draw(
        st.lists(st.booleans(), min_size=len(list(model.parameters())), max_size=len(list(model.parameters())))
    )
    for parameter, flag in zip(model.parameters(), flags, strict=True):
        parameter.requires_grad_(flag)
    tune = data.draw(st.sampled_from(["head", "last:2", "from:encoder.stage2", "**.bias", "tower.*.mlp"]))
    later = data.draw(st.sampled_from(["", "2=from:encoder.stage1", "1=tower.layer1+encoder,4=full"]))
    try:
        token = freeze(model, Tune.parse(tune, later))
    except RunError:
        assert [p.requires_grad for p in model.parameters()] == flags
        return
    for epoch in data.draw(st.lists(st.integers(0, 6), max_size=4)):
        token.advance(epoch)
        with token.ever():
            assert all(p.requires_grad == (token.after(p) is not None) for p in model.parameters())
        for parameter in model.parameters():
            after = token.after(parameter)
            assert parameter.requires_grad == (after is not None and after <= epoch)
    token.restore()
    assert [p.requires_grad for p in model.parameters()] == flags


MODEL = made(LAYERED)


# Norms


def norm_models():
    yield "batch", stack(stem(norm="batch"), block(norm="batch"), block(norm="batch"))
    for statistics in ("batch", "ema"):
        norm = {"norm": "rms_batch", "statistics": statistics}
        yield f"rms_{statistics}", stack(block(channels=6, **norm), block(**norm), block(**norm))


def statistics_of(model):
    """Names of all running statistics, by stage."""
    return {n for n, _ in model.named_buffers() if re.search(r"running_|num_batches|mean_square", n)}


def step(model, seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(5, 4, 12, generator=g)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(dna=x)["activity"].square().sum().backward()
    optimizer.step()
    model.zero_grad()


@pytest.mark.parametrize(("kind", "recipe"), list(norm_models()), ids=lambda v: v if isinstance(v, str) else "")
def test_frozen_norms_keep_their_statistics(kind, recipe):
    model = made(recipe)
    everything = statistics_of(model)
    assert len(everything) >= 3
    for seed in range(3):  # so that statistics are not as built
        step(model, seed)
    token = freeze(model, "encoder.stage3+activity")
    before = state(model)
    for seed in range(3):
        model.eval()
        token.train()
        step(model, seed)
    moved = changed(before, model)
    assert {n for n in moved if n in everything} == {n for n in everything if ".stage3." in n}
    assert {n for n in moved if ".stage1." in n or ".stage2." in n} == set()
    token.restore()
    assert all(m.training for m in model.modules())
    before = state(model)
    step(model, 9)
    assert {n for n in changed(before, model) if n in everything} == everything


@pytest.mark.parametrize(("kind", "recipe"), list(norm_models()), ids=lambda v: v if isinstance(v, str) else "")
def test_full_leaves_norms_moving(kind, recipe):
    model = made(recipe)
    token = freeze(model, "full")
    before = state(model)
    token.train()
    step(model, 0)
    assert changed(before, model) >= statistics_of(model)


def test_gradual_unfreezing_lets_norms_move_in_turn():
    model = made(stack(stem(norm="batch"), block(norm="batch"), block(norm="batch")))
    token = freeze(model, Tune.parse("head", "2=encoder.stage3,4=full"))
    for epoch, moving in enumerate([set(), set(), {"3"}, {"3"}, {"1", "2", "3"}]):
        token.advance(epoch)
        token.train()
        before = state(model)
        step(model, epoch)
        moved = {n.split(".")[1][-1] for n in changed(before, model) if n.startswith("encoder.")}
        assert moved == moving, epoch


def test_norms_without_parameters_go_by_their_part():
    model = made(stack(stem(norm="batch"), block(norm="batch")))
    for stage in (model.encoder.stage1, model.encoder.stage2):
        stage.norm = nn.BatchNorm1d(stage.norm.num_features, affine=False)
    token = freeze(model, "encoder.stage2+activity")
    before = state(model)
    token.train()
    step(model, 0)
    moved = changed(before, model) & statistics_of(model)
    assert {n.split(".")[1] for n in moved} == {"stage2"}


def test_a_norm_left_in_evaluation_by_hand_stays_so():
    model = made()
    model.encoder.stage3.norm.eval()
    token = freeze(model, "encoder.stage3+activity")
    assert not model.encoder.stage1.norm.training
    token.restore()
    assert model.encoder.stage1.norm.training
    assert not model.encoder.stage3.norm.training
