"""A packed weight where a dense one stood: the same numbers as that weight restored, and nothing dense kept."""

import copy
import io
import random

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from agblocks.adapters.nf4.tensor import FrozenWeightError, NF4Tensor
from agblocks.layers.conv import StandardizedConv1d


def packed_and_dense(module, double=True):
    """The module with its weight in NF4, and a twin with that weight restored."""
    twin = copy.deepcopy(module)
    module.weight = nn.Parameter(NF4Tensor.of(module.weight, double=double), requires_grad=False)
    twin.weight = nn.Parameter(module.weight.dequantize().clone(), requires_grad=False)
    return module, twin


def values(module, x, weight):
    """Output, gradients of input and bias, and the input's gradient of a gradient."""
    x = x.detach().clone().requires_grad_()
    out = module(x)
    wanted = [x] + [p for p in module.parameters() if p.requires_grad]
    first = torch.autograd.grad((out.tanh() * weight).sum(), wanted, create_graph=True)
    (second,) = torch.autograd.grad(first[0].square().sum(), x)
    return [out, *first, second]


def compare(module, twin, x):
    with torch.no_grad():
        weight = torch.randn_like(twin(x))
    for ours, theirs in zip(values(module, x, weight), values(twin, x, weight), strict=True):
        assert_close(ours, theirs, atol=1e-12, rtol=1e-10)


@given(
    shape=st.lists(st.integers(1, 3), max_size=3), ins=st.integers(1, 40), outs=st.integers(1, 40), bias=st.booleans()
)
def test_linear(shape, ins, outs, bias):
    compare(*packed_and_dense(nn.Linear(ins, outs, bias=bias).double()), torch.randn(*shape, ins, dtype=torch.float64))


@settings(max_examples=40)
@given(axes=st.integers(1, 3), seed=st.integers(0, 10_000))
def test_conv(axes, seed):
    draw = random.Random(seed)
    same = draw.random() < 0.4
    padding = draw.choice(
        ["same"] if same else ["valid", draw.randint(0, 2), [draw.randint(0, 2) for _ in range(axes)]]
    )
    module = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](
        8, 12, [draw.randint(1, 4) for _ in range(axes)], groups=draw.choice([1, 2, 4]), padding=padding,
        stride=1 if same else draw.randint(1, 3), dilation=draw.randint(1, 2), bias=draw.random() < 0.7,
        padding_mode=draw.choice(["zeros", "circular"]),
    ).double()  # fmt: skip
    batch = [2] if module.padding_mode != "zeros" or draw.random() < 0.7 else []
    compare(*packed_and_dense(module), torch.randn(*batch, 8, *[9] * axes, dtype=torch.float64))


def test_embedding():
    module, twin = packed_and_dense(nn.Embedding(50, 7, padding_idx=3))
    indices = torch.randint(0, 50, (4, 5))
    assert torch.equal(module(indices), twin(indices))
    module, twin = module.bfloat16(), twin.bfloat16()
    assert torch.equal(module(indices), twin(indices))


@pytest.mark.parametrize("positions", [64, 1500])
@pytest.mark.parametrize("training", [True, False])
def test_standardized_conv(positions, training):
    module, twin = packed_and_dense(StandardizedConv1d(16, 24, 5))
    module.train(training), twin.train(training)
    x = torch.randn(2, 16, positions)
    for _ in range(2):  # the second call is the one that a kept kernel would serve
        with torch.no_grad():
            assert torch.equal(module(x), twin(x))
    with torch.no_grad():
        module.scale.mul_(2), twin.scale.mul_(2)
        assert torch.equal(module(x), twin(x))
    other = NF4Tensor.of(torch.randn_like(twin.weight))
    module.weight.copy_(other)
    twin.weight = nn.Parameter(other.dequantize(), requires_grad=False)
    with torch.no_grad():
        assert torch.equal(module(x), twin(x))
    module(x).square().sum().backward(), twin(x).square().sum().backward()
    assert_close(module.scale.grad, twin.scale.grad)


