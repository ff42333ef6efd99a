"""Attaching as a whole or not at all, training flags, merging in detail."""

import copy

import pytest
import torch
from torch import nn

import agblocks
from agblocks.adapters import AdapterSpec, adapt
from agblocks.adapters.errors import (
    AdapterError,
    DuplicateSite,
    MergedStateError,
    NonFiniteMerge,
    NoTargetMatch,
    NotIdentity,
    NotMergeable,
    SiteNeverFired,
    StaleMerge,
    UnknownAdapter,
    UnsupportedModule,
)
from agblocks.layers import RMSBatchNorm, StandardizedConv1d
from agblocks.testing.adapter_trial import move, outputs


def model():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.LayerNorm(6)).double().eval()


def batch():
    return torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def untouched(base, before):
    return (
        not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())
        and all(p.requires_grad for p in base.parameters())
        and all(torch.equal(v, before[k]) for k, v in base.state_dict().items())
    )


@pytest.mark.parametrize(
    ("specs", "error"),
    [
        (["lora:glob=0,rank=2", "lora:glob=nope,rank=2"], NoTargetMatch),
        (["lora:glob=0,rank=2", "lora:glob=2,rank=7"], UnsupportedModule),
        (["lora:glob=0,rank=2", "norm:glob=1"], UnsupportedModule),
        (["lora:glob=0+2,rank=2", "lora:glob=0,rank=3"], DuplicateSite),
        ([], AdapterError),
    ],
)
def test_all_or_nothing(specs, error):
    base = model()
    before = copy.deepcopy(base.state_dict())
    with pytest.raises(error):
        adapt(base, specs)
    assert untouched(base, before)


def test_a_second_name_that_fails_leaves_the_first():
    base = model()
    adapted = adapt(base, ["lora:glob=0,rank=2"])
    move(adapted)
    before = outputs(adapted, batch())
    with pytest.raises(UnsupportedModule):
        adapted.add("second", ["ia3:glob=2", "norm:glob=1"])
    assert list(adapted.bank.names) == ["default"] and torch.equal(before, outputs(adapted, batch()))
    assert len(adapted.bank.sites) == 1 and not base[2]._forward_hooks


