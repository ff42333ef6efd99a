"""What a review found broken in banks: modes, flags, contexts, fusions, names."""

import copy
import itertools

import pytest
import torch
from torch import nn

from agblocks.adapters import Average, Fuse, Parallel, Stack, adapt
from agblocks.adapters.errors import AdapterError, AlreadyAttached, CompositionError, UnknownAdapter
from agblocks.layers import RMSBatchNorm
from agblocks.testing.adapter_trial import move, outputs


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)).double()


def batch():
    return torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def modes(model):
    return {name: module.training for name, module in model.named_modules()}


@pytest.mark.parametrize("resting", [(), ("1",), ("1", "3"), ("3", "4")])
def test_modes_are_left_and_given_back(resting):
    base = nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4), RMSBatchNorm(4), nn.Dropout(), nn.BatchNorm1d(4))
    for name in resting:
        base.get_submodule(name).eval()
    before = modes(base)
    adapted = adapt(base, ["ia3:glob=0"], train=["4"])
    attached = modes(base)
    assert not any(attached[name] for name in ("1", "2")) and attached["3"] == before["3"]
    assert attached["4"] == before["4"]
    merged = adapted.merged()
    assert modes(merged) == before
    assert modes(adapted.detach()) == before


def test_a_norm_that_comes_to_train_wakes():
    base = nn.Sequential(nn.Conv1d(4, 4, 1), nn.BatchNorm1d(4))
    adapted = adapt(base, ["ia3:glob=0"])
    adapted.train()
    assert not base[1].training
    adapted.add("more", [], train=["1"])
    assert base[1].training
    adapted.bank.remove("more")
    assert not base[1].training


@pytest.mark.parametrize("pattern", ["rol=norm", "layers=-1:", "regex=("])
def test_what_trains_is_said_by_globs_roles_or_types(pattern):
    base = net()
    with pytest.raises(AdapterError, match="does not say what trains"):
        adapt(base, ["lora:glob=1,rank=2"], train=[pattern])
    assert all(p.requires_grad for p in base.parameters())


def test_one_bank_a_model():
    base = net()
    adapted = adapt(base, ["lora:glob=0,rank=2"], train=["2"])
    for model in (base, nn.Sequential(base)):
        with pytest.raises(AlreadyAttached, match=r"adapted.add\(...\)"):
            adapt(model, ["ia3:type=Linear"])
    assert base[2].weight.requires_grad
    adapted.detach()
    adapt(base, ["ia3:glob=0"]).detach()


def test_nothing_changes_inside_a_context():
    adapted = adapt(net(), ["lora:glob=0,rank=2"])
    adapted.add("b", ["ia3:glob=0"])
    move(adapted)
    bank, before = adapted.bank, outputs(adapted, batch())
    changes = (
        bank.merge_, bank.detach, lambda: bank.remove("b"), lambda: adapted.add("c", ["ia3:glob=1"]),
        lambda: bank.activate("b"), lambda: bank.weigh("b", 2), lambda: bank.train_only("b"),
    )  # fmt: skip
    for change in changes:
        with bank.using("b"), pytest.raises(AdapterError, match=r"inside using\(\) or disabled\(\)"):
            change()
        assert torch.equal(before, outputs(adapted, batch()))


def test_an_activation_that_fails_changes_nothing():
    adapted = adapt(net(), ["lora:glob=0,rank=2"], name="a")
    adapted.add("b", ["lora:glob=0,rank=2"])
    move(adapted)
    before, active = outputs(adapted, batch()), adapted.bank.active
    for attempt in (lambda: adapted.bank.activate(Fuse("a", "b")), lambda: adapted.bank.activate("a", "z")):
        with pytest.raises(UnknownAdapter):
            attempt()
        assert adapted.bank.active is active and torch.equal(before, outputs(adapted, batch()))
    with pytest.raises(UnknownAdapter), adapted.bank.using(Fuse("a", "b")):
        pass
    adapted.bank.activate("a")
    with pytest.raises(CompositionError, match="acts once"):
        adapted.bank.activate("b", "b")


def test_removing_what_a_composition_has_is_refused():
    adapted = adapt(net(), ["lora:glob=0,rank=2"], name="a")
    for name in "bc":
        adapted.add(name, ["lora:glob=0,rank=2"])
    adapted.bank.activate(Parallel("a", "b"))
    adapted.bank.remove("c")
    assert isinstance(adapted.bank.active, Parallel)
    with pytest.raises(CompositionError, match=r"'b' is part of Parallel\(a, b\)"):
        adapted.bank.remove("b")
    adapted.bank.activate(Stack("a", Average("a", "b")))
    with pytest.raises(CompositionError, match="'b' is part of"):
        adapted.bank.remove("b")
    adapted.bank.activate("a", "b")
    adapted.bank.remove("b")
    assert adapted.bank.active.parts == ("a",)
    adapted.bank.remove("a")
    assert adapted.bank.active is None and not adapted.base._forward_pre_hooks


