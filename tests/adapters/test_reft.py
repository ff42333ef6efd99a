"""ReFT against formulas written out: interventions, orthonormal rows, positions, merging, counts, refusals."""

import copy
import io
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils.parametrizations import orthogonal

from agblocks import adapt
from agblocks.adapters import AdapterSpec
from agblocks.adapters.errors import NotMergeable, UnsupportedModule
from agblocks.adapters.parts.positions import ranges
from agblocks.errors import AgblocksError
from agblocks.layers import HookPoint, StandardizedConv1d, role

FEW = settings(max_examples=30, deadline=None)
KINDS = ("loreft", "noreft", "direft")


def only(adapted):
    (adapter,) = adapted.bank.adapters("default")
    return adapter


def moved(adapted, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter))
    return adapted


def drawn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def householder_rows(free):
    """Rows of H_1 ... H_r, where H_j = I - 2 v v^T / |v|^2 and v is row j right of the diagonal, 1 on it.

    Of a square matrix columns, below the diagonal.
    """
    rank, width = free.shape
    if rank == width:
        free = free.T
    whole = np.eye(width)
    for j in range(rank):
        v = np.zeros(width)
        v[j] = 1
        v[j + 1 :] = free[j, j + 1 :]
        whole = whole @ (np.eye(width) - 2 * np.outer(v, v) / (v @ v))
    return whole if rank == width else whole[:, :rank].T


def naive(kind, state, h):
    """One position after the other."""
    p = {name: tensor.double().numpy() for name, tensor in state.items()}
    rows = householder_rows(p["R"]) if kind == "loreft" else p["R"]
    made = []
    for v in h.reshape(-1, h.shape[-1]).numpy():
        change = rows.T @ (p["W"] @ v + p["b"] - (0 if kind == "direft" else rows @ v))
        made.append(v + change)
    return torch.tensor(np.array(made)).view(h.shape)


@FEW
@given(st.sampled_from(KINDS), st.integers(1, 9), st.data(), st.booleans())
def test_formula_and_count(kind, width, data, conv):
    rank = data.draw(st.integers(1, width))
    layer = nn.Conv1d(4, width, 1) if conv else nn.Linear(4, width)
    model = nn.Sequential(layer).double()
    x = drawn(2, 4, 5) if conv else drawn(2, 5, 4)
    y = model(x).detach()
    adapted = moved(adapt(model, [AdapterSpec(kind, glob="0", rank=rank)])).eval()
    adapter = only(adapted)
    assert adapted.bank.count() == 2 * rank * width + rank
    assert {k: tuple(v.shape) for k, v in adapter.state_dict().items()} == {
        "R": (rank, width), "W": (rank, width), "b": (rank,)}  # fmt: skip
    rows = y.transpose(1, 2) if conv else y
    wanted = naive(kind, adapter.state_dict(), rows)
    assert torch.allclose(adapted(x), wanted.transpose(1, 2) if conv else wanted, rtol=1e-9, atol=1e-9)


# Orthonormal rows


@FEW
@given(st.integers(1, 12), st.data())
def test_rows_are_torchs_parametrization(width, data):
    """The same as registered on a module, whose stored tensor is ours with a diagonal of ones."""
    rank = data.draw(st.integers(1, width))
    adapter = only(moved(adapt(nn.Sequential(nn.Linear(2, width)).double(), [f"loreft:glob=0,rank={rank}"])))
    linear = nn.Linear(width, rank, bias=False).double()
    orthogonal(linear, "weight", orthogonal_map="householder", use_trivialization=False)
    free = adapter.R.detach().clone()
    free.fill_diagonal_(1)
    linear.load_state_dict({"parametrizations.weight.original": free})
    rows = adapter.rows()
    assert torch.equal(rows, linear.weight)
    assert torch.allclose(rows @ rows.T, torch.eye(rank, dtype=torch.float64), atol=1e-12)


