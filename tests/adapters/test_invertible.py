"""Couplings: formulas by hand, there and back, the inverse at another place, counts, refusals."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import agblocks
from agblocks import adapt
from agblocks.adapters import AdapterSpec
from agblocks.adapters.errors import NoTargetMatch, UnsupportedModule

FEW = settings(max_examples=25, deadline=None)
KINDS = ("nice", "affine_coupling")


def only(adapted):
    (adapter,) = adapted.bank.adapters("default")
    return adapter


def moved(adapted, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.copy_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return adapted


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def network(p, name, x):
    hidden = np.maximum(p[f"coupling.{name}.first.weight"] @ x + p[f"coupling.{name}.first.bias"], 0)
    return p[f"coupling.{name}.second.weight"] @ hidden + p[f"coupling.{name}.second.bias"]


def coupled(p, x, clamp=None):
    """One position."""
    half = len(x) // 2
    x1, x2 = x[:half], x[half:]

    def couple(part, said):
        if clamp is None:
            return part + said
        s, t = said[: len(part)], said[len(part) :]
        return part * np.exp(clamp * 0.636 * np.arctan(s / clamp)) + t

    y1 = couple(x1, network(p, "F", x2))
    return np.concatenate([y1, couple(x2, network(p, "G", y1))])


@FEW
@given(st.sampled_from(KINDS), st.integers(2, 9), st.integers(1, 3), st.booleans(), st.sampled_from([0.5, 5.0]))
def test_formula_and_count(kind, channels, reduction, conv, clamp):
    layer = nn.Conv1d(4, channels, 1) if conv else nn.Linear(4, channels)
    model = nn.Sequential(layer).double()
    x = drawn(2, 4, 5) if conv else drawn(2, 5, 4)
    y = model(x).detach()
    more = {"clamp": clamp} if kind == "affine_coupling" else {}
    adapted = moved(adapt(model, [AdapterSpec(kind, glob="0", reduction=reduction, **more)]))
    p = {name: tensor.numpy() for name, tensor in only(adapted).state_dict().items()}
    rows = (y.transpose(1, 2) if conv else y).numpy()
    wanted = np.stack([[coupled(p, v, more.get("clamp")) for v in row] for row in rows])
    out = adapted(x).detach()
    assert np.allclose((out.transpose(1, 2) if conv else out).numpy(), wanted, rtol=1e-10, atol=1e-10)
    half, times = channels // 2, 1 + len(more)
    h = max(1, half // reduction)
    other = channels - half
    formula = (other * h + h + times * half * (h + 1)) + (half * h + h + times * other * (h + 1))
    assert adapted.bank.count() == formula
    if channels % 2 == 0:
        assert formula == (
            2 * channels * h + 2 * h + channels if times == 1 else 3 * channels * h + 2 * h + 2 * channels
        )


class Both(nn.Module):
    """A stem, a trunk and a head that goes back to letters; channels first."""

    def __init__(self, channels=8):
        super().__init__()
        self.stem = nn.Conv1d(4, channels, 3, padding=1)
        self.trunk = nn.Identity()
        self.head = nn.Conv1d(channels, 4, 1)

    def forward(self, dna):
        return self.head(self.trunk(self.stem(dna)))


@FEW
@given(st.sampled_from(KINDS), st.integers(2, 11), st.floats(0.01, 3.0))
def test_round_trip(kind, channels, size):
    """Through the stem's coupling and back before the head it is as if there were none."""
    model, x = Both(channels).double(), drawn(2, 4, 7)
    y = model(x).detach()
    adapted = moved(adapt(model, [f"{kind}:glob=stem+head,inverse=head"], probe=x), size=size)
    assert torch.allclose(adapted(x), y, rtol=1e-6, atol=1e-6)
    seen = []
    model.trunk.register_forward_hook(lambda module, args, out: seen.append(out))
    adapted(x)
    assert not torch.allclose(seen[0], model.stem._conv_forward(x, model.stem.weight, model.stem.bias))


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_in_float32(kind):
    adapter = only(moved(adapt(nn.Sequential(nn.Linear(4, 64)), [f"{kind}:glob=0"]), size=0.1))
    x = drawn(100, 64).float()
    back = adapter.coupling.inverse(adapter.coupling(x))
    assert float((back - x).abs().max().detach()) < 2e-5 and not torch.allclose(adapter.coupling(x), x, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_inverse_shares_the_coupling(kind):
    model, x = Both().double(), drawn(2, 4, 7)
    adapted = moved(adapt(model, [f"{kind}:glob=stem+head,inverse=**.head"]))
    names = [name for name, _ in adapted.bank.named_parameters()]
    assert all(name.startswith("shared.default:0.") for name in names) and len(names) == 8
    y = adapted(x)
    y.square().sum().backward()
    copied = copy.deepcopy(adapted)
    file = io.BytesIO()
    torch.save(adapted, file)
    file.seek(0)
    with torch.no_grad():
        next(adapted.bank.parameters()).zero_()
    for other in (copied, torch.load(file, weights_only=False)):
        assert torch.equal(other(x), y)
        couplings = {id(a.shared) for a in other.bank.adapters("default")}
        assert couplings == {id(other.bank.shared["default:0"])}
    stem, head = adapted.bank.adapters("default")
    assert (stem.acts_before(), stem.acts_after(), head.acts_before(), head.acts_after()) == (False, True, True, False)


def test_in_a_recipe():
    """By itself it aims at stems; between two nodes it comes and goes, tracks channels first."""
    model = agblocks.build("mpra_small").double().eval()
    stems = [path for path, module in model.named_modules() if module.__dict__.get("role") == "stem"]
    adapted = adapt(model, ["nice"])
    assert [row["site"] for row in adapted.bank.report()] == stems
    adapted.detach()
    dna = nn.functional.one_hot(torch.arange(230) % 4, 4).T[None].double()
    bare = model(dna=dna)["activity"].detach()
    adapted = moved(
        adapt(model, ["affine_coupling:glob=encoder.stage1+encoder.stage2,inverse=encoder.stage2"]), size=0.1
    )
    adapted.eval()
    assert torch.allclose(adapted(dna=dna)["activity"], bare, rtol=1e-9, atol=1e-9)
    changed = adapted(dna=dna, outputs=["encoder.stage1"])["encoder.stage1"]
    assert not torch.allclose(changed, model.get_submodule("encoder.stage1").forward(dna))


@pytest.mark.parametrize("kind", KINDS)
def test_start(kind):
    model, x = nn.Sequential(nn.Linear(256, 256)).double(), drawn(20, 256)
    y = model(x).detach()
    adapted = adapt(model, [f"{kind}:glob=0"])
    assert 0.005 < float((adapted(x).detach() - y).norm() / y.norm()) < 0.04 and not only(adapted).identity
    weights = torch.cat([p.flatten() for n, p in only(adapted).named_parameters() if n.endswith("weight")]).detach()
    assert weights.std().item() == pytest.approx(0.02, rel=0.02) and abs(weights.mean().item()) < 4e-4
    assert not any(p.any() for n, p in only(adapted).named_parameters() if n.endswith("bias"))
    adapted.detach()
    assert torch.equal(adapt(model, [f"{kind}:glob=0,up_init=zero"], probe=x)(x), model(x).detach())


@pytest.mark.parametrize("clamp", [0.5, 5.0])
def test_the_clamp(clamp):
    """Factors stay between exp(-clamp) and exp(clamp), near 1 they are e^s."""
    adapter = only(adapt(nn.Sequential(nn.Linear(2, 4)).double(), [f"affine_coupling:glob=0,clamp={clamp}"]))
    factor = adapter.coupling._factor
    ends = factor(torch.tensor([-1e9, 1e9], dtype=torch.float64)).log().tolist()
    assert ends == pytest.approx([-clamp, clamp], rel=2e-3) and abs(ends[1]) < clamp
    small = torch.tensor(1e-4, dtype=torch.float64)
    assert factor(small).log().item() == pytest.approx(0.636e-4, rel=1e-3)
    assert math.isfinite(float(factor(torch.tensor(1e30))))


@pytest.mark.parametrize(("spec", "error", "words"), [
    ("nice:glob=stem+head,inverse=heads", NoTargetMatch, "names none of the modules.*'stem', 'head'"),
    ("nice:glob=stem,inverse=stem", UnsupportedModule, "the inverse names all"),
    ("nice:glob=stem+head,inverse=stem", UnsupportedModule, "should read the 5 channels of 'head', and it reads 4"),
    ("nice:glob=stem+head+trunk,inverse=head", UnsupportedModule, "2 do: 'stem', 'trunk'"),
    ("nice:glob=trunk", UnsupportedModule, "probe"),
])  # fmt: skip
def test_refusals(spec, error, words):
    model = Both()
    model.head = nn.Conv1d(8, 5, 1) if spec.endswith("inverse=stem") and "head" in spec else model.head
    with pytest.raises(error, match=words):
        adapt(model, [spec])
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_one_channel_has_no_halves():
    with pytest.raises(UnsupportedModule, match="1 channels have no two halves"):
        adapt(nn.Sequential(nn.Linear(2, 1)), ["nice:glob=0"])
