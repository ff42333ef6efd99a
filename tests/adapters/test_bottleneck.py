"""Bottlenecks against loops in numpy: formulas, sites, counts, initial values, refusals."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import agblocks
from agblocks import adapt
from agblocks.adapters import AdapterError, AdapterSpec
from agblocks.adapters.errors import UnsupportedModule
from agblocks.errors import AgblocksError
from agblocks.layers import HookPoint, StandardizedConv1d, role

FEW = settings(max_examples=25, deadline=None)


def only(adapted):
    (adapter,) = adapted.bank.adapters("default")
    return adapter


def moved(adapted, seed=0, size=0.5):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter))
    return adapted


def drawn(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# The oracle: one position after the other, each channel by itself


def erf_gelu(v):
    return v * 0.5 * (1 + math.erf(v / math.sqrt(2)))


ACTIVATIONS = {"relu": lambda v: max(v, 0.0), "gelu": erf_gelu, "silu": lambda v: v / (1 + math.exp(-v)),
               "tanh": math.tanh, "none": lambda v: v}  # fmt: skip


def normed(vector, scale, offset):
    mean = sum(vector) / len(vector)
    variance = sum((v - mean) ** 2 for v in vector) / len(vector)
    return [(v - mean) / math.sqrt(variance + 1e-5) * s + o for v, s, o in zip(vector, scale, offset, strict=True)]


def mapped(matrix, bias, vector):
    return [sum(w * v for w, v in zip(row, vector, strict=True)) + b for row, b in zip(matrix, bias, strict=True)]


def naive(state, h, activation, scaling):
    """What is added to rows (batch, positions, channels)."""
    p = {name: tensor.tolist() for name, tensor in state.items()}
    rows = []
    for row in h.tolist():
        gate = 1.0
        if "gate.weight" in p:
            says = [mapped(p["gate.weight"], p["gate.bias"], x)[0] for x in row]
            gate = sum(1 / (1 + math.exp(-s)) for s in says) / len(says)
        made = []
        for x in row:
            if "norm_before.weight" in p:
                x = normed(x, p["norm_before.weight"], p["norm_before.bias"])
            z = [ACTIVATIONS[activation](v) for v in mapped(p["down.weight"], p["down.bias"], x)]
            y = mapped(p["up.weight"], p["up.bias"], z)
            if "norm_after.weight" in p:
                y = normed(y, p["norm_after.weight"], p["norm_after.bias"])
            scale = p.get("scale", [scaling]) * (len(y) if len(p.get("scale", [0])) == 1 else 1)
            made.append([gate * s * v for s, v in zip(scale, y, strict=True)])
        rows.append(made)
    return torch.tensor(rows, dtype=torch.float64)


OPTIONS = {
    "activation": st.sampled_from(sorted(ACTIVATIONS)),
    "scaling": st.sampled_from([1.0, 4.0, 0.25, "learned", "channel"]),
    **{name: st.booleans() for name in ("ln_before", "ln_after", "gating")},
}


@FEW
@given(st.integers(1, 7), st.integers(1, 4), st.fixed_dictionaries(OPTIONS), st.booleans())
def test_sequential_formula(width, latent, options, conv):
    layer = nn.Conv1d(3, width, 3, padding=1) if conv else nn.Linear(3, width)
    model = nn.Sequential(layer).double()
    x = drawn(2, 3, 4) if conv else drawn(2, 4, 3)
    with torch.no_grad():
        y = model(x)
    adapted = moved(adapt(model, [AdapterSpec("houlsby", glob="0", latent=latent, **options)])).eval()
    adapter = only(adapted)
    rows = y.transpose(1, 2) if conv else y
    change = naive(adapter.state_dict(), rows, options["activation"], options["scaling"])
    assert torch.allclose(adapted(x), y + (change.transpose(1, 2) if conv else change), rtol=1e-10, atol=1e-10)


@FEW
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.fixed_dictionaries(OPTIONS))
def test_parallel_formula(reads, gives, latent, options):
    model = nn.Sequential(nn.Linear(reads, gives)).double()
    x = drawn(2, 4, reads)
    with torch.no_grad():
        y = model(x)
    spec = AdapterSpec("parallel", glob="0", latent=latent, reduction=None, **options)
    adapted = moved(adapt(model, [spec])).eval()
    change = naive(only(adapted).state_dict(), x, options["activation"], options["scaling"])
    assert torch.allclose(adapted(x), y + change, rtol=1e-10, atol=1e-10)
    assert torch.equal(adapted(x), adapted(input=x)), "called by name"


@FEW
@given(st.integers(1, 7), st.integers(1, 5), st.integers(1, 6))
def test_squeeze_excite_formula(channels, rank, length):
    model = nn.Sequential(nn.Conv1d(3, channels, 1)).double()
    x = drawn(2, 3, length)
    with torch.no_grad():
        y = model(x)
    adapted = moved(adapt(model, [AdapterSpec("houlsby_se", glob="0", rank=rank)]))
    adapter = only(adapted)
    first, second = adapter.down.weight.tolist(), adapter.up.weight.tolist()
    assert sum(p.numel() for p in adapter.parameters()) == 2 * channels * rank
    wanted = y.clone()
    for b in range(2):
        means = [sum(y[b, c].tolist()) / length for c in range(channels)]
        hidden = [max(v, 0.0) for v in mapped(first, [0] * rank, means)]
        for c, gain in enumerate(mapped(second, [0] * channels, hidden)):
            wanted[b, c] *= 1 + math.tanh(gain)
    assert torch.allclose(adapted(x), wanted, rtol=1e-10, atol=1e-10)


def test_squeeze_excite_sees_the_whole_length():
    model = nn.Sequential(nn.Conv1d(3, 8, 1)).double()
    adapted, x = moved(adapt(model, ["houlsby_se:glob=0"])), drawn(1, 3, 10)
    assert not torch.allclose(adapted(x)[..., :5], adapted(x[..., :5]))
    plain = moved(adapt(nn.Sequential(nn.Conv1d(3, 8, 1)).double(), ["houlsby:glob=0"]))
    assert torch.allclose(plain(x)[..., :5], plain(x[..., :5]))


@pytest.mark.parametrize("kind", ["houlsby", "houlsby_se"])
def test_images_and_vectors(kind):
    """Two lengths, or none: as a track of all positions, or of one."""
    for layer, x, flat in [
        (nn.Conv2d(3, 8, 1), drawn(2, 3, 4, 5), lambda t: t.flatten(2)),
        (nn.Linear(3, 8), drawn(2, 3), lambda t: t[:, :, None]),
    ]:
        model = nn.Sequential(layer.double())
        y = flat(model(x).detach())
        one = moved(adapt(model, [f"{kind}:glob=0"]))
        same = nn.Sequential(HookPoint())
        role(same[0], "block.out", width=8, axis=1)
        same.like = nn.Parameter(drawn(1))  # says the type
        other = moved(adapt(same, [f"{kind}:glob=0"]))
        assert torch.allclose(flat(one(x)), other(y), rtol=1e-10)


# Sites, counts


PUBLISHED = {
    "houlsby": 470_160, "adapter_plus": 470_160, "compacter": 85_600,
    "loreft:rank=4,role=block.out,glob=tower.**": 110_628, "nice:glob=encoder.pool": 1_181_952,
    "pfeiffer": 9 * (2 * 1536 * 96 + 96 + 1536), "parallel": 9 * (2 * 1536 * 768 + 768 + 1536),
    "compacter_pp": 9 * (2 * (1536 + 48) + 48 + 1536) + 64,
}  # fmt: skip


def test_counts_on_alphagenome():
    model = agblocks.build("alphagenome", device="meta")
    for spec, count in PUBLISHED.items():
        adapted = adapt(model, [spec])
        assert adapted.bank.count() == count, spec
        adapted.detach()
    sites = {row["site"] for row in adapt(model, ["houlsby"]).bank.report()}
    assert sites == {f"tower.layer{n}.{part}" for n in range(1, 10) for part in ("attention", "mlp")}


@FEW
@given(st.integers(1, 200), st.integers(1, 100), st.sampled_from([1.0, "learned", "channel"]), st.booleans())
def test_count_formula(width, reduction, scaling, more):
    model = nn.Sequential(nn.Linear(2, width))
    spec = AdapterSpec("pfeiffer", glob="0", reduction=reduction, scaling=scaling, ln_before=more, gating=more)
    m = max(1, width // reduction)
    extra = {1.0: 0, "learned": 1, "channel": width}[scaling] + more * (2 * width + width + 1)
    assert adapt(model, [spec]).bank.count() == 2 * width * m + m + width + extra


def test_tuple_outputs():
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 5, batch_first=True)

        def forward(self, x):
            y, (h, c) = self.lstm(x)
            return y, h, c

    model, x = First().double(), drawn(2, 4, 3)
    before = [t.detach() for t in model(x)]
    with pytest.raises(UnsupportedModule, match="probe"):
        adapt(model, ["houlsby:glob=lstm"])
    adapted = moved(adapt(model, ["houlsby:glob=lstm"], probe=x))
    after = adapted(x)
    assert torch.allclose(after[0], before[0] + naive(only(adapted).state_dict(), before[0], "relu", 1.0))
    assert all(torch.allclose(a, b, rtol=1e-12) for a, b in zip(after[1:], before[1:], strict=True))


# Initial values


def values(spec, width=1536):
    return {k: v.numpy() for k, v in only(adapt(nn.Sequential(nn.Linear(2, width)), [spec])).state_dict().items()}


def truncated_std(sigma):
    """Of a normal distribution that is cut off at 2 of its standard deviations."""
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    return sigma * math.sqrt(1 - 4 * density / math.erf(math.sqrt(2)))


@pytest.mark.parametrize(("spec", "sigma"), [("houlsby", 1e-3), ("adapter_plus", 1e-2)])
def test_truncated_start(spec, sigma):
    p = values(f"{spec}:glob=0")
    for name in ("down.weight", "up.weight"):
        assert np.abs(p[name]).max() <= 2 * sigma and np.abs(p[name]).max() > 1.9 * sigma
        assert p[name].std() == pytest.approx(truncated_std(sigma), rel=0.03)
        assert abs(p[name].mean()) < 4 * sigma / math.sqrt(p[name].size)
    assert not p["down.bias"].any() and not p["up.bias"].any()
    assert np.array_equal(p["scale"], np.ones(1536)) if spec == "adapter_plus" else "scale" not in p


def test_other_starts():
    p = values("pfeiffer:glob=0,gating=true")
    assert p["up.weight"].std() == pytest.approx(0.02, rel=0.02) and np.abs(p["up.weight"]).max() > 0.06
    assert p["gate.weight"].std() == pytest.approx(0.02, rel=0.1) and not p["gate.bias"].any()
    p = only(adapt(nn.Sequential(nn.Linear(100, 60)), ["parallel:glob=0,scaling=learned"])).state_dict()
    assert p["down.weight"].shape == (50, 100) and not p["up.weight"].any() and p["scale"].tolist() == [1.0]
    assert 0.0995 < p["down.weight"].abs().max() <= 0.1 and not p["down.bias"].any()
    assert p["down.weight"].std().item() == pytest.approx(0.1 / math.sqrt(3), rel=0.03)
    p = values("houlsby_se:glob=0")
    assert np.abs(p["up.weight"]).max() <= 2e-3 and p["up.weight"].std() == pytest.approx(truncated_std(1e-3), rel=0.03)


@pytest.mark.parametrize(("kind", "bound"), [("houlsby", 1e-4), ("pfeiffer", 0.03), ("adapter_plus", 2e-3),
                                             ("houlsby_se", 1e-5), ("parallel", 0.0)])  # fmt: skip
def test_change_at_the_start(kind, bound):
    """As the docstrings say, at 256 channels."""
    model, x = nn.Sequential(nn.Linear(256, 256)), drawn(2, 20, 256, dtype=torch.float32)
    y = model(x).detach()
    adapted = adapt(model, [f"{kind}:glob=0"]).eval()
    change = float((adapted(x).detach() - y).norm() / y.norm())
    assert (0 < change < bound) if bound else change == 0
    assert only(adapted).identity == (bound == 0)
    adapted.detach()
    zero = adapt(model, [f"{kind}:glob=0,up_init=zero"], probe=x).eval()
    assert torch.equal(zero(x), y) and only(zero).identity


def test_zero_start_with_everything():
    model, x = nn.Sequential(nn.Linear(6, 8)), drawn(2, 5, 6, dtype=torch.float32)
    y = model(x)
    spec = "houlsby:glob=0,up_init=zero,ln_before=true,ln_after=true,scaling=channel,gating=true"
    assert torch.equal(adapt(model, [spec], probe=x)(x), y)


# In training


def test_drop_path_is_by_row_and_follows_the_target():
    model, x = nn.Sequential(nn.Linear(6, 8)).double(), drawn(4000, 2, 6)
    y = model(x).detach()
    adapted = moved(adapt(model, ["adapter_plus:glob=0,reduction=2,drop_path=0.25"]))
    change = adapted.eval()(x) - y
    adapted.train()
    torch.manual_seed(0)
    ratio = ((adapted(x) - y) / change).flatten(1)
    gone = ratio[:, 0].abs() < 1e-9
    assert torch.allclose(ratio[gone], torch.zeros_like(ratio[gone]), atol=1e-6)
    assert torch.allclose(ratio[~gone], torch.full_like(ratio[~gone], 4 / 3), rtol=1e-6)
    assert gone.double().mean().item() == pytest.approx(0.25, abs=0.03)
    model[0].eval()  # the target alone
    assert torch.allclose(adapted(x) - y, change)


def test_dropout_is_on_the_narrow_channels():
    model, x = nn.Sequential(nn.Linear(6, 8)).double(), drawn(3, 500, 6)
    y = model(x).detach()
    adapted = moved(adapt(model, ["houlsby:glob=0,latent=1,dropout=0.5,activation=none"]))
    adapter = only(adapted)
    change = adapted.eval()(x) - y - adapter.up.bias
    dropped = adapted.train()(x) - y - adapter.up.bias
    ratio = dropped / change  # of one narrow channel: all of a position or nothing
    assert torch.allclose(ratio, ratio[..., :1].expand_as(ratio), atol=1e-6)
    assert torch.allclose((ratio - 1).abs(), torch.ones_like(ratio), atol=1e-6)
    assert ratio.mean().item() == pytest.approx(1, abs=0.12)


# Refusals


@pytest.mark.parametrize(("spec", "words"), [
    ("houlsby:latent=null", "neither"), ("houlsby:reduction=4", "both latent 8 and reduction 4"),
    ("pfeiffer:latent=3", "set the other to null"), ("houlsby:activation=swish", "relu"),
    ("parallel:scaling=loud", "channel"), ("houlsby:scaling=0", "greater than 0"), ("adapter_plus:drop_path=1", "drop_path"),
])  # fmt: skip
def test_refused_arguments(spec, words):
    with pytest.raises(AgblocksError, match=words):
        AdapterSpec.parse(spec)


@pytest.mark.parametrize("layer", [
    nn.Conv1d(4, 4, 3, stride=2, padding=1), nn.Conv1d(4, 4, 3), nn.Conv1d(4, 4, 3, padding="valid"),
    nn.Conv1d(4, 4, 4, padding=2), nn.ConvTranspose1d(4, 4, 2, stride=2), nn.Embedding(4, 4),
], ids=repr)  # fmt: skip
def test_parallel_refuses_other_lengths(layer):
    with pytest.raises(UnsupportedModule, match="parallel"):
        adapt(nn.Sequential(layer), ["parallel:glob=0"])


@pytest.mark.parametrize("layer", [
    nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(4, 6, 4, padding="same"), nn.Conv1d(4, 6, 5, padding=4, dilation=2),
    nn.Conv1d(4, 6, 1), StandardizedConv1d(4, 6, 5), StandardizedConv1d(4, 6, 4, dilation=3),
], ids=repr)  # fmt: skip
def test_parallel_beside_convolutions(layer):
    model, x = nn.Sequential(layer).double(), drawn(2, 4, 9)
    y = model(x).detach()
    adapted = moved(adapt(model, ["parallel:glob=0"]))
    wanted = naive(only(adapted).state_dict(), x.transpose(1, 2), "relu", 4.0).transpose(1, 2)
    assert torch.allclose(adapted(x), y + wanted, rtol=1e-10, atol=1e-10)


def test_parallel_beside_what_says_nothing_of_its_length():
    class Half(nn.Module):
        def forward(self, x):
            return x[:, ::2]

    model = nn.Sequential(role(Half(), "block.mlp", width=4))
    adapted = adapt(model, ["parallel"])
    with pytest.raises(UnsupportedModule, match=r"reads \[1, 2, 4\] and gives \[1, 1, 4\]"):
        adapted(torch.zeros(1, 2, 4))


def test_unknown_width():
    with pytest.raises(AdapterError, match="probe"):
        adapt(nn.Sequential(nn.ReLU()), ["houlsby:glob=0"])