def test_rows_stay_orthonormal_in_training_with_decay():
    """torch reads signs off the diagonal as whole numbers: a single step of weight decay would make them 0."""
    model, x = nn.Sequential(nn.Linear(6, 16)), drawn(32, 6).float()
    adapted = adapt(model, ["loreft:glob=0,rank=3"])
    adapter, before = only(adapted), only(adapted).rows().detach()
    optimizer = torch.optim.AdamW(adapted.bank.parameters(), lr=0.05, weight_decay=0.5)
    target = drawn(32, 16).float()
    losses = []
    for _ in range(30):
        loss = (adapted(x) - target).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    rows = adapter.rows().detach()
    assert torch.allclose(rows @ rows.T, torch.eye(3), atol=1e-5)
    assert losses[-1] < 0.95 * losses[0] and (rows - before).abs().max() > 0.1
    plain = orthogonal(nn.Linear(16, 3), orthogonal_map="householder", use_trivialization=False)
    torch.optim.AdamW(plain.parameters(), lr=0.05, weight_decay=0.5)
    with torch.no_grad():
        plain.parametrizations.weight.original.mul_(0.975)
    assert not plain.weight.any(), "so this is no idle worry"
    assert adapted.no_weight_decay() >= {f"bank.{n}" for n, _ in adapted.bank.named_parameters()}
    assert not adapt(nn.Sequential(nn.Linear(2, 3)), ["direft:glob=0"]).no_weight_decay()


def test_every_direction_is_as_likely():
    """Mean 0 and variance 1 / d for each entry, over many sites."""
    model = nn.Sequential(*(nn.Linear(2, 12) for _ in range(400)))
    adapted = adapt(model, ["loreft:type=Linear,rank=2"])
    rows = torch.stack([a.rows() for a in adapted.bank.adapters("default")]).detach()
    assert rows.square().mean(0).sub(1 / 12).abs().max() < 5 * math.sqrt(2) / 12 / math.sqrt(400)
    products = torch.einsum("nri,nrj->ij", rows, rows) / 800
    assert (products - torch.eye(12) / 12).abs().max() < 0.02


def test_it_survives_copies_pickles_and_safetensors():
    model, x = nn.Sequential(nn.Linear(4, 8)), drawn(3, 4).float()
    adapted = moved(adapt(model, ["loreft:glob=0,rank=2"])).eval()
    y = adapted(x)
    for twin in (copy.deepcopy(adapted), pickle.loads(pickle.dumps(adapted))):
        assert torch.equal(twin(x), y)
    file = io.BytesIO()
    torch.save(adapted, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), y)
    stored = load(save(dict(only(adapted).tensors())))
    assert sum(t.numel() for t in stored.values()) == 2 * 2 * 8 + 2
    fresh = adapt(copy.deepcopy(adapted).detach(), ["loreft:glob=0,rank=2"], seed=5).eval()
    assert not torch.equal(fresh(x), y)
    only(fresh).load_state_dict(stored)
    assert torch.equal(fresh(x), y)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_are_worked_out_in_float32(dtype):
    """Also where everything, the adapter too, was cast."""
    adapted = moved(adapt(nn.Sequential(nn.Linear(4, 8)), ["loreft:glob=0,rank=2"])).to(dtype)
    rows = only(adapted).rows()
    assert rows.dtype == torch.float32 and torch.allclose(rows @ rows.T, torch.eye(2), atol=1e-6)
    assert adapted(drawn(3, 4).to(dtype)).dtype == dtype


# Initial values


