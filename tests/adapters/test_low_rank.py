"""LoRA and its relatives, IA3, BitFit and norm tuning against naive formulas, over drawn shapes."""

import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import agblocks
from agblocks.adapters import AdapterSpec, adapt
from agblocks.adapters.errors import UnsupportedModule
from agblocks.testing.adapter_trial import gradients, move, outputs

ALPHAGENOME = {
    "lora": 308_736,
    "lora:role=attn.q+attn.k+attn.v+attn.out+mlp.up+mlp.down": 1_313_280,
    "locon:glob=encoder.stage7.*,role=conv.main": 71_168,
    "ia3": 2_880,
    "ia3_ff": 27_648,
}


@pytest.mark.parametrize("text", ALPHAGENOME)
def test_counts_on_alphagenome(text):
    adapted = adapt(agblocks.build("alphagenome", device="meta"), [text])
    assert adapted.bank.count() == ALPHAGENOME[text]


@st.composite
def linears(draw):
    inside, outside = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    rank = draw(st.integers(1, min(inside, outside)))
    return inside, outside, rank, draw(st.booleans()), draw(st.sampled_from([1.0, 3.0, 16.0])), draw(st.booleans())


def array(tensor):
    return tensor.detach().double().numpy()


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


@given(linears())
def test_lora_on_linear_maps(drawn):
    inside, outside, rank, bias, alpha, rslora = drawn
    base = seeded(lambda: nn.Sequential(nn.Linear(inside, outside, bias=bias))).double()
    adapted = adapt(base, [AdapterSpec("lora", glob="0", rank=rank, alpha=alpha, rslora=rslora)])
    assert adapted.bank.count() == rank * (inside + outside)
    move(adapted)
    a, b = (array(t) for t in adapted.bank.adapters("default")[0].parameters())
    x = np.random.default_rng(0).normal(size=(2, 3, inside))
    scale = alpha / (math.sqrt(rank) if rslora else rank)
    wanted = np.einsum("oi,bti->bto", array(base[0].weight), x) + (array(base[0].bias) if bias else 0)
    for r in range(rank):
        wanted = wanted + scale * b[:, r] * (x @ a[r])[..., None]
    assert np.allclose(array(outputs(adapted, torch.from_numpy(x))), wanted, atol=1e-10)


@st.composite
def convolutions(draw):
    groups = draw(st.integers(1, 3))
    inside, outside = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel, stride, dilation = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    padding = draw(st.integers(0, 3))
    mode = draw(st.sampled_from(["zeros", "circular", "reflect", "replicate"]))
    rank = groups * draw(st.integers(1, 2))
    assume(rank <= min(outside, inside * kernel))
    return {
        "inside": inside, "outside": outside, "kernel": kernel, "stride": stride, "dilation": dilation,
        "groups": groups, "padding": padding, "mode": mode, "rank": rank,
    }  # fmt: skip


