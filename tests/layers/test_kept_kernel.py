"""The kernel that a standardised convolution keeps in evaluation: never stale, never in the way."""

import copy
import io
import pickle

import pytest
import torch

from agblocks import layers
from agblocks.layers import StandardizedConv1d
from agblocks.layers.conv import FLOOR, KEEP_BELOW, standardize


@pytest.fixture
def conv():
    torch.manual_seed(0)
    return StandardizedConv1d(4, 6, 5).eval()


X = torch.randn(2, 4, 20, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def fresh(conv, x=X):
    """What the layer gives without anything kept."""
    kernel = plain(conv.weight, conv.scale)
    return torch.nn.functional.conv1d(x, kernel, conv.bias, padding=2)


def plain(weight, scale):
    """The formula in five passes."""
    centred = weight - weight.mean((1, 2), keepdim=True)
    fan_in = weight.shape[1] * weight.shape[2]
    variance = centred.square().mean((1, 2), keepdim=True)
    return centred * scale[:, None, None] / torch.sqrt(torch.clamp(fan_in * variance, min=FLOOR))


@torch.no_grad()
def kept(conv):
    conv(X)
    assert conv._kept is not None
    return conv._kept.kernel


def right(conv):
    with torch.no_grad():
        torch.testing.assert_close(conv(X), fresh(conv), rtol=1e-5, atol=1e-6)


def test_it_is_kept_from_call_to_call(conv):
    kernel = kept(conv)
    assert kept(conv) is kernel
    right(conv)


@pytest.mark.parametrize("edit", ["weight", "scale", "optimizer", "assigned", "loaded", "swapped memory", "inference"])
def test_an_edit_is_noticed(conv, edit):
    kept(conv)
    with torch.no_grad():
        if edit in ("weight", "scale"):
            getattr(conv, edit).mul_(torch.rand_like(getattr(conv, edit)) + 0.5)
        elif edit == "assigned":
            conv.weight = torch.nn.Parameter(torch.randn_like(conv.weight))
        elif edit == "loaded":
            conv.load_state_dict({k: torch.randn_like(v) for k, v in conv.state_dict().items()})
        elif edit == "swapped memory":
            conv.weight.data = torch.randn_like(conv.weight)
    if edit == "inference":
        with torch.inference_mode():
            conv.weight.add_(torch.randn(6, 4, 5))
    if edit == "optimizer":
        optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1)
        conv(X).square().sum().backward()
        optimizer.step()
    right(conv)


def test_an_edit_through_data_needs_a_refresh(conv):
    kept(conv)
    conv.weight.data.add_(torch.randn(6, 4, 5))
    with torch.no_grad():
        assert not torch.allclose(conv(X), fresh(conv))
    layers.refresh(torch.nn.Sequential(conv))
    right(conv)


def test_it_is_dropped_by_train_and_moves(conv):
    kept(conv)
    assert conv.train()._kept is None
    kept(conv.eval())
    assert conv.double()._kept is None
    with torch.no_grad():
        assert conv(X.double()).dtype == torch.float64


def test_it_is_in_no_state_dict_copy_or_pickle(conv):
    kept(conv)
    assert set(conv.state_dict()) == {"weight", "scale", "bias"}
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv)), copy.copy(conv)):
        assert other._kept is None
        right(other)
    file = io.BytesIO()
    torch.save(conv, file)
    assert conv._kept is not None, "copying takes nothing from the original"
    copied = copy.deepcopy(conv)
    with torch.no_grad():
        copied.weight.add_(torch.randn(6, 4, 5))
    right(copied)
    right(conv)


def test_made_in_inference_mode_it_meets_autograd(conv):
    with torch.inference_mode():
        conv(X)
    for parameter in conv.parameters():
        parameter.requires_grad_(False)
    kernel = conv._kept.kernel
    x = X.clone().requires_grad_()
    conv(x).sum().backward()
    assert conv._kept.kernel is kernel
    assert x.grad.abs().sum() > 0
    with torch.inference_mode():
        torch.testing.assert_close(conv(X), fresh(conv), rtol=1e-5, atol=1e-6)


def test_gradients_in_evaluation_are_those_of_training(conv):
    kept(conv)
    grads = []
    for mode in (False, True):
        conv.train(mode).zero_grad()
        conv(X).square().sum().backward()
        grads.append([p.grad.clone() for p in conv.parameters()])
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)
        assert a.any()