@pytest.mark.parametrize("kind", KINDS)
def test_initial_values(kind):
    model = nn.Sequential(nn.Linear(2, 400))
    adapter = only(adapt(model, [f"{kind}:glob=0,rank=64"]))
    assert not adapter.identity
    for values in [adapter.W] if kind == "loreft" else [adapter.W, adapter.R]:
        assert 0.0499 < values.abs().max() <= 0.05
        assert values.std().item() == pytest.approx(0.05 / math.sqrt(3), rel=0.02)
    assert 0.03 < adapter.b.abs().max() <= 0.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_identity_at_the_start(kind, dtype):
    model, x = nn.Sequential(nn.Linear(6, 32)).to(dtype), drawn(2, 5, 6).to(dtype)
    y = model(x).detach()
    plain = adapt(model, [f"{kind}:glob=0,rank=4"]).eval()
    assert not torch.equal(plain(x), y)
    plain.detach()
    adapted = adapt(model, [f"{kind}:glob=0,rank=4,identity=true"], probe=x).train()
    assert torch.equal(adapted(x), y) and only(adapted).identity
    assert only(adapted).rows().abs().max() > 0 and not only(adapted).b.any()
    adapted(x).square().sum().backward()
    assert only(adapted).W.grad.any() and only(adapted).b.grad.any(), "it can leave the start"


def test_dropout_is_on_the_change_alone():
    model, x = nn.Sequential(nn.Linear(6, 40)).double(), drawn(50, 4, 6)
    y = model(x).detach()
    adapted = moved(adapt(model, ["loreft:glob=0,rank=4,dropout=0.2"]))
    ratio = (adapted.train()(x) - y) / (adapted.eval()(x) - y)
    gone = ratio.abs() < 1e-6
    assert torch.allclose(ratio[~gone], torch.full_like(ratio[~gone], 1.25), rtol=1e-5)
    assert gone.double().mean().item() == pytest.approx(0.2, abs=0.02)


# Positions


