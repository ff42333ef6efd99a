"""RMSBatchNorm's training modes, and what happens to its state."""

import copy

import pytest
import torch

from agblocks.layers import RMSBatchNorm


def data(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 3 + 1


def test_batch_mode_normalises_by_the_batch_and_follows_it():
    m = RMSBatchNorm(4)
    x = data(3, 4, 10)
    square = x.square().mean((0, 2))
    torch.testing.assert_close(m(x), x / (square + 1e-5).sqrt()[:, None])
    torch.testing.assert_close(m.mean_square, 0.9 * torch.ones(4) + 0.1 * square)
    for _ in range(200):
        m(x)
    torch.testing.assert_close(m.eval()(x), x / (square + 1e-5).sqrt()[:, None], rtol=1e-5, atol=1e-5)


def test_batch_mode_has_the_gradient_of_its_statistic():
    m = RMSBatchNorm(3).double()
    x = data(2, 3, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(m, (x,))
    m(x).square().sum().backward()
    assert x.grad.abs().max() < 1e-4, "the output's mean square is 1 whatever the scale of x"


def test_ema_mode_is_an_affine_map_of_the_kept_statistic():
    m = RMSBatchNorm(4, mode="ema")
    x = data(3, 4, 10).requires_grad_()
    y = m(x)
    kept = m.mean_square.clone()
    torch.testing.assert_close(kept, 0.9 + 0.1 * x.detach().square().mean((0, 2)))
    torch.testing.assert_close(y, x / (kept + 1e-5).sqrt()[:, None])
    y.sum().backward()
    torch.testing.assert_close(x.grad, (1 / (kept + 1e-5).sqrt())[:, None].expand_as(x))


@pytest.mark.parametrize("how", ["mode", "eval"])
def test_a_frozen_norm_stays(how):
    m = RMSBatchNorm(4, mode="frozen" if how == "mode" else "batch")
    m.mean_square.fill_(2)
    m.train(how == "mode")
    x = data(3, 4, 10)
    torch.testing.assert_close(m(x), x / (2 + 1e-5) ** 0.5)
    assert (m.mean_square == 2).all()


def test_evaluation_leaves_rows_alone():
    m = RMSBatchNorm(4).eval()
    x = data(3, 4, 10)
    torch.testing.assert_close(m(x)[:1], m(x[:1]), rtol=0, atol=0)


def test_the_statistic_stays_float32_below_it():
    m = RMSBatchNorm(4)
    m.mean_square.fill_(1.001)
    assert m.bfloat16().mean_square.dtype == torch.float32
    assert m.mean_square[0] == torch.tensor(1.001), "not rounded on the way either"
    assert m(data(2, 4, 5).bfloat16()).dtype == torch.bfloat16
    assert m.double().mean_square.dtype == torch.float64
    assert m.half().mean_square.dtype in (torch.float32, torch.float64)


def test_state_is_saved_and_copied():
    m = RMSBatchNorm(4)
    m(data(2, 4, 5))
    assert set(m.state_dict()) == {"weight", "bias", "mean_square"}
    other = RMSBatchNorm(4)
    other.load_state_dict(m.state_dict())
    assert torch.equal(other.mean_square, copy.deepcopy(m).mean_square)