def test_functional_call_sees_its_own_weights(conv):
    kernel = kept(conv)
    others = {name: torch.randn_like(p) for name, p in conv.named_parameters()}
    with torch.no_grad():
        found = torch.func.functional_call(conv, others, (X,))
        wanted = torch.nn.functional.conv1d(X, plain(others["weight"], others["scale"]), others["bias"], padding=2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert kept(conv) is kernel or torch.equal(kept(conv), kernel)
    right(conv)
    grad = torch.func.grad(lambda p: torch.func.functional_call(conv, p, (X,)).square().sum())(others)
    assert all(g.any() for g in grad.values())
    stacked = {name: torch.stack((p, 2 * p)) for name, p in others.items()}
    batched = torch.func.vmap(lambda p: torch.func.functional_call(conv, p, (X,)))(stacked)
    torch.testing.assert_close(batched[0], found, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_compiled_it_follows_the_weights(conv, training):
    conv.train(training)
    with torch.no_grad():
        conv(X)
    compiled = torch.compile(conv, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), fresh(conv), rtol=1e-5, atol=1e-6)
        conv.weight.data.add_(torch.randn(6, 4, 5))
        torch.testing.assert_close(compiled(X), fresh(conv), rtol=1e-5, atol=1e-6)
    conv.zero_grad()
    compiled(X).sum().backward()
    assert conv.weight.grad.any()


def test_exported_it_is_part_of_the_graph(conv):
    kept(conv)
    exported = torch.export.export(conv, (X,)).module()
    torch.testing.assert_close(exported(X), fresh(conv), rtol=1e-5, atol=1e-6)


def test_it_is_not_kept_for_long_inputs(conv):
    with torch.no_grad():
        conv(torch.randn(1, 4, KEEP_BELOW))
        assert conv._kept is None
        kernel = kept(conv)
        conv(torch.randn(1, 4, KEEP_BELOW))
        assert conv._kept.kernel is kernel, "used where it is there"


def test_parameters_made_in_inference_mode_are_never_kept():
    with torch.inference_mode():
        conv = StandardizedConv1d(4, 6, 5).eval()
        conv(X)
        assert conv._kept is None
        conv.weight.add_(torch.randn(6, 4, 5))
        torch.testing.assert_close(conv(X), fresh(conv), rtol=1e-5, atol=1e-6)


def test_the_fused_route_is_exact_where_the_floor_holds_too():
    weight = torch.randn(5, 3, 4, dtype=torch.float64)
    weight[0] *= 1e-4
    weight[1] = 0.25  # no variance at all
    weight[2] += 100
    weight.requires_grad_()
    scale = torch.randn(5, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(standardize(weight, scale), plain(weight, scale), rtol=1e-9, atol=1e-12)
    along = torch.randn(5, 3, 4, dtype=torch.float64)
    for found, wanted in zip(
        torch.autograd.grad((standardize(weight, scale) * along).sum(), (weight, scale)),
        torch.autograd.grad((plain(weight, scale) * along).sum(), (weight, scale)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    smooth = [weight.detach()[3:].requires_grad_(), scale.detach()[3:].requires_grad_()]
    assert torch.autograd.gradcheck(standardize, smooth)
    assert torch.autograd.gradgradcheck(standardize, smooth)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_worked_out_in_float32(dtype):
    weight, scale = torch.randn(8, 16, 5).to(dtype), torch.ones(8, dtype=dtype)
    wanted = plain(weight.float(), scale.float()).to(dtype)
    assert standardize(weight, scale).dtype == dtype
    torch.testing.assert_close(standardize(weight, scale), wanted, rtol=0.01, atol=1e-4)


def test_it_starts_with_unit_gain():
    torch.manual_seed(0)
    conv = StandardizedConv1d(64, 64, 5)
    y = conv(torch.randn(4, 64, 200))
    assert 0.8 < y.std() < 1.2
    assert conv.weight.std().item() == pytest.approx(1 / (64 * 5) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 4), (3, 5), (1, 15), (1, 16), (2, 100), (1, 256), (1, 257)])
@pytest.mark.parametrize("width", [3, 5])
def test_few_positions_take_another_way_to_the_same_numbers(batch, length, width):
    torch.manual_seed(0)
    conv = StandardizedConv1d(4, 6, width).double().eval()
    conv.bias.data.normal_()
    x = torch.randn(batch, 4, length, dtype=torch.float64)
    wanted = torch.nn.functional.conv1d(x, plain(conv.weight, conv.scale), conv.bias, padding=width // 2)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), wanted.detach(), atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(conv(x), wanted.detach(), atol=1e-12, rtol=1e-12)


def test_under_autocast_the_kernel_is_kept_in_its_type(conv):
    with torch.no_grad():
        exact = conv(X)
        assert conv._kept.kernel.dtype == torch.float32
        with torch.autocast("cpu", torch.bfloat16):
            half = conv(X)
            assert half.dtype == conv._kept.kernel.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), exact, atol=0.05, rtol=0.02)
        torch.testing.assert_close(conv(X), exact, atol=0, rtol=0)


def test_an_empty_batch(conv):
    with torch.no_grad():
        assert conv(X[:0]).shape == (0, 6, 20)
        assert conv(X[:0, :, :4]).shape == (0, 6, 4)