@st.composite
def position_sets(draw):
    """Positions as text, and the ones that are meant of `length`."""
    length = draw(st.integers(1, 12))
    terms, meant = [], set()
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["first", "last", "center", "slice"]))
        if kind == "slice":
            start, stop = sorted(draw(st.lists(st.integers(0, length), min_size=2, max_size=2, unique=True)))
            ends = [draw(st.sampled_from([start, start - length] + [""] * (start == 0))),
                    draw(st.sampled_from([stop, stop - length] if stop < length else [stop, ""]))]  # fmt: skip
            if ends == ["", ""]:
                ends[1] = stop
            terms.append(f"{ends[0]}:{ends[1]}")
            meant |= set(range(length)[slice(*(end if end != "" else None for end in ends))])
            assert set(range(length)[start:stop]) <= meant
        else:
            n = draw(st.integers(1, length))
            terms.append(f"{kind}:{n}")
            start = {"first": 0, "last": length - n, "center": (length - n) // 2}[kind]
            meant |= set(range(start, start + n))
    return "+".join(terms), length, meant


@settings(max_examples=100, deadline=None)
@given(position_sets())
def test_ranges(case):
    text, length, meant = case
    found = ranges(text, length)
    assert [p for start, stop in found for p in range(start, stop)] == sorted(meant)
    assert all(a[1] < b[0] for a, b in zip(found, found[1:], strict=False)), "apart"
    spec = AdapterSpec("loreft", glob="0", positions=text)
    assert AdapterSpec.parse(str(spec)) == spec == AdapterSpec("loreft", glob="0", positions=text.split("+"))


@FEW
@given(position_sets(), st.sampled_from(KINDS), st.booleans())
def test_positions(case, kind, conv):
    text, length, meant = case
    model = nn.Sequential(nn.Conv1d(4, 6, 1) if conv else nn.Linear(4, 6)).double()
    x = drawn(2, 4, length) if conv else drawn(2, length, 4)
    y = model(x).detach()
    everywhere = moved(adapt(model, [AdapterSpec(kind, glob="0", rank=2)])).eval()
    whole = everywhere(x).detach()
    everywhere.detach()
    there = moved(adapt(model, [AdapterSpec(kind, glob="0", rank=2, positions=text)])).eval()(x)
    for p in range(length):
        at = (slice(None), slice(None), p) if conv else (slice(None), p)
        if p in meant:
            assert torch.allclose(there[at], whole[at], rtol=1e-10)
        else:
            assert torch.equal(there[at], y[at])


@pytest.mark.parametrize(("positions", "words"), [
    ("middle", "'all', or 'center:n'"), ("center:0", "center:0"), ("first:2 + last:1", "joined by"), (":", "a slice"),
    ("first:-1", "first:-1"), ("all+first:1", "all"), ("1:2:3", "1:2:3"), (3, "positions"),
])  # fmt: skip
def test_positions_that_cannot_be_read(positions, words):
    with pytest.raises(AgblocksError, match=words):
        AdapterSpec("loreft", positions=positions)


@pytest.mark.parametrize("positions", ["center:6", "first:6", "last:9", "0:6", "5:", "-6:", "3:2", "-1:-3"])
def test_positions_that_are_not_there(positions):
    with pytest.raises(ValueError, match="there are 5 positions"):
        ranges(positions, 5)
    adapted = adapt(nn.Sequential(nn.Linear(4, 6)), [AdapterSpec("noreft", glob="0", positions=positions)])
    with pytest.raises(UnsupportedModule, match="'noreft' at '0': there are 5 positions"):
        adapted(torch.zeros(1, 5, 4))


def test_positions_want_one_length():
    with pytest.raises(UnsupportedModule, match="one length"):
        adapt(nn.Sequential(nn.Conv2d(3, 4, 1)), ["loreft:glob=0,positions=first:1"])
    adapted = adapt(nn.Sequential(nn.Linear(4, 6)), ["loreft:glob=0,positions=first:1"])
    with pytest.raises(UnsupportedModule, match="positions 'all' fits"):
        adapted(torch.zeros(5, 4))
    moved(adapt(nn.Sequential(nn.Conv2d(3, 4, 1)).double(), ["loreft:glob=0"]))(drawn(1, 3, 4, 5))


# Merging


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layer", [
    nn.Linear(5, 7), nn.Conv1d(5, 7, 3, stride=2, dilation=2), nn.Conv2d(5, 7, (2, 1)), StandardizedConv1d(5, 7, 4),
], ids=repr)  # fmt: skip
def test_merged_is_hooked(kind, layer):
    model = nn.Sequential(copy.deepcopy(layer)).double()
    x = drawn(2, 6, 5) if isinstance(layer, nn.Linear) else drawn(2, 5, 9, 3) if "2d" in repr(layer) else drawn(2, 5, 9)
    adapted = moved(adapt(model, [f"{kind}:glob=0,rank=3"])).eval()
    twin = adapted.merged()
    assert torch.allclose(twin(x), adapted(x), rtol=1e-10, atol=1e-10) and type(twin[0]) is type(layer)
    assert list(twin.state_dict()) == list(model.state_dict())


@pytest.mark.parametrize(("layer", "more", "why"), [
    (nn.Linear(5, 6, bias=False), "", "no bias to add to"),
    (nn.Conv1d(6, 6, 1, groups=2), "", "keep them, or groups of them, apart"),
    (nn.BatchNorm1d(6), "", "keep them, or groups of them, apart"),
    (nn.Linear(5, 6), ",positions=first:1", "it acts at positions 'first:1' alone"),
    (role(HookPoint(), "block.out", width=6), "", "no affine map"),
    (nn.ConvTranspose1d(5, 6, 2), "", "transposed"),
], ids=str)  # fmt: skip
def test_merging_refused(layer, more, why):
    adapted = adapt(nn.Sequential(copy.deepcopy(layer)), [f"loreft:glob=0{more}"])
    with pytest.raises(NotMergeable, match=why):
        adapted.merged()


def test_rank_of_the_width_at_most():
    with pytest.raises(UnsupportedModule, match="rank 7 is more than its 6 channels"):
        adapt(nn.Sequential(nn.Linear(5, 6)), ["loreft:glob=0,rank=7"])
