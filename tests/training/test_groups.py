"""Layer decay by the recipe's depth, weight decay, and what a schedule makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from torch import nn
from tune_helpers import LAYERED, THREE, made, trained_names

from agblocks import build
from agblocks.training import RunError, Settings
from agblocks.training.module import schedule
from agblocks.training.tuning.frozen import freeze
from agblocks.training.tuning.groups import parameter_groups
from agblocks.training.tuning.plan import plan
from agblocks.training.tuning.tune import Tune

RECIPES = ("tiny", "alphagenome_small", "borzoi_small", "enformer_small", "dream_attn_small", "mpralegnet_small")

DEEP = {
    "recipe": 1,
    "name": "deep",
    "inputs": {"dna": "B 4 L"},
    "nodes": {
        "tower": {
            "block": "encoder.stack",
            "in": "dna",
            "args": {"stages": [{"block": "conv.stem", "args": {"channels": 2, "kernel": 1}}] * 48},
        }
    },
    "heads": {"activity": {"block": "head.scalar", "in": "tower", "args": {"pool": "mean"}}},
}


def scale_by_name(model, **options):
    names = {id(p): n for n, p in model.named_parameters()}
    groups = parameter_groups(model, 0.1, **options)
    return {names[id(p)]: g["lr_scale"] for g in groups for p in g["params"]}


def by_hand(model, decay, head_lr, least):
    """A node's layer is the largest number of nodes with parameters on a way to it, without gaps; oracle."""
    nodes, heads = model.resolved.nodes, model.resolved.heads
    maker = {edge: node.name for node in nodes.values() for edge in node.outputs}
    weighs = {name: bool(list(model.get_submodule(name).parameters())) for name in nodes}

    def deep(name):
        before = [maker[e] for e in nodes[name].inputs.values() if e in maker]
        return max((deep(b) + weighs[b] for b in before), default=0)

    depths = {name: deep(name) for name in nodes if weighs[name] and name not in heads}
    levels = sorted(set(depths.values()))
    wanted = {}
    for parameter, _ in model.named_parameters():
        node = max((n for n in nodes if parameter.startswith(f"{n}.")), key=len)
        if node in heads:
            wanted[parameter] = head_lr
        else:
            wanted[parameter] = max(least, decay ** (len(levels) - 1 - levels.index(depths[node])))
    return wanted


def test_forty_eight_layers():
    """The example of a guide, which prints 8.8e-7 for the bottom; its own formula gives 8.97e-7."""
    model = made(DEEP)
    scales = scale_by_name(model, layer_decay=0.95)
    rates = {name: 1e-5 * scale for name, scale in scales.items()}
    assert rates["tower.stage48.conv.weight"] == 1e-5
    assert rates["tower.stage47.conv.weight"] == pytest.approx(9.5e-6)
    assert rates["tower.stage1.conv.weight"] == pytest.approx(1e-5 * 0.95**47)
    assert f"{rates['tower.stage1.conv.weight']:.3g}" == "8.97e-07"
    assert rates["activity.layers.0.weight"] == 1e-5


@pytest.mark.parametrize("recipe", RECIPES)
def test_layers_are_the_recipes(recipe):
    model = build(recipe, seed=0)
    for decay, head_lr, least in ((0.75, 10.0, 0.0), (0.9, 1.0, 0.5), (1.0, 3.0, 0.0)):
        found = scale_by_name(model, layer_decay=decay, head_lr=head_lr, min_scale=least)
        assert found == pytest.approx(by_hand(model, decay, head_lr, least))


