"""Adapters where models are really used: checkpointing, copies, half precision, functional calls, foreign hooks."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

import agblocks
from agblocks.adapters import AdapterSpec, adapt, kinds
from agblocks.adapters.errors import AdapterError, ReentrantCheckpointError
from agblocks.errors import AgblocksError

SPEC = "lora:type=Linear,rank=2"


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.v = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.v(torch.relu(self.q(x)))


class Net(nn.Module):
    """How its blocks are checkpointed is said from outside."""

    reentrant = None

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.blocks, self.head = nn.ModuleList([Block(), Block()]), nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


def net(dtype=torch.float64):
    torch.manual_seed(0)
    return Net().to(dtype)


def rows(dtype=torch.float64):
    return torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)


def move(adapted):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.add_((torch.randn(parameter.shape, generator=generator) * 0.3).to(parameter))
    return adapted


def made(*specs, dtype=torch.float64, model=None, **options):
    return move(adapt(model or net(dtype), specs or [SPEC], **options))


def gradients(adapted, x, call=None):
    adapted.zero_grad(set_to_none=True)
    (call or adapted)(x).square().sum().backward()
    return {name: p.grad.clone() for name, p in adapted.named_parameters() if p.grad is not None}


def agree(got, wanted, **tolerance):
    assert got.keys() == wanted.keys() and wanted
    for name, gradient in wanted.items():
        torch.testing.assert_close(got[name], gradient, **tolerance)


def outputs(model, x):
    with torch.no_grad():
        return model(x)


# Checkpointing


@pytest.mark.parametrize("inputs", [False, True], ids=["frozen stem", "inputs want gradients"])
@pytest.mark.parametrize("dropout", [0, 0.5])
def test_checkpointing_gives_the_same_gradients(inputs, dropout):
    adapted = made(f"lora:type=Linear,rank=2,dropout={dropout}").train()
    found = []
    for adapted.base.reentrant in (None, False):
        torch.manual_seed(5)
        found.append(gradients(adapted, rows().requires_grad_(inputs)))
    agree(found[1], found[0], rtol=1e-12, atol=1e-12)
    if dropout:  # it takes part: another seed gives others
        torch.manual_seed(6)
        other = gradients(adapted, rows())
        assert not all(torch.allclose(other[k], v) for k, v in found[0].items())


def test_reentrant_checkpointing_of_a_frozen_stem_is_refused():
    adapted = made("lora:glob=blocks.*.*,rank=2").train()
    adapted.base.reentrant = True
    with pytest.raises(ReentrantCheckpointError, match=r"blocks\.0\.q.*use_reentrant=False"):
        adapted(rows())
    adapted.base.reentrant = None
    with pytest.raises(ReentrantCheckpointError):  # the whole of it, from outside
        checkpoint(adapted, rows(), use_reentrant=True)
    adapted.detach()  # without adapters it is torch's own matter
    adapted.base.reentrant = True
    adapted.base(rows())


def test_reentrant_checkpointing_is_allowed_where_it_is_right():
    adapted = made("lora:type=Linear,rank=2").train()
    wanted = gradients(adapted, rows())
    adapted.base.reentrant = True  # what goes into the blocks wants gradients, for the stem has an adapter
    agree(gradients(adapted, rows()), wanted, rtol=1e-12, atol=1e-12)
    inner = made("lora:glob=blocks.*.*,rank=2").train()
    wanted = gradients(inner, rows())
    inner.base.reentrant = True
    agree(gradients(inner, rows().requires_grad_()), wanted, rtol=1e-12, atol=1e-12)
    inner.eval()(rows())  # nothing is to train


def test_checkpointing_of_a_graph_model():
    model = agblocks.build("tiny").double()
    dna = torch.eye(4, dtype=torch.float64)[torch.randint(4, (2, 64))].transpose(1, 2)
    adapted = made("locon:role=conv.main,rank=2", "ia3:role=norm", model=model, train=["activity"]).train()
    states = copy.deepcopy(model.state_dict())

    def step():
        adapted.load_state_dict({f"base.{k}": v for k, v in states.items()}, strict=False)
        torch.manual_seed(2)
        return gradients(adapted, dna, lambda x: adapted(dna=x)["activity"])

    wanted = step()
    adapted.set_grad_checkpointing()
    agree(step(), wanted, rtol=1e-9, atol=1e-12)
    assert any(name.startswith("base.activity") for name in wanted)
    assert any(name.startswith("bank.") for name in wanted)


# Copies


@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
@pytest.mark.parametrize("whole", [True, False])
def test_copies_are_whole_and_independent(how, whole):
    adapted = made()
    adapted.add("second", ["ia3:type=Linear"])
    move(adapted)
    model, x = adapted if whole else adapted.base, rows()
    before = outputs(model, x)
    twin = how(model)
    assert torch.equal(outputs(twin, x), before)
    if whole:  # its own bank switches it, and not the original
        with twin.bank.disabled():
            assert not torch.allclose(outputs(twin, x), before)
            assert torch.equal(outputs(model, x), before)
        twin.bank.remove("second")
        assert torch.equal(outputs(model, x), before)
        with torch.no_grad():
            next(twin.bank.parameters()).add_(1)
        assert torch.equal(outputs(model, x), before)
        assert {id(p) for p in twin.parameters()}.isdisjoint({id(p) for p in adapted.parameters()})
        bare = twin.detach()
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in bare.modules())
    else:
        adapted.detach()
        assert torch.equal(outputs(twin, x), before)
    assert torch.equal(outputs(adapted, x), before) is whole


# Types


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3", "ia3_ff", "bitfit", "houlsby", "locon"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_bases_of_any_type(kind, dtype):
    class Convolved(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.net = nn.Conv1d(8, 8, 3, padding=1), Net()

        def forward(self, x):
            return self.net(self.conv(x.transpose(1, 2)).transpose(1, 2))

    torch.manual_seed(0)
    model = Convolved().to(dtype)
    bare = outputs(model, rows(dtype))
    target = "type=Conv1d" if kind == "locon" else "type=Linear"
    rank = ",rank=2" if kind in ("lora", "dora") else ""
    adapted = made(f"{kind}:{target}{rank}", model=model)
    assert {p.dtype for p in adapted.bank.parameters()} == {torch.promote_types(dtype, torch.float32)}
    got = outputs(adapted, rows(dtype))
    assert got.dtype == bare.dtype == dtype
    assert bool(torch.isfinite(got).all()) and not torch.allclose(got, bare)
    found = gradients(adapted, rows(dtype))
    assert len(found) == len(list(adapted.bank.parameters()))
    exact = outputs(adapted.to(torch.float64), rows())  # `.to` moves both
    assert exact.dtype == torch.float64
    tolerance = {torch.bfloat16: 0.15, torch.float16: 0.02, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    assert float((got.double() - exact).norm() / exact.norm()) < tolerance


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_autocast(half):
    x = rows(torch.float32)
    specs = (SPEC, "ia3:type=Linear", "bitfit:type=Linear", "houlsby:glob=blocks.*")
    adapted = made(*specs, dtype=torch.float32, probe=x)

    def mean(call):
        return lambda x: call(x).float() / 30  # float16 ends at 65,504

    exact = gradients(adapted, x, mean(adapted))
    with torch.autocast("cpu", half):
        y = adapted(x)
        assert y.dtype == half
        found = gradients(adapted, x, mean(adapted))
    assert {g.dtype for g in found.values()} == {torch.float32}
    for name, gradient in exact.items():
        assert float((found[name] - gradient).norm()) <= 0.2 * float(gradient.norm()), name


def test_moving_the_wrapper_moves_both():
    adapted = made()
    meta = adapted.to("meta")
    assert {p.device.type for p in meta.parameters()} == {"meta"}
    adapted = made().half()
    assert {p.dtype for p in adapted.parameters()} == {torch.float16}
    adapted = made().train()
    assert all(m.training for m in adapted.modules())
    assert not any(m.training for m in adapted.eval().modules())


# Functional calls, averages


def test_functional_gradients_and_vmap():
    adapted, x = made(SPEC, "dora:glob=head,rank=2", "ia3_ff:glob=head"), rows()
    wanted = gradients(adapted, x)
    values = {n: p.detach() for n, p in adapted.named_parameters() if p.requires_grad}

    def loss(values, x):
        return torch.func.functional_call(adapted, values, (x,)).square().sum()

    agree(torch.func.grad(loss)(values, x), wanted, rtol=1e-10, atol=1e-12)
    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(values, x)
    agree({n: g.sum(0) for n, g in each.items()}, wanted, rtol=1e-10, atol=1e-12)
    for i, row in enumerate(x):
        agree({n: g[i] for n, g in each.items()}, gradients(adapted, row), rtol=1e-10, atol=1e-12)
    stacked = {n: torch.stack([v, v * 2]) for n, v in values.items()}  # an ensemble of adapters on one base
    both = torch.func.vmap(lambda v: torch.func.functional_call(adapted, v, (x,)))(stacked)
    torch.testing.assert_close(both[0], outputs(adapted, x))
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.mul_(2)
    torch.testing.assert_close(both[1], outputs(adapted, x))


@pytest.mark.parametrize("part", ["bank", "whole"])
def test_moving_averages_are_independent(part):
    adapted, x = made(), rows()
    averaged = AveragedModel(adapted.bank if part == "bank" else adapted, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    first = [p.detach().clone() for p in adapted.bank.parameters()]
    averaged.update_parameters(adapted.bank if part == "bank" else adapted)
    before = outputs(adapted, x)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.add_(1)
    after = outputs(adapted, x)
    averaged.update_parameters(adapted.bank if part == "bank" else adapted)
    bank = averaged.module if part == "bank" else averaged.module.bank
    for mean, start, now in zip(bank.parameters(), first, adapted.bank.parameters(), strict=True):
        torch.testing.assert_close(mean.detach(), start + 0.5)
        torch.testing.assert_close(now.detach(), start + 1)
    assert torch.equal(outputs(adapted, x), after)
    if part == "whole":
        mean = outputs(averaged, x)
        assert not torch.allclose(mean, after) and not torch.allclose(mean, before)
        adapted.detach()
        assert torch.equal(outputs(averaged, x), mean)


def test_inference_mode_and_assigned_state():
    adapted, x = made(), rows()
    with torch.inference_mode():
        torch.testing.assert_close(adapted(x), outputs(adapted, x))
    other = made()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    adapted.load_state_dict(other.state_dict(), assign=True)
    assert torch.equal(outputs(adapted, x), outputs(other, x))
    assert len(gradients(adapted, x)) == len(list(adapted.bank.parameters()))
    base = adapted.detach()
    assert torch.equal(base.head.weight, other.base.head.weight)


# Several on one module


SITES = {"linear": lambda: nn.Linear(8, 8), "conv": lambda: nn.Conv1d(8, 8, 3, padding=1), "norm": lambda: nn.BatchNorm1d(8)}  # fmt: skip


def _fitting(make):
    """The kinds that a module takes with their defaults."""
    for kind in sorted(kinds()):
        try:
            adapt(Between(make()), [AdapterSpec(kind, glob=["site"])])
        except (AdapterError, AgblocksError):
            continue
        yield kind


class Between(nn.Module):
    def __init__(self, site):
        super().__init__()
        self.first, self.site, self.last = nn.Linear(8, 8), site, nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        linear = isinstance(self.site, nn.Linear)
        return self.last(self.site(x) if linear else self.site(x.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize(("name", "merging"), [
    ("linear", {"lora", "dora", "ia3", "ia3_ff", "bitfit"}), ("conv", {"lora", "locon", "dora", "ia3", "ia3_ff", "bitfit"}),
    ("norm", {"ia3", "bitfit", "norm"})])  # fmt: skip
def test_every_ordered_pair_of_kinds_on_one_module(name, merging):
    """Both train, whatever order; and merged they give what they gave, or it is refused by name."""
    make, merged_pairs = SITES[name], set()
    for a, b in itertools.permutations(_fitting(make), 2):
        torch.manual_seed(0)
        model = Between(make()).double().eval()
        if isinstance(model.site, _NormBase):
            model.site.running_mean.normal_(), model.site.running_var.uniform_(0.5, 2)
        x = rows()
        adapted = move(adapt(model, [AdapterSpec(a, glob=["site"]), AdapterSpec(b, glob=["site"])]))
        found, where = gradients(adapted, x), f"{a}, then {b}, on a {name}"
        for kind in (a, b):
            mine = {n for n in found if f":{kind}." in n}
            assert mine and any(bool(found[n].abs().max() > 0) for n in mine), f"{where}: {kind} does not train"
        hooked = outputs(adapted, x)
        try:
            merged = outputs(adapted.merged(), x)
        except AdapterError as error:
            assert "site" in str(error) and (a in str(error) or b in str(error)), f"{where}: {error}"
            reasons = [each.unfoldable(model.site) for each in adapted.bank.adapters("default")]
            assert any(reasons), where
            assert torch.equal(outputs(adapted, x), hooked), where
            continue
        assert float((merged - hooked).norm() / hooked.norm()) < 1e-10, where
        merged_pairs.add((a, b))
    assert merged_pairs >= set(itertools.permutations(merging, 2))


# How modules are called


class Calls(nn.Module):
    """A module called by keyword, one that gives a tuple, one called twice, one of two names."""

    def __init__(self):
        super().__init__()
        self.named, self.twice, self.pair, self.last = nn.Linear(8, 8), nn.Linear(8, 8), Pair(), nn.Linear(8, 2)
        self.again = self.twice

    def forward(self, x):
        x = self.named(input=x)
        x = self.again(self.twice(x))
        x, (extra, kept) = self.pair(x)
        assert extra is None and kept["n"] == 3
        return self.last(x)


class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x), (None, {"n": 3})


def test_keywords_tuples_and_modules_called_twice():
    torch.manual_seed(0)
    model, x = Calls().double(), rows()
    adapted = made(SPEC, "ia3:glob=named+pair.linear", "ia3_ff:glob=named", "houlsby:glob=pair", model=model, probe=x)
    report = adapted.bank.report()
    assert [r["site"] for r in report if r["kind"] == "lora"] == ["named", "twice", "pair.linear", "last"]
    assert adapted.bank.adapters("default") and len(gradients(adapted, x)) == len(list(adapted.bank.parameters()))
    site = dict(adapted.bank.sites.items())
    lora = {path: s._modules["default:lora"] for path, s in site.items() if "default:lora" in s._modules}

    def low(path, linear, x):
        a = lora[path]
        return linear.forward(x) + 8 * (x @ a.A.T) @ a.B.T  # alpha 16 over rank 2

    with torch.no_grad():
        l = site["named"]._modules["default:ia3_ff"].l
        h = low("named", model.named, x * l) * site["named"]._modules["default:ia3"].l
        h = low("twice", model.twice, low("twice", model.twice, h))
        h = low("pair/linear", model.pair.linear, h) * site["pair/linear"]._modules["default:ia3"].l
        bottleneck = site["pair"]._modules["default:houlsby"]
        h, _ = bottleneck.after(model.pair, (h,), {}, (h, None))
        wanted = low("last", model.last, h)
    torch.testing.assert_close(outputs(adapted, x), wanted, rtol=1e-10, atol=1e-10)


def test_contexts_come_back_after_exceptions_and_nest():
    adapted, x = made(), rows()
    adapted.add("second", ["ia3:type=Linear"])
    move(adapted)
    both = outputs(adapted, x)
    flags = [p.requires_grad for p in adapted.parameters()]
    with adapted.bank.using("second"):
        one = outputs(adapted, x)
        with pytest.raises(RuntimeError, match="shapes"), adapted.bank.disabled():
            assert torch.equal(outputs(adapted, x), outputs(net(), x))
            with adapted.bank.using("default"):
                adapted(torch.randn(2, 5, dtype=torch.float64))
        assert torch.equal(outputs(adapted, x), one)
    assert torch.equal(outputs(adapted, x), both)
    assert not torch.allclose(one, both)
    assert [p.requires_grad for p in adapted.parameters()] == flags


class Foreign:
    """Somebody else's hook."""

    def __init__(self):
        self.calls = 0

    def __call__(self, module, args, out):
        self.calls += 1
        return out + 1


def test_foreign_hooks_are_kept():
    model, x, foreign = net(), rows(), Foreign()
    handle = model.head.register_forward_hook(foreign)
    before = outputs(model, x)
    adapted = made(model=model)
    late = Foreign()
    model.stem.register_forward_hook(late)
    outputs(adapted, x)
    with adapted.bank.disabled():
        outputs(adapted, x)
    adapted.detach()
    assert list(model.head._forward_hooks.values()) == [foreign]
    assert list(model.stem._forward_hooks.values()) == [late]
    assert (foreign.calls, late.calls) == (3, 2)
    model.stem._forward_hooks.clear()
    assert torch.equal(outputs(model, x), before)
    handle.remove()
    assert not model.head._forward_hooks