def test_merged_copies_and_pickles_unmerge():
    adapted = adapt(net(), ["lora:glob=0,rank=2"])
    move(adapted)
    values, before = copy.deepcopy(adapted.base.state_dict()), outputs(adapted, batch())
    adapted.bank.merge_()
    twin = copy.deepcopy(adapted)
    twin.bank.unmerge_()
    assert all(torch.equal(v, values[k]) for k, v in twin.base.state_dict().items())
    assert torch.equal(before, outputs(twin, batch())) and adapted.bank.merged


def test_flags_go_by_name():
    base = net()
    base[1].bias.requires_grad_(False)
    adapted = adapt(base, ["lora:glob=0,rank=2"])
    adapted.load_state_dict({k: v.clone() for k, v in adapted.state_dict().items()}, assign=True)
    adapted.detach()
    assert {n: p.requires_grad for n, p in base.named_parameters()} == {
        n: n != "1.bias" for n, _ in base.named_parameters()
    }


@pytest.mark.parametrize("name", ["keys", "values", "items", "pop", "sites"])
def test_modules_of_any_name(name):
    base = nn.Module()
    base.add_module(name, nn.Linear(4, 4))
    adapted = adapt(base, [f"lora:glob={name},rank=2"])
    adapted.add("b", [f"ia3:glob={name}"])
    assert adapted.bank.site(name).path == name and len(adapted.bank.sites) == 1
    adapted.detach()


def test_fusions_of_stacks_train_while_they_act_and_are_counted():
    adapted = adapt(net(), ["lora:glob=0,rank=2"], name="a")
    adapted.add("b", ["lora:glob=0,rank=2"])
    adapted.add("c", ["lora:glob=0,rank=2"])
    count = adapted.bank.count()
    fuse = adapted.bank.add_fusion(Stack("a", "b"), "c")
    assert adapted.bank.count() == count + 3 * 36 + 12
    assert not any("fusion" in n for n, p in adapted.named_parameters() if p.requires_grad)
    adapted.bank.activate(fuse)
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert trained and all("fusion" in n for n in trained)
    assert outputs(adapted, batch()).isfinite().all()
    adapted.bank.merge_(partial=True)
    with pytest.raises(AdapterError, match="merged"):
        adapted.bank.add_fusion("a", "c")


def test_a_fusion_knows_widths_that_a_probe_told():
    class Unknown(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.eye(6, dtype=torch.float64))

        def forward(self, x):
            return x @ self.weight

    adapted = adapt(nn.Sequential(nn.Linear(6, 6).double(), Unknown()), ["ia3:glob=1"], name="a", probe=batch())
    adapted.add("b", ["ia3:glob=1"], probe=batch())
    adapted.bank.activate(adapted.bank.add_fusion("a", "b"))
    assert outputs(adapted, batch()).shape == (3, 6)


@pytest.mark.parametrize("options", [{"norms": "track"}, {"norms": "thaw"}, {"on_compiled": "x"}])
def test_options_that_do_not_hold_are_refused(options):
    adapted = adapt(net(), ["ia3:glob=0"])
    with pytest.raises(AdapterError, match=next(iter(options))):
        adapt(adapted, ["ia3:glob=1"], name="b", **options)
    assert list(adapted.bank.names) == ["default"]


def test_weights_are_finite_and_models_are_modules():
    adapted = adapt(net(), ["ia3:glob=0"])
    with pytest.raises(AdapterError, match="finite"):
        adapted.bank.weigh("default", float("nan"))
    with pytest.raises(AdapterError, match=r"nn\.Module"):
        adapt({"a": 1}, ["ia3:glob=0"])
    with pytest.raises(AdapterError, match="call the model once"):
        adapt(nn.Sequential(nn.Linear(4, 4), nn.LazyLinear(4)), ["ia3:glob=0"])


def test_functions_are_not_hidden_by_modules_of_their_name():
    import agblocks.adapters
    import agblocks.adapters.adapter
    import agblocks.adapters.methods.low_rank

    assert callable(agblocks.adapters.adapter) and "lora" in agblocks.adapters.kinds()


def test_adapters_made_without_gradients_train():
    base = net()
    with torch.inference_mode():
        adapted = adapt(base, ["lora:glob=0,rank=2", "dora:glob=1,rank=2"])
    adapted(batch()).sum().backward()
    assert adapted.bank.adapters("default")[0].B.grad is not None


def test_flags_come_back_in_any_order_of_names():
    for order in itertools.permutations("ab"):
        base = net()
        base[0].weight.requires_grad_(False)
        adapted = adapt(base, ["ia3:glob=0"], name="a", train=["2"])
        adapted.add("b", ["ia3:glob=1"], train=["1"])
        for name in order:
            adapted.bank.remove(name)
        assert not any(p.requires_grad for p in base.parameters())
        adapted.detach()
        assert [p.requires_grad for p in base.parameters()] == [False, True, True, True, True, True]
