"""A model's weights in NF4 and back: which, how large, and that nothing else changes."""

import copy
import math

import pytest
import torch
from torch import nn

import agblocks
from agblocks.adapters import adapt
from agblocks.adapters.errors import MergedStateError, NoTargetMatch, QuantizedBaseError, UnsupportedModule
from agblocks.adapters.nf4.codes import NF4Error
from agblocks.adapters.nf4.quantize import quantize
from agblocks.adapters.nf4.tensor import NF4Tensor
from agblocks.graph import Head


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.dna = nn.Conv1d(4, 512, 15, padding=7)
        self.conv = nn.Conv1d(512, 64, 3, padding=1)
        self.norm = nn.LayerNorm(64)
        self.embed = nn.Embedding(100, 64)
        self.small = nn.Linear(64, 63)
        self.large = nn.Linear(63, 100)

    def forward(self, x):
        h = self.norm(self.conv(self.dna(x).relu()).transpose(1, 2)) + self.embed.weight[0]
        return self.large(self.small(h))


def state(model):
    return [(name, type(m), tuple(m._parameters), m.training) for name, m in model.named_modules()], [
        (n, p.shape, p.dtype) for n, p in model.named_parameters()
    ]


def dense(model):
    return {n: p.detach().clone() for n, p in model.named_parameters()}


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_there_and_back(double, keep):
    model, x = Net(), torch.randn(2, 4, 20)
    model.conv.weight.requires_grad_(False)
    before, weights, ids = state(model), dense(model), {n: id(m) for n, m in model.named_modules()}
    wanted = model(x)
    done = quantize(model, double=double, keep_original=keep)
    assert done.modules == ["conv", "large"] and done.left == {
        "dna": "it reads 4 channels", "small": "it has 4032 weights"
    }  # fmt: skip
    assert state(model) == before and {n: id(m) for n, m in model.named_modules()} == ids
    sizes = [512 * 64 * 3, 6300]
    assert done.bytes_before == 4 * sum(sizes)
    blocks = [math.ceil(n / 64) for n in sizes]
    extra = [n + 4 * math.ceil(n / 256) + 4 if double else 4 * n for n in blocks]
    assert done.bytes_after == sum(math.ceil(n / 2) for n in sizes) + sum(extra)
    for name, weight in weights.items():
        now = model.get_parameter(name)
        packed = name in ("conv.weight", "large.weight")
        assert isinstance(now, NF4Tensor) == packed and (packed or torch.equal(now, weight))
    for entry in done.entries:
        assert 0.085 < entry.error < 0.1 and f"{entry.error:.4f}" in done.report()
    out = model(x)
    assert 0 < ((out - wanted).norm() / wanted.norm()).item() < 0.15
    restored = {n: getattr(p, "dequantize", p.detach)() for n, p in model.named_parameters()}
    assert done.dequantize_() is model
    assert state(model) == before
    assert [n for n, p in model.named_parameters() if not p.requires_grad] == ["conv.weight"]
    for name, p in model.named_parameters():
        assert type(p) is nn.Parameter and torch.equal(p, weights[name] if keep else restored[name])
    assert torch.equal(model(x), wanted if keep else out)
    assert done.modules == []


def test_named_ones():
    model = Net()
    assert quantize(model, ["embed", "small"], block=32).modules == ["embed", "small"]
    assert quantize(model, "*").modules == ["dna", "conv", "large"]
    with pytest.raises(NoTargetMatch, match="larg"):
        quantize(model, ["larg"])
    with pytest.raises(UnsupportedModule, match="packed already"):
        quantize(model, ["large"])
    with pytest.raises(UnsupportedModule, match="LayerNorm"):
        quantize(model, ["norm"])


def test_all_or_nothing():
    for damage, options, error in [
        (lambda m: m.large.weight.data.__setitem__((3, 3), math.nan), {}, NF4Error),
        (lambda m: None, {"targets": ["conv", "norm"]}, UnsupportedModule),
        (lambda m: None, {"block": 7}, NF4Error),
        (lambda m: setattr(m, "embed", nn.Embedding(100, 64, max_norm=1.0)), {"targets": ["conv", "embed"]}, UnsupportedModule),
    ]:  # fmt: skip
        model = Net()
        damage(model)
        parameters = dict(model.named_parameters())
        with pytest.raises(error):
            quantize(model, **options)
        assert all(parameters[n] is p for n, p in model.named_parameters())
    with pytest.raises(NF4Error, match=r"large\.weight"):
        model = Net()
        model.large.weight.data[0] = math.inf
        quantize(model)


