"""Relative attention, its features and its blocks of queries, against loops written from the formulas."""

import math

import naive
import numpy as np
import pytest
import torch

from agblocks.layers import relative
from agblocks.layers.distances import distance_features
from agblocks.layers.relative import RelativeAttention, attend_by_distance

BIASES = ("content_bias", "position_bias")


def features(basis, distance, number, train):
    """One row of features, function by function."""
    d, m = abs(distance), number // (6 if basis == "enformer" else 2)
    if basis == "borzoi":
        row = [float((train + 1) ** (k / m) - 1 > d) for k in range(1, m + 1)]
    else:
        steps = [i / (m - 1) if m > 1 else 0 for i in range(m)]
        row = [0.5 ** (d / 2 ** (3 + s * (math.log2(train) - 3))) for s in steps]
        row += [float(2**k - 1 > d) for k in range(1, m + 1)]
        spread = train / (2 * m)
        means = [train / m + s * (train - train / m) for s in steps]
        density = []
        for mean in means:
            shape, rate = (mean / spread) ** 2, mean / spread**2
            log = (shape - 1) * math.log(d) - rate * d if d else -math.inf
            density.append(math.exp(log - math.lgamma(shape) + shape * math.log(rate)) + 1e-8)
        row += [value / max(density) for value in density]
    sign = (distance > 0) - (distance < 0)
    return row + [sign * value for value in row]


@pytest.mark.parametrize(
    ("basis", "number", "train"), [("enformer", 24, 1536), ("enformer", 6, 16), ("borzoi", 32, 4096)]
)
@pytest.mark.parametrize("length", [1, 2, 40])
def test_features_of_every_distance(basis, number, train, length):
    found = distance_features(basis, length, number, train)
    wanted = np.array([features(basis, d, number, train) for d in range(1 - length, length)])
    assert found.dtype == torch.float64
    assert np.abs(found.numpy() - wanted).max() < 1e-12


def test_features_hang_on_the_training_length_alone():
    """The peers of Enformer take the actual length: that variant differs here."""
    long, short = (distance_features("enformer", n, 24, 1536) for n in (300, 20))
    assert torch.equal(long[300 - 20 : 300 + 19], short)
    assert not torch.allclose(distance_features("enformer", 20, 24, 20), short)


def attention(basis="enformer", features=None, train=32):
    torch.manual_seed(3)
    part = RelativeAttention(24, heads=2, key_dim=5, basis=basis, features=features, train_length=train).double().eval()
    torch.nn.init.normal_(part.out.weight)
    return part


def naive_attention(x, part):
    heads, key_dim = part.content_bias.shape
    h = naive.layer_norm(x, part.norm, rms=False)
    split = lambda values: values.reshape(*values.shape[:-1], heads, -1)  # noqa: E731
    q, k, v = (split(naive.linear(h, linear)) for linear in (part.q, part.k, part.v))
    content, position = (naive.array(getattr(part, name)) for name in BIASES)
    batch, n = x.shape[:2]
    out = np.zeros(v.shape)
    for b in range(batch):
        for head in range(heads):
            for i in range(n):
                logits = []
                for j in range(n):
                    row = np.array(features(part.basis, j - i, part.features, part.train_length))
                    r = split(naive.linear(row, part.positions))[head]
                    scaled = q[b, i, head] * key_dim**-0.5
                    logits.append((scaled + content[head]) @ k[b, j, head] + (scaled + position[head]) @ r)
                out[b, i, head] = naive.softmax(np.array(logits)) @ v[b, :, head]
    return naive.linear(out.reshape(batch, n, -1), part.out)


@pytest.mark.parametrize(("basis", "number"), [("enformer", None), ("borzoi", 8)])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_attention_logit_by_logit(basis, number, length):
    part = attention(basis, number)
    x = torch.randn(2, length, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    assert np.abs(part(x).detach().numpy() - naive_attention(x.numpy(), part)).max() < 1e-11


@pytest.mark.parametrize("held", [1, 40, 70, 300, 10**6])
def test_blocks_change_no_number_and_no_gradient(monkeypatch, held):
    part, x = attention(), torch.randn(3, 11, 24, dtype=torch.float64)
    whole = results(part, x)
    monkeypatch.setitem(relative.HELD, "cpu", held)
    for name, value in results(part, x).items():
        assert torch.allclose(value, whole[name], rtol=1e-11, atol=1e-11), name


def results(part, x):
    x = x.clone().requires_grad_()
    part.zero_grad()
    y = part(x)
    (y * torch.arange(y.numel()).view_as(y)).sum().backward()
    found = {"y": y.detach(), "x": x.grad}
    return found | {name: p.grad.clone() for name, p in part.named_parameters()}


def test_dropout_is_the_same_when_a_block_is_worked_out_again(monkeypatch):
    """In training a block's weights are dropped twice, forward and back: by the same mask."""
    monkeypatch.setitem(relative.HELD, "cpu", 40)
    part = attention().train()
    part.dropout.p = 0.5
    x = torch.randn(1, 6, 24, dtype=torch.float64)

    def loss(x):
        torch.manual_seed(0)
        return part(x).square().sum()

    assert torch.autograd.gradcheck(loss, x.requires_grad_(), eps=1e-6, atol=1e-4)


def test_no_more_logits_are_held_than_a_block(monkeypatch):
    """The largest tensor made stays far below one (heads, n, n) map."""
    monkeypatch.setitem(relative.HELD, "cpu", 2000)
    n, heads, largest = 200, 2, 0
    part, x = attention(), torch.randn(1, n, 24, dtype=torch.float64)

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor):
                largest = max(largest, made.untyped_storage().nbytes() // made.element_size())
            return made

    with Watch():
        part(x).sum().backward()
    assert largest < heads * n * n / 4


def test_keys_in_front_have_no_distance():
    """A prefix, as an adapter would put it there: its logits have the content part alone."""
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)  # noqa: E731
    q, k, v, r, content, position = (
        draw(1, 3, 2, 4),
        draw(1, 5, 2, 4),
        draw(1, 5, 2, 6),
        draw(5, 2, 4),
        draw(2, 4),
        draw(2, 4),
    )
    found = attend_by_distance(q, k, v, r, content, position)
    for head in range(2):
        for i in range(3):
            logits = [(q[0, i, head] + content[head]) @ k[0, j, head] for j in range(5)]
            for j in range(3):
                logits[j + 2] = logits[j + 2] + (q[0, i, head] + position[head]) @ r[j - i + 2, head]
            assert torch.allclose(found[0, i, head], torch.stack(logits).softmax(0) @ v[0, :, head])


@pytest.mark.parametrize("wrong", ["sign", "scale after", "no norm"])
def test_wrong_variants_show(wrong):
    part, x = attention(), torch.randn(1, 6, 24, dtype=torch.float64)
    right = naive_attention(x.numpy(), part)
    if wrong == "sign":
        part.positions.weight.data[:, part.features // 2 :] *= -1
    elif wrong == "scale after":
        part.content_bias.data *= part.scale
    else:
        part.norm = torch.nn.Identity()
    assert np.abs(part(x).detach().numpy() - right).max() > 1e-3