@settings(deadline=None, max_examples=40)
@given(
    tune=st.sampled_from(["full", "head", "last:2", "from:encoder.stage2", "**.bias+early"]),
    later=st.sampled_from(["", "1=full", "1=tower.layer1.**.bias+encoder.stage1,3=full"]),
    decay=st.sampled_from([1.0, 0.9, 0.5]),
    head_lr=st.sampled_from([1.0, 10.0]),
    least=st.sampled_from([0.0, 0.4]),
    weight=st.sampled_from([0.0, 0.05]),
)
def test_the_groups_are_what_trains_each_once(tune, later, decay, head_lr, least, weight):
    model = made(LAYERED)
    try:
        token = freeze(model, Tune.parse(tune, later if tune != "full" else ""))
    except RunError:
        reject()  # the second step adds nothing
    options = {"layer_decay": decay, "head_lr": head_lr, "min_scale": least}
    with token.ever():
        wanted = trained_names(model)
        groups = parameter_groups(model, weight, **options)
        again = parameter_groups(model, weight, **options)
    names = {id(p): n for n, p in model.named_parameters()}
    found = [names[id(p)] for g in groups for p in g["params"]]
    assert len(found) == len(set(found))
    assert set(found) == wanted == {names[i] for i in names if token.after(model.get_parameter(names[i])) is not None}
    assert [[id(p) for p in g["params"]] for g in groups] == [[id(p) for p in g["params"]] for g in again]
    other = made(LAYERED, seed=1)
    with freeze(other, Tune.parse(tune, later if tune != "full" else "")).ever():
        theirs = {id(p): n for n, p in other.named_parameters()}
        assert found == [theirs[id(p)] for g in parameter_groups(other, weight, **options) for p in g["params"]]
    scales = by_hand(model, decay, head_lr, least)
    for group in groups:
        for p in group["params"]:
            assert group["lr_scale"] == pytest.approx(scales[names[id(p)]])
            vector = p.ndim <= 1 or (p.ndim > 2 and p.numel() == p.shape[0])
            assert group["weight_decay"] == (0.0 if vector else weight)


def test_a_tied_parameter_is_in_one_group_by_its_first_use():
    model = made({**THREE, "nodes": {"encoder": {"block": "encoder.stack", "in": "dna", "args": {"stages": [
        {"block": "conv.stem", "args": {"channels": 4, "kernel": 3}} for _ in range(3)]}}}})  # fmt: skip
    model.encoder.stage3.conv.weight = model.encoder.stage2.conv.weight
    found = [p for g in parameter_groups(model, 0.1, layer_decay=0.5) for p in g["params"]]
    assert len(found) == len({id(p) for p in found}) == len(list(model.parameters()))
    assert scale_by_name(model, layer_decay=0.5)["encoder.stage2.conv.weight"] == 0.5
    freeze(model, "encoder.stage3")  # what is tied trains if either is named
    assert "encoder.stage2.conv.weight" in trained_names(model)
    assert "encoder.stage2.norm.weight" not in trained_names(model)