def test_tied_weights_go_together_or_stay():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.embed, self.out = (
                nn.Linear(64, 64),
                nn.Linear(64, 64),
                nn.Embedding(100, 64),
                nn.Linear(64, 100),
            )
            self.b.weight = self.a.weight
            self.out.weight = self.embed.weight

    model = Tied()
    done = quantize(model)
    assert done.entries[0].modules == ("a", "b") and model.a.weight is model.b.weight
    assert "embed.weight" in done.left["out"] and model.out.weight is model.embed.weight
    with pytest.raises(UnsupportedModule, match="name both"):
        quantize(model, ["out"])
    assert quantize(model, ["out", "embed"]).entries[0].modules in [("embed", "out"), ("out", "embed")]
    done.dequantize_()
    assert model.a.weight is model.b.weight and type(model.a.weight) is nn.Parameter


def test_moved_and_converted_in_between():
    model = Net()
    weight = model.large.weight.detach().clone()
    done = quantize(model, ["large"], keep_original=True)
    done.model.bfloat16()
    done.dequantize_()
    assert torch.equal(model.large.weight, weight.bfloat16())
    done = quantize(model, ["large"])
    model.large.weight = nn.Parameter(weight)
    with pytest.raises(QuantizedBaseError, match="large"):
        done.dequantize_()


def test_a_recipe_of_ours_and_its_heads():
    model = agblocks.build("alphagenome_small").eval()
    heads = {f"{n}.{k}" for n, m in model.named_modules() if isinstance(m, Head) for k, _ in m.named_modules()}
    twin, batch = copy.deepcopy(model), {"dna": torch.randn(1, 4, 4096), "organism": torch.zeros(1, dtype=torch.long)}
    done = quantize(model)
    assert len(done.modules) == 13 and not heads & set(done.modules)
    for name in done.modules:
        twin.get_submodule(name).weight = nn.Parameter(
            model.get_submodule(name).weight.dequantize(), requires_grad=False
        )
    with torch.no_grad():
        ours, theirs = model(**batch), twin(**batch)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_adapters_beside_packed_weights():
    torch.manual_seed(0)
    model, x = Net(), torch.randn(2, 4, 20)
    done = quantize(model)
    before = model(x)
    adapted = adapt(model, ["lora:glob=large,rank=4", "lora:glob=conv,rank=4"])
    assert torch.equal(adapted(x), before)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, 1e-2)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = (adapted(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    out = adapted(x)
    assert torch.equal(copy.deepcopy(adapted)(x), out)
    with pytest.raises(QuantizedBaseError, match="dequantising"):
        adapted.bank.merge_()
    done.dequantize_()
    torch.testing.assert_close(adapted(x), out)
    torch.testing.assert_close(adapted.merged()(x), out, atol=1e-5, rtol=1e-4)
    adapted.bank.merge_()
    with pytest.raises(MergedStateError):
        quantize(adapted)
    adapted.bank.unmerge_()
    assert [n for n, p in model.named_parameters() if p.requires_grad] == []
    assert quantize(adapted).modules == ["conv", "large"]
    with adapted.bank.disabled():
        plain = adapted(x)
    assert torch.equal(adapted.detach()(x), plain)


def test_meta_model():
    model = agblocks.build("alphagenome_small", device="meta")
    done = quantize(model)
    assert len(done.modules) == 13 and math.isnan(done.entries[0].error)
    assert done.bytes_before / done.bytes_after > 7
    assert (
        done.dequantize_()
        .get_parameter(f"{next(n for n, m in model.named_modules() if isinstance(m, nn.Linear))}.weight")
        .is_meta
    )


def test_ddp_of_the_adapted_model(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        model = Net()
        quantize(model)
        adapted = adapt(model, ["lora:glob=large,rank=4"])
        wrapped = nn.parallel.DistributedDataParallel(adapted)
        wrapped(torch.randn(2, 4, 20)).square().sum().backward()
        assert all(p.grad is not None for p in adapted.bank.parameters())
    finally:
        torch.distributed.destroy_process_group()
