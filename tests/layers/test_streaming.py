"""Attention a block at a time, against the formula at once: outputs, gradients, blocks of every size, precisions."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agblocks.layers import attend, streaming


@st.composite
def cases(draw):
    batch, heads, repeat = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    rows = draw(st.integers(1, 5))
    prefix = draw(st.integers(0, 3))
    biased = draw(st.booleans())
    cap = draw(st.sampled_from([None, 1.0, 5.0, 29.0, 31.0, 1000.0]))
    d, e = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))

    def tensor(*shape, size=1.0):
        return (size * torch.randn(shape, generator=generator, dtype=torch.float64)).requires_grad_()

    length = rows * repeat
    bias = tensor(batch, heads, rows, rows) if biased else None
    size = draw(st.sampled_from([1.0, 30.0]))
    q, k, v = (
        tensor(batch, length, heads, d, size=size),
        tensor(batch, length + prefix, d),
        tensor(batch, length + prefix, e),
    )
    return (q, k, v, bias), {"repeat": repeat, "cap": cap}, draw(st.sampled_from([1, 7, 40, 10**6]))


@given(cases())
def test_blocks_of_any_size_give_the_formula_and_its_gradients(case):
    tensors, options, held = case
    given_tensors = [t for t in tensors if t is not None]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(streaming.HELD, "cpu", held)
        found = attend(*tensors, **options)
        weight = torch.sin(torch.arange(found.numel(), dtype=torch.float64)).view_as(found)
        gradients = torch.autograd.grad((found * weight).sum(), given_tensors)
    wanted = streaming.plain(*tensors, **options)
    torch.testing.assert_close(found, wanted, atol=1e-11, rtol=1e-9)
    for one, other in zip(gradients, torch.autograd.grad((wanted * weight).sum(), given_tensors), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-7)


def small(dtype=torch.float64, requires_grad=True):
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 8, 3, 4), (2, 9, 4), (2, 9, 5), (2, 3, 4, 4)
    return [
        torch.randn(s, generator=generator, dtype=torch.float64).to(dtype).requires_grad_(requires_grad) for s in shapes
    ]


def test_second_derivatives():
    assert torch.autograd.gradgradcheck(lambda *t: attend(*t, repeat=2, cap=5.0), small())


def test_transforms_of_torch_func_and_forward_mode():
    q, k, v, bias = small(requires_grad=False)

    def of(x):
        return attend(x, k, v, bias, repeat=2, cap=5.0)

    def wanted(x):
        return streaming.plain(x, k, v, bias, repeat=2, cap=5.0)

    direction = torch.ones_like(q)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(of)(q), transform(wanted)(q))
    torch.testing.assert_close(torch.func.jvp(of, (q,), (direction,))[1], torch.func.jvp(wanted, (q,), (direction,))[1])
    found = torch.autograd.functional.jacobian(of, q, vectorize=True)
    torch.testing.assert_close(found, torch.autograd.functional.jacobian(wanted, q))
    stacked = torch.stack((q, 2 * q))
    torch.testing.assert_close(torch.func.vmap(of)(stacked)[1], wanted(2 * q))


def test_examples_by_vmap():
    q, k, v, bias = small(requires_grad=False)

    def one(*example):
        return attend(*(t[None] for t in example), repeat=2, cap=5.0).square().sum()

    by_example = torch.func.vmap(torch.func.grad(one, argnums=(0, 1, 2, 3)))(q, k, v, bias)
    for index in range(2):
        alone = torch.func.grad(one, argnums=(0, 1, 2, 3))(*(t[index] for t in (q, k, v, bias)))
        for found, wanted in zip(by_example, alone, strict=True):
            torch.testing.assert_close(found[index], wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_logits_are_float32(dtype):
    tensors = small(dtype)
    exact = streaming.plain(*(t.double() for t in tensors), repeat=2, cap=5.0)
    found = attend(*tensors, repeat=2, cap=5.0)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), exact, atol=4 * torch.finfo(dtype).eps, rtol=0)
    with torch.autocast("cpu", torch.bfloat16):
        wide = [t.float() for t in tensors]
        torch.testing.assert_close(attend(*wide, repeat=2, cap=5.0).double(), exact, atol=1e-6, rtol=0)
    gradients = torch.autograd.grad(found.sum(), tensors)
    assert [g.dtype for g in gradients] == [dtype] * 4 and all(g.isfinite().all() for g in gradients)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_flex_attention_gives_the_same_numbers():
    tensors = small(torch.float32, requires_grad=False)
    for options in ({"repeat": 2, "cap": 5.0}, {"repeat": 2}):
        torch.testing.assert_close(streaming.flex(*tensors, **options), streaming.plain(*tensors, **options))
    torch.testing.assert_close(streaming.flex(*tensors[:3], cap=5.0), streaming.plain(*tensors[:3], cap=5.0))


def test_logits_are_never_held_whole():
    """With 2,048 positions and 8 heads whole logits would be 128 MB; the largest tensor made is a block of them."""
    largest = 0

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            out = function(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    q, k, v = torch.randn(1, 2048, 8, 8, requires_grad=True), torch.randn(1, 2048, 8), torch.randn(1, 2048, 8)
    with Sizes():
        attend(q, k, v, torch.randn(1, 8, 128, 128), repeat=16, cap=5.0).sum().backward()
    assert largest <= streaming.HELD["cpu"]