@pytest.mark.parametrize("make", [lambda: nn.Linear(96, 80), lambda: nn.Conv1d(16, 32, 5), lambda: nn.Conv2d(8, 16, 3)])
@pytest.mark.parametrize("double", [True, False])
def test_nothing_dense_is_kept_for_the_way_back(make, double):
    module, twin = packed_and_dense(make(), double)
    x = torch.randn(
        2, *([96] if isinstance(module, nn.Linear) else [module.in_channels, 9, 9][: module.weight.dim() - 1])
    )

    def kept(model):
        seen = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
            model(x.clone().requires_grad_())
        return seen

    assert any(t.shape == twin.weight.shape or t.numel() == twin.weight.numel() for t in kept(twin))
    mine = kept(module)
    assert all(type(t) is torch.Tensor for t in mine)
    assert sum(t.numel() * t.element_size() for t in mine) == module.weight.nbytes_held
    assert module.weight.nbytes_held < twin.weight.numel() * 4 / 6


@pytest.mark.parametrize(
    "write",
    [
        lambda w: w.add_(1), lambda w: w.zero_(), lambda w: w.data.mul_(2), lambda w: w.copy_(torch.ones(8, 16)),
        lambda w: w.__setitem__(0, 1.0), lambda w: nn.init.normal_(w), lambda w: torch.add(w, 1, out=w),
        lambda w: torch._foreach_mul_([w], 2.0), lambda w: w.requires_grad_(), lambda w: nn.Parameter(w),
        lambda w: setattr(w, "requires_grad", True), lambda w: setattr(w, "data", torch.ones(8, 16)),
        lambda w: w.copy_(NF4Tensor.of(torch.ones(8, 16), double=False)), lambda w: w.__imul__(2),
    ],
)  # fmt: skip
def test_writing_is_refused(write):
    weight = NF4Tensor.of(torch.randn(8, 16))
    before = weight.dequantize()
    with pytest.raises(FrozenWeightError, match="frozen"):
        write(weight)
    assert torch.equal(weight.dequantize(), before) and not weight.requires_grad
    weight.copy_(before)  # nothing new
    assert torch.equal(weight.dequantize(), before)


def test_it_reads_as_the_restored_weight():
    weight = NF4Tensor.of(torch.randn(8, 16))
    dense = weight.dequantize()
    assert (weight.shape, weight.dtype, weight.device) == (dense.shape, dense.dtype, dense.device)
    assert type(dense) is torch.Tensor
    for read in (lambda w: w[2:5, 3], lambda w: w.T, lambda w: w.flatten(), lambda w: w * 2 + w, lambda w: w.norm(),
                 lambda w: torch.cat([w, w]), lambda w: torch.ones(3, 8) @ w, lambda w: w.mean(1, keepdim=True)):  # fmt: skip
        assert torch.equal(read(weight), read(dense))
    assert weight.tolist() == dense.tolist() == weight.numpy().tolist() and "double blocks of 64" in repr(weight)
    x = torch.randn(3, 16, requires_grad=True)
    (x @ weight.T).sum().backward()
    assert_close(x.grad, dense.sum(0).expand(3, 16))


@given(steps=st.lists(st.sampled_from([torch.float32, torch.bfloat16, torch.float16, torch.float64]), max_size=5))
def test_types_follow_the_restored_weight_exactly(steps):
    module, twin = packed_and_dense(nn.Linear(20, 10))
    codes = module.weight.codes.clone()
    for dtype in steps:
        module.to(dtype), twin.to(dtype)
        assert isinstance(module.weight, NF4Tensor) and isinstance(module.weight, nn.Parameter)
        assert module.weight.dtype == dtype and torch.equal(module.weight.dequantize(), twin.weight)
        assert torch.equal(module(torch.ones(2, 20, dtype=dtype)), twin(torch.ones(2, 20, dtype=dtype)))
    assert torch.equal(module.weight.codes, codes)


@pytest.mark.parametrize("make", [lambda: nn.Linear(16, 12), lambda: nn.Conv1d(16, 12, 3, padding=1)])
def test_autocast(make):
    module, twin = packed_and_dense(make())
    x = torch.randn(4, 16, 16)
    outs = []
    for model in (module, twin):
        z = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = model(z)
        out.float().square().sum().backward()
        outs.append((out, z.grad, model.bias.grad))
    for ours, theirs in zip(*outs, strict=True):
        assert ours.dtype == theirs.dtype
        assert_close(ours, theirs, atol=2e-2, rtol=2e-2)
    assert torch.equal(outs[0][0], outs[1][0])


