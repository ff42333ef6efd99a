"""Compacter against Kronecker products written out, its shared rule, counts, initial values, refusals."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from agblocks import adapt
from agblocks.adapters import AdapterSpec
from agblocks.adapters.errors import UnsupportedModule

FEW = settings(max_examples=25, deadline=None)


def only(adapted):
    (adapter,) = adapted.bank.adapters("default")
    return adapter


def moved(adapted, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return adapted


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def kronecker(rule, s, t):
    """sum_i A_i (x) (s_i t_i), entry by entry."""
    n, rows, rank = s.shape
    columns = t.shape[2]
    whole = np.zeros((n * rows, n * columns))
    for i in range(n):
        for p in range(n):
            for q in range(n):
                for r in range(rows):
                    for o in range(columns):
                        thin = sum(s[i, r, k] * t[i, k, o] for k in range(rank))
                        whole[p * rows + r, q * columns + o] += rule[i, p, q] * thin
    assert np.allclose(whole, sum(np.kron(rule[i], s[i] @ t[i]) for i in range(n)))
    return whole


def erf_gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@FEW
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.sampled_from(["shared", "own"]))
def test_formula(n, wide, narrow, rank, rule):
    d, m = n * wide, n * narrow
    model, x = nn.Sequential(nn.Linear(3, d)).double(), drawn(2, 4, 3)
    y = model(x).detach().numpy()
    spec = AdapterSpec("compacter", glob="0", n=n, rank=rank, rule=rule, latent=m, reduction=None)
    adapted = moved(adapt(model, [spec]))
    p = {k: v.detach().numpy() for k, v in adapted.bank.named_parameters()}
    (own,) = {k.rpartition(".")[0].rpartition(".")[0] for k in p if k.endswith("down.s")}
    rules = [p["shared.default:0.A"]] * 2 if rule == "shared" else [p[f"{own}.rule_{w}.A"] for w in ("down", "up")]
    down = kronecker(rules[0], p[f"{own}.down.s"], p[f"{own}.down.t"])
    up = kronecker(rules[1], p[f"{own}.up.s"], p[f"{own}.up.t"])
    z = erf_gelu(y @ down + p[f"{own}.down.bias"])
    wanted = y + z @ up + p[f"{own}.up.bias"]
    assert np.allclose(adapted(x).detach().numpy(), wanted, rtol=1e-10, atol=1e-10)
    count = 2 * rank * (d + m) + m + d + (n**3 if rule == "shared" else 2 * n**3)
    assert adapted.bank.count() == count == sum(p.size for p in p.values())


def tower(width=64, layers=3):
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)))


def test_the_rule_is_shared_and_stored_once():
    model = tower().double()
    adapted = moved(adapt(model, ["compacter:type=Linear"]))
    names = [name for name, _ in adapted.bank.named_parameters()]
    assert [n for n in names if n.endswith(".A")] == ["shared.default:0.A"]
    adapters = adapted.bank.adapters("default")
    assert len({id(a.shared) for a in adapters}) == 1
    assert not any("shared" in name for a in adapters for name, _ in a.named_parameters())
    twin = copy.deepcopy(adapted)
    ours = twin.bank.shared["default:0"]
    assert ours is not adapted.bank.shared["default:0"] and all(a.shared is ours for a in twin.bank.adapters("default"))
    x = drawn(2, 64)
    before = twin(x)
    with torch.no_grad():
        adapted.bank.shared["default:0"].A.zero_()
    biases = [a.up.bias for a in adapters]  # with a rule of 0 only biases are added
    h = x
    for layer, bias in zip(model, biases, strict=True):
        h = nn.functional.linear(h, layer.weight, layer.bias) + bias
    assert torch.allclose(adapted(x), h) and torch.equal(twin(x), before)


def test_the_rules_gradient_is_of_all_sites():
    model = tower().double()
    adapted = moved(adapt(model, ["compacter:type=Linear"]))
    adapted(drawn(2, 64)).square().sum().backward()
    whole = adapted.bank.shared["default:0"].A.grad.clone()
    own = moved(adapt(tower().double(), ["compacter:type=Linear,rule=own"]))
    own.base.load_state_dict(model.state_dict())
    for ours, theirs in zip(own.bank.adapters("default"), adapted.bank.adapters("default"), strict=True):
        ours.load_state_dict(
            {**theirs.state_dict(), **{f"rule_{w}.A": theirs.shared.A.detach() for w in ("down", "up")}}
        )
    own(drawn(2, 64)).square().sum().backward()
    parts = [r.A.grad for a in own.bank.adapters("default") for r in (a.rule_down, a.rule_up)]
    assert len(parts) == 6 and torch.allclose(sum(parts), whole, rtol=1e-9)


def test_two_adapters_share_nothing():
    adapted = adapt(tower(), ["compacter:type=Linear"]).add("second", ["compacter:type=Linear"])
    assert set(adapted.bank.shared) == {"default:0", "second:0"}
    assert not torch.equal(adapted.bank.shared["default:0"].A, adapted.bank.shared["second:0"].A)
    adapted.bank.remove("second")
    assert set(adapted.bank.shared) == {"default:0"}


def test_initial_values():
    model = nn.Sequential(*(nn.Linear(2, 1536) for _ in range(8)))
    adapted = adapt(model, ["compacter:type=Linear,n=16"])
    rule = adapted.bank.shared["default:0"].A
    assert rule.shape == (16, 16, 16) and rule.std().item() == pytest.approx(1e-4, rel=0.04)
    sites = adapted.bank.adapters("default")
    for part, name, rows, columns in [("down", "s", 96, 1), ("down", "t", 1, 3), ("up", "s", 3, 1), ("up", "t", 1, 96)]:
        drawn_values = torch.cat([getattr(getattr(a, part), name).flatten() for a in sites]).detach()
        assert drawn_values.numel() == 8 * 16 * rows * columns
        wanted = math.sqrt(2 / (rows + columns))
        assert drawn_values.std().item() == pytest.approx(wanted, rel=4 / math.sqrt(2 * drawn_values.numel()))
    assert not any(getattr(a, part).bias.any() for a in sites for part in ("down", "up"))
    assert not torch.equal(sites[0].down.s, sites[1].down.s)
    own = only(adapt(nn.Sequential(nn.Linear(2, 512)), ["compacter:glob=0,n=16,rule=own"]))
    rules = torch.cat([own.rule_down.A, own.rule_up.A])
    assert rules.std().item() == pytest.approx(0.01, rel=0.04)
    assert not torch.equal(own.rule_down.A, own.rule_up.A)


@pytest.mark.parametrize(("spec", "bound"), [("compacter", 1e-7), ("compacter_pp", 1e-7), ("compacter:rule=own", 1e-3)])
def test_change_at_the_start(spec, bound):
    model = nn.Sequential(nn.Linear(256, 256)).double()
    x = drawn(4, 256)
    y = model(x).detach()
    spec += ",glob=0" if ":" in spec else ":glob=0"
    adapted = adapt(model, [spec])
    assert 0 < float((adapted(x).detach() - y).norm() / y.norm()) < bound and not only(adapted).identity
    adapted.detach()
    assert torch.equal(adapt(model, [f"{spec},up_init=zero"], probe=x)(x), model(x).detach())


@pytest.mark.parametrize(("width", "spec", "words"), [
    (30, "compacter", "its channels, 30, cannot be shared out among n = 4 parts"),
    (160, "compacter", "the bottleneck's width, 5, cannot be shared out among n = 4 parts"),
    (64, "compacter:n=3", "64, cannot be shared out among n = 3"),
    (64, "compacter_pp:latent=6,reduction=null", "width, 6, cannot"),
])  # fmt: skip
def test_refusals(width, spec, words):
    spec += ",glob=0" if ":" in spec else ":glob=0"
    with pytest.raises(UnsupportedModule, match=words):
        adapt(nn.Sequential(nn.Linear(2, width)), [spec])


def test_a_reduction_gives_n_at_least():
    adapter = only(adapt(nn.Sequential(nn.Linear(2, 32)), ["compacter:glob=0"]))
    assert adapter.down.bias.shape == (4,)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_the_product_in_float32(dtype):
    """A rule of 1e-4 times thin factors would be gone in float16."""
    model = nn.Sequential(nn.Linear(8, 64)).to(dtype)
    adapter = only(adapt(model, ["compacter:glob=0"]))
    x = drawn(2, 64).to(dtype)
    weight = adapter.down.weight(adapter.shared.A)
    assert weight.dtype == torch.float32 and adapter.narrowed(x).dtype == dtype