class Bypass(nn.Module):
    """Reads its linear map's weight itself."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x):
        return nn.functional.linear(x, self.linear.weight)


def test_a_probe_finds_sites_that_never_fire():
    base = Bypass().double()
    with pytest.raises(SiteNeverFired, match=r"1 of 1 sites of 'default' are never called.*'linear' \(Linear\)"):
        adapt(base, ["lora:glob=linear,rank=2"], probe=batch())
    assert untouched(base, base.state_dict())


def test_a_probe_finds_what_is_no_identity(monkeypatch):
    from agblocks.adapters.methods.scaling import Ia3

    monkeypatch.setattr(Ia3, "reset_parameters", lambda self, generator: nn.init.constant_(self.l, 1.01))
    base = model()
    with pytest.raises(NotIdentity, match=r"'default' \(ia3\) should change nothing at the start"):
        adapt(base, ["ia3:glob=0"], probe=batch())
    assert untouched(base, base.state_dict())


def test_a_probe_tells_widths_of_unknown_modules():
    base = nn.Sequential(nn.Sequential(nn.Linear(6, 7)), nn.Linear(7, 2)).double()
    with pytest.raises(UnsupportedModule, match="probe"):
        adapt(base, ["ia3:glob=0"])
    assert adapt(base, ["ia3:glob=0"], probe=batch()).bank.count() == 7


def test_flags_come_back():
    base = model()
    base[0].weight.requires_grad_(False)
    flags = [p.requires_grad for p in base.parameters()]
    adapted = adapt(base, ["lora:glob=2,rank=2"], train=["3"])
    assert [n for n, p in base.named_parameters() if p.requires_grad] == ["3.weight", "3.bias"]
    adapted.add("more", ["ia3:glob=0"], train=["type=LayerNorm"])
    adapted.bank.activate("default")
    adapted.detach()
    assert [p.requires_grad for p in base.parameters()] == flags
    with pytest.raises(NoTargetMatch):
        adapt(base, ["ia3:glob=0"], train=["nope"])
    adapted = adapt(base, ["ia3:glob=0"])
    adapted.bank.open("default", ["3.bias"])
    assert [n for n, p in base.named_parameters() if p.requires_grad] == ["3.bias"]
    with pytest.raises(UnknownAdapter, match="did you mean 3.bias"):
        adapted.bank.open("default", ["3.bais"])


def test_training_mode():
    base = nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), RMSBatchNorm(4), nn.BatchNorm1d(4))
    adapted = adapt(base, ["ia3:glob=0"], train=["3"])
    adapted.train()
    assert [m.training for m in base] == [True, False, False, True]
    adapted.eval().train()
    assert [m.training for m in base] == [True, False, False, True]
    detached = adapted.detach()
    assert detached is base and all(m.training for m in base)
    tracked = adapt(base, ["ia3:glob=0"], norms="track")
    tracked.train()
    assert all(m.training for m in base)


def test_merging_is_all_or_nothing_and_names_what_cannot():
    base = model()
    adapted = adapt(base, ["lora:glob=0+2,rank=2", "bitfit:glob=1+2"], probe=batch())
    move(adapted)
    hooked, values = outputs(adapted, batch()), copy.deepcopy(base.state_dict())
    with pytest.raises(NotMergeable, match=r"1 sites cannot be merged.*\n  1: bitfit: "):
        adapted.bank.merge_()
    assert all(torch.equal(v, values[k]) for k, v in base.state_dict().items())
    done = adapted.bank.merge_(partial=True)
    assert list(done.left) == ["1"] and {c.site for c in done.changes} == {"0", "2"}
    assert torch.allclose(hooked, outputs(adapted, batch()), atol=1e-12)
    for refused in (
        lambda: adapted.bank.activate("default"),
        lambda: adapted.bank.weigh("default", 1),
        adapted.bank.merge_,
    ):
        with pytest.raises(MergedStateError):
            refused()
    adapted.bank.unmerge_()
    assert all(torch.equal(v, values[k]) for k, v in base.state_dict().items())
    assert torch.equal(hooked, outputs(adapted, batch()))


def test_weights_changed_since_merging_are_noticed():
    adapted = adapt(model(), ["lora:glob=0,rank=2"])
    move(adapted)
    adapted.bank.merge_()
    with torch.no_grad():
        adapted.base[0].weight.mul_(2)
    with pytest.raises(StaleMerge, match=r"'0.weight'"):
        adapted.bank.unmerge_()
    adapted.bank.unmerge_(force=True)


def test_detaching_while_merged_gives_the_base_back():
    base = model()
    values = copy.deepcopy(base.state_dict())
    adapted = adapt(base, ["lora:glob=0,rank=2"])
    move(adapted)
    adapted.bank.merge_()
    adapted.detach()
    assert untouched(base, values)


def test_tied_weights_are_not_merged():
    base = model()
    base[2].weight = base[0].weight
    adapted = adapt(base, ["lora:glob=0,rank=2"])
    with pytest.raises(NotMergeable, match=r"0.weight and 2.weight are one tensor"):
        adapted.bank.merge_()


def test_a_merge_that_is_not_finite_changes_nothing():
    base = model()
    values = copy.deepcopy(base.state_dict())
    adapted = adapt(base, ["lora:glob=0+2,rank=2"])
    move(adapted)
    with torch.no_grad():
        adapted.bank.adapters("default")[1].B.fill_(float("inf"))
    with pytest.raises(NonFiniteMerge, match="'2' gave a weight that is not finite"):
        adapted.bank.merge_()
    assert all(torch.equal(v, values[k]) for k, v in base.state_dict().items()) and not adapted.bank.merged


def test_locon_on_a_standardised_convolution_merges_exactly_only_if_centred():
    def attached(**args):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            base = nn.Sequential(StandardizedConv1d(6, 8, 5)).double().eval()
        adapted = adapt(base, [AdapterSpec("locon", glob="0", rank=3, **args)])
        move(adapted)
        return adapted, torch.randn(2, 6, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    adapted, x = attached()
    hooked, keys = outputs(adapted, x), list(adapted.base.state_dict())
    merged = adapted.merged()
    assert list(merged.state_dict()) == keys
    distance = (outputs(merged, x) - hooked).norm() / hooked.norm()
    assert distance < 1e-14
    loose, x = attached(center=False)
    with pytest.raises(NotMergeable, match="center: true"):
        loose.merged()


def test_half_precision_merges_in_double_and_rounds_once():
    base = model().to(torch.bfloat16)
    adapted = adapt(base, ["lora:glob=0,rank=2"])
    move(adapted)
    weight = base[0].weight.detach().double() + adapted.bank.adapters("default")[0].change()
    done = adapted.bank.merge_()
    assert torch.equal(base[0].weight, weight.to(torch.bfloat16))
    assert 0 <= done.changes[0].lost < 1 and done.changes[0].largest > 0


def test_on_a_graph_model_everything_is_reached_through():
    model = agblocks.build("tiny", seed=0)
    adapted = agblocks.adapt(model, ["locon:rank=1"])
    assert adapted.loss_outputs == model.loss_outputs and adapted.resolved is model.resolved
    assert adapted.no_weight_decay() >= {f"base.{n}" for n in model.no_weight_decay()}
    with pytest.raises(AttributeError, match="neither Adapted nor its base, a GraphModel, has 'nonsense'"):
        _ = adapted.nonsense
    rows = adapted.bank.report()
    assert {r["role"] for r in rows} == {"conv.main"} and sum(r["parameters"] for r in rows) == adapted.bank.count()
    assert adapted.detach() is model