@given(convolutions(), st.booleans(), st.sampled_from(["lora", "locon", "dora"]))
def test_convolutions_are_those_of_the_changed_kernel(d, bias, kind):
    """The hook gives what torch's own convolution gives with W + s B A put in, whatever its form."""
    conv = seeded(lambda: nn.Conv1d(
        d["inside"], d["outside"], d["kernel"], stride=d["stride"], dilation=d["dilation"], groups=d["groups"],
        padding=d["padding"], padding_mode=d["mode"], bias=bias)).double()  # fmt: skip
    adapted = adapt(nn.Sequential(conv), [AdapterSpec(kind, glob="0", rank=d["rank"], alpha=3.0)])
    move(adapted)
    adapter = adapted.bank.adapters("default")[0]
    a, b, groups = array(adapter.A), array(adapter.B), d["groups"]
    change = np.zeros(conv.weight.shape)
    for o in range(d["outside"]):
        group = o // (d["outside"] // groups)
        for r in range(d["rank"] // groups):
            change[o] += 3.0 / d["rank"] * b[o, r] * a[group * (d["rank"] // groups) + r]
    assert adapted.bank.count() == a.size + b.size + (d["outside"] if kind == "dora" else 0)
    weight = array(conv.weight) + change
    if kind == "dora":
        lengths = np.sqrt((weight**2).sum((1, 2), keepdims=True))
        weight = weight / lengths * array(adapter.m)[:, None, None]
    x = torch.randn(2, d["inside"], 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = conv._conv_forward(x, torch.from_numpy(weight), conv.bias)
    assert torch.allclose(outputs(adapted, x), wanted, atol=1e-9)


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4), st.booleans())
def test_dora_is_a_direction_and_a_length(inside, outside, rank, bias):
    assume(rank <= min(inside, outside))
    base = seeded(lambda: nn.Sequential(nn.Linear(inside, outside, bias=bias))).double()
    adapted = adapt(base, [AdapterSpec("dora", glob="0", rank=rank)])
    adapter = adapted.bank.adapters("default")[0]
    start = np.linalg.norm(array(base[0].weight), axis=1)
    assert np.allclose(array(adapter.m), start) and adapted.bank.count() == rank * (inside + outside) + outside
    move(adapted)
    v = array(base[0].weight) + 16 / rank * array(adapter.B) @ array(adapter.A)
    weight = array(adapter.m)[:, None] * v / np.linalg.norm(v, axis=1, keepdims=True)
    x = np.random.default_rng(0).normal(size=(4, inside))
    wanted = x @ weight.T + (array(base[0].bias) if bias else 0)
    assert np.allclose(array(outputs(adapted, torch.from_numpy(x))), wanted, atol=1e-10)


def test_doras_gradient_does_not_go_through_the_length():
    base = seeded(lambda: nn.Sequential(nn.Linear(5, 4))).double()
    adapted = adapt(base, [AdapterSpec("dora", glob="0", rank=2, alpha=2.0)])
    move(adapted)
    adapter, x = adapted.bank.adapters("default")[0], torch.randn(3, 5, dtype=torch.float64)
    found = gradients(adapted, x)
    a, b, m = (p.detach().clone().requires_grad_() for p in (adapter.A, adapter.B, adapter.m))
    v = base[0].weight + b @ a
    y = x @ (m[:, None] * v / v.detach().norm(dim=1, keepdim=True)).T + base[0].bias
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    (y * weights).sum().backward()
    for name, wanted in (("A", a), ("B", b), ("m", m)):
        assert torch.allclose(found[f"bank.sites.0.default:dora.{name}"], wanted.grad, atol=1e-10)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(1, 3))
def test_embeddings(count, width, rank):
    assume(rank <= min(count, width))
    base = seeded(lambda: nn.Sequential(nn.Embedding(count, width, padding_idx=0))).double()
    adapted = adapt(base, [AdapterSpec("lora", glob="0", rank=rank)])
    move(adapted)
    a, b = (array(t) for t in adapted.bank.adapters("default")[0].parameters())
    rows = array(base[0].weight) + 16 / rank * (b @ a).T
    letters = torch.arange(count).view(1, -1)
    assert np.allclose(array(outputs(adapted, letters)), rows[None], atol=1e-12)


@given(st.integers(2, 7), st.integers(2, 7), st.integers(1, 3), st.sampled_from(["lora", "dora"]))
def test_pissa_starts_at_the_first_singular_vectors_and_changes_nothing(inside, outside, rank, kind):
    assume(rank <= min(inside, outside))
    base = seeded(lambda: nn.Sequential(nn.Linear(inside, outside))).double()
    before = base[0].weight.detach().clone()
    x = torch.randn(3, inside, dtype=torch.float64)
    adapted = adapt(base, [AdapterSpec(kind, glob="0", rank=rank, init="pissa")], probe=x)
    adapter = adapted.bank.adapters("default")[0]
    u, s, v = np.linalg.svd(array(before))
    principal = (u[:, :rank] * s[:rank]) @ v[:rank]
    assert np.allclose(16 / rank * array(adapter.B) @ array(adapter.A), principal, atol=1e-9)
    assert np.allclose(np.linalg.norm(array(adapter.A), axis=1), np.linalg.norm(array(adapter.B), axis=0))
    move(adapted)
    assert torch.equal(base[0].weight, before)
    if kind == "lora":
        change = 16 / rank * (array(adapter.B) @ array(adapter.A) - array(adapter.B0) @ array(adapter.A0))
        wanted = array(x) @ (array(before) + change).T + array(base[0].bias)
        assert np.allclose(array(outputs(adapted, x)), wanted, atol=1e-9)


@pytest.mark.parametrize(
    ("init", "deviation"), [("kaiming", 1 / math.sqrt(3)), ("he", math.sqrt(2)), ("gaussian", None)]
)
def test_initial_values_of_a(init, deviation):
    base = nn.Sequential(nn.Linear(256, 64))
    adapter = adapt(base, [AdapterSpec("lora", glob="0", rank=16, init=init)]).bank.adapters("default")[0]
    wanted = 1 / 16 if deviation is None else deviation / math.sqrt(256)
    assert array(adapter.A).std() == pytest.approx(wanted, rel=0.05) and not adapter.B.any()
    if deviation is not None:
        assert np.abs(adapter.A.detach()).max() <= math.sqrt(3) * wanted + 1e-7


def test_sites_of_one_adapter_start_differently():
    base = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    first, second = adapt(base, ["lora:type=Linear"]).bank.adapters("default")
    assert not torch.equal(first.A, second.A)


def test_dropout_follows_the_target_and_leaves_doras_own_part():
    base = seeded(lambda: nn.Sequential(nn.Linear(6, 6))).double()
    adapted = adapt(base, [AdapterSpec("dora", glob="0", rank=2, dropout=0.5)])
    x = torch.randn(40, 6, dtype=torch.float64)
    with torch.no_grad():
        adapted.bank.adapters("default")[0].m.mul_(2)  # B is 0: only the weight's own part is there
    adapted.train()
    assert torch.equal(adapted(x), adapted(x))
    move(adapted)
    assert not torch.equal(adapted(x), adapted(x))
    adapted.eval()
    assert torch.equal(adapted(x), adapted(x))


def test_a_centred_change_has_no_mean_over_inputs():
    base = nn.Sequential(nn.Conv1d(4, 6, 3))
    adapted = adapt(base, [AdapterSpec("locon", glob="0", rank=2, center=True)])
    move(adapted)
    change = adapted.bank.adapters("default")[0].change()
    assert change.abs().max() > 0 and change.mean((1, 2)).abs().max() < 1e-12


def test_lora_plus_is_a_rate_of_its_own():
    adapted = adapt(nn.Sequential(nn.Linear(4, 4)), ["lora:glob=0,rank=2,lr_ratio=16.0"])
    assert adapted.learning_rates() == {"bank.sites.0.default:lora.B": 16.0}
    assert set(adapted.learning_rates()) <= {name for name, _ in adapted.named_parameters()}


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_ia3_and_ia3_ff_on_grouped_convolutions(groups, inside, outside, kernel):
    conv = seeded(lambda: nn.Conv1d(groups * inside, groups * outside, kernel, groups=groups)).double()
    adapted = adapt(nn.Sequential(conv), ["ia3:glob=0", "ia3_ff:glob=0"])
    move(adapted)
    before, after = (a.l.detach() for a in sorted(adapted.bank.adapters("default"), key=lambda a: a.phase))
    x = torch.randn(2, groups * inside, 9, dtype=torch.float64)
    with adapted.bank.disabled():
        wanted = conv(x * before.view(1, -1, 1)) * after.view(1, -1, 1)
    assert torch.allclose(outputs(adapted, x), wanted, atol=1e-12)
    assert torch.allclose(outputs(adapted.merged(), x), wanted, atol=1e-12)


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.BatchNorm1d(6), nn.GroupNorm(2, 6)])
def test_norm_tuning_is_another_scale_and_offset(norm):
    norm = norm.double().eval()
    adapted = adapt(nn.Sequential(norm), ["norm:glob=0"])
    move(adapted)
    adapter = adapted.bank.adapters("default")[0]
    x = torch.randn(3, 6, 6, dtype=torch.float64)
    shape = (-1,) if isinstance(norm, nn.LayerNorm) else (1, -1, 1)
    with adapted.bank.disabled():
        wanted = norm(x) * adapter.g.view(shape) + adapter.d.view(shape)
    assert torch.allclose(outputs(adapted, x), wanted, atol=1e-12)
    merged = adapted.merged()
    assert torch.allclose(merged[0].weight, norm.weight * adapter.g) and torch.allclose(outputs(merged, x), wanted)


@pytest.mark.parametrize(
    ("module", "spec", "said"),
    [
        (nn.Linear(4, 3), "lora:glob=0,rank=4", "rank 4 is more than its 3"),
        (nn.Conv1d(4, 4, 3, groups=2), "locon:glob=0,rank=3", "rank 3 does not share out 2 groups"),
        (nn.Linear(4, 4), "locon:glob=0,rank=1", "it is no convolution"),
        (nn.ConvTranspose1d(4, 4, 3), "lora:glob=0,rank=1", "transposed"),
        (nn.ReLU(), "lora:glob=0,rank=1", "no affine map"),
        (nn.Embedding(4, 4), "dora:glob=0,rank=1", "lora fits it"),
        (nn.LayerNorm(4), "ia3_ff:glob=0", "neither a linear map nor a convolution"),
    ],
)
def test_refusals(module, spec, said):
    with pytest.raises(UnsupportedModule, match=said):
        adapt(nn.Sequential(module), [spec])