def test_one_rate_for_all_is_two_groups():
    model = made(LAYERED)
    decays, spared = parameter_groups(model, 0.1)
    assert (decays["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)
    assert decays["lr_scale"] == spared["lr_scale"] == 1.0


@pytest.mark.parametrize("kind", ["constant", "cosine", "onecycle"])
def test_a_schedule_multiplies_every_groups_scale(kind):
    model = made(LAYERED)
    chosen = Settings(schedule=kind, lr=0.5, warmup=0.2, layer_decay=0.7, head_lr=4.0)
    groups = parameter_groups(model, 0.1, layer_decay=0.7, head_lr=4.0)
    for group in groups:
        group["lr"] = 0.5 * group["lr_scale"]
    many = torch.optim.AdamW(groups)
    one = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedules = [schedule(o, chosen, 23) for o in (many, one)]
    assert len({g["lr_scale"] for g in many.param_groups}) > 4
    for _ in range(23):
        for group in many.param_groups:
            assert group["lr"] == pytest.approx(one.param_groups[0]["lr"] * group["lr_scale"])
        for optimizer, moved in zip((many, one), schedules, strict=True):
            optimizer.step()
            moved.step()


class Wrapper(nn.Module):
    """A model with more parameters around it, as adapters are."""

    def __init__(self, base, factors):
        super().__init__()
        self.base, self.more, self.factors = base, nn.Linear(3, 3), factors

    def no_weight_decay(self):
        return {"more.weight", "base.encoder.stage1.conv.weight"}

    def learning_rates(self):
        return self.factors


def test_parameters_around_a_model():
    model = Wrapper(made(), {"more.bias": 16.0, "base.activity.layers.0.weight": 2.0})
    token = freeze(model, "head")
    wanted = {"more.weight", "more.bias", *(n for n, _ in model.named_parameters() if n.startswith("base.activity"))}
    assert trained_names(model) == wanted
    found = scale_by_name(model, head_lr=3.0, layer_decay=0.5)
    assert found["more.weight"] == 1.0
    assert found["more.bias"] == 16.0
    assert found["base.activity.layers.0.weight"] == 6.0
    token.restore()
    model.more.weight.requires_grad_(False)
    token = freeze(model, Tune.parse("head", "2=full"))
    token.advance(2)
    assert not model.more.weight.requires_grad
    assert model.base.encoder.stage1.conv.weight.requires_grad
    spared = [p for g in parameter_groups(model, 0.1) if not g["weight_decay"] for p in g["params"]]
    assert any(p is model.base.encoder.stage1.conv.weight for p in spared)
    with pytest.raises(RunError, match=r"learning_rates\(\) of the model names 'nope'"):
        parameter_groups(Wrapper(made(), {"nope": 2.0}), 0.1)


def test_the_table():
    model = made(LAYERED)
    before = trained_names(model)
    chosen = Settings(tune="last:1", unfreeze="3=tower.layer2", layer_decay=0.5, head_lr=10.0)
    made_plan = plan(model, chosen)
    assert trained_names(model) == before
    assert made_plan.parameters == sum(p.numel() for p in model.parameters())
    sums = {}
    for part in made_plan.parts:
        sums[part.name, part.after] = sums.get((part.name, part.after), 0) + part.parameters
    for (name, after), total in sums.items():
        assert total == sum(p.numel() for p in model.get_submodule(name).parameters())
        assert after == {"tower.layer3": 0, "early": 0, "activity": 0, "tower.layer2": 3}.get(name)
    heads = [part for part in made_plan.parts if part.name == "early"]
    assert sorted((part.lr_scale, part.decays) for part in heads) == [(10.0, False), (10.0, True)]
    text = str(made_plan)
    row = next(line for line in text.splitlines() if line.startswith("tower.layer2"))
    assert row.split()[2:-1] == ["after", "3", "epochs", "0.5"]
    assert text.splitlines()[-1].startswith(f"{made_plan.trained:,} of {made_plan.parameters:,} parameters train")
    assert not made_plan.is_plain
    assert plan(model, replace(chosen, tune="full", unfreeze="", layer_decay=1.0, head_lr=1.0)).is_plain


def test_the_digest_is_of_what_a_policy_comes_to():
    model = made(LAYERED)

    def digest(tune="full", origins=None, **changes):
        return plan(model, Settings(tune=tune, **changes), origins).digest

    names = dict.fromkeys(model.state_dict(), "drawn")
    assert digest("not:encoder") == digest("tower+early+activity") == digest("from:tower+early")
    assert digest(rates="tower=0.5") == digest(rates="tower.**=0.5")
    different = [digest(), digest("head"), digest(rates="tower=0.5"), digest("head", unfreeze="1=full"),
                 digest("head", unfreeze="plateau=full"), digest("head", unfreeze="plateau:3=full"),
                 digest(weight_decay=0.0), digest(origins=names), digest(origins=dict.fromkeys(names, "runs/a")),
                 digest(origins=dict.fromkeys(names, "drawn anew"))]  # fmt: skip
    assert len(set(different)) == len(different)
    assert digest(origins=dict.fromkeys(names, "runs/a")) == digest(origins=dict.fromkeys(names, "w.pt"))
    assert json.loads(json.dumps(plan(model, Settings(tune="head")).to_dict()))["parts"][-1]["name"] == "activity"