def test_copies_pickles_and_state_dicts():
    module, _ = packed_and_dense(nn.Linear(96, 80))
    x = torch.randn(3, 96)
    wanted = module(x)
    twin = copy.deepcopy(module)
    assert isinstance(twin.weight, nn.Parameter) and twin.weight.codes.data_ptr() != module.weight.codes.data_ptr()
    assert torch.equal(twin(x), wanted)
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    assert file.tell() < 96 * 80 + 4000  # bytes: less than a third of the dense weight's
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert "NF4Tensor((80, 96)" in repr(state["weight"])
    for assign in (False, True):
        other, _ = packed_and_dense(nn.Linear(96, 80))
        other.load_state_dict(state, assign=assign)
        assert torch.equal(other(x), wanted)
    with pytest.raises(RuntimeError, match="frozen"):
        other.load_state_dict(nn.Linear(96, 80).state_dict())
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(x), wanted)


def test_meta():
    module, _ = packed_and_dense(nn.Linear(96, 80))
    there = copy.deepcopy(module).to("meta")
    assert there.weight.is_meta and there(torch.empty(2, 96, device="meta")).shape == (2, 80)
    drawn = NF4Tensor.of(torch.empty(80, 96, device="meta"))
    assert drawn.is_meta and drawn.nbytes_held == module.weight.nbytes_held
    assert there.to_empty(device="cpu").weight.codes.device.type == "cpu"


def test_functional_call_and_torch_func():
    module, twin = packed_and_dense(nn.Linear(9, 7))
    x = torch.randn(2, 9)
    assert torch.equal(torch.func.functional_call(module, dict(module.named_parameters()), (x,)), module(x))
    grads = [torch.func.grad(lambda z, m=m: m(z).square().sum())(x) for m in (module, twin)]
    assert_close(*grads)


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = packed_and_dense(nn.Conv1d(8, 16, 3, padding="same"))[0]
        self.standard = packed_and_dense(StandardizedConv1d(16, 16, 5))[0]
        self.out = packed_and_dense(nn.Linear(16, 12))[0]

    def forward(self, x):
        return self.out(self.standard(self.stem(x).relu()).transpose(1, 2)).tanh()


def gradients(call, model, x):
    model.zero_grad()
    x = x.clone().requires_grad_()
    out = call(x)
    out.square().sum().backward()
    return [out, x.grad, *(p.grad for p in model.parameters() if p.requires_grad)]


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiles_whole(backend):
    torch._dynamo.reset()
    model, x = Small(), torch.randn(2, 8, 30)
    wanted = gradients(model, model, x)
    for ours, theirs in zip(
        gradients(torch.compile(model, backend=backend, fullgraph=True), model, x), wanted, strict=True
    ):
        assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    with torch.no_grad():
        assert_close(torch.compile(model, backend=backend, fullgraph=True)(x), wanted[0])


def test_a_compiled_graph_keeps_nothing_dense_either():
    torch._dynamo.reset()
    module, _ = packed_and_dense(nn.Linear(96, 80))
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: seen.append(t) or t, lambda t: t):
        torch.compile(module, backend="aot_eager", fullgraph=True)(torch.randn(2, 96, requires_grad=True))
    assert seen and all(t.numel() * t.element_size() < 96 * 80 for t in seen)


def test_checkpointing():
    model, x = Small(), torch.randn(2, 8, 30)
    wanted = gradients(model, model, x)
    assert_close(gradients(lambda z: checkpoint(model, z, use_reentrant=False), model, x), wanted)


def test_export():
    model, x = Small().eval(), torch.randn(2, 8, 30)
    with torch.no_grad():
        wanted = model(x)
        assert_close(torch.export.export(model, (x,)).module()(x), wanted)


def test_embedding_that_rescales_is_refused():
    with pytest.raises(FrozenWeightError, match="max_norm"):
        F.embedding(torch.tensor([1]), NF4Tensor.of(torch.randn(5, 4)), max_norm=1.0)
