"""The layers against second implementations (naive.py), and the traps that ports fell into."""

import naive
import numpy as np
import pytest
import torch
from torch import nn

from agblocks import layers


def drawn(module, seed=0):
    """The module in float64 and evaluation, every parameter and statistic drawn: nothing is left at 0 or 1."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5 + 0.1
    for part in module.modules():
        if isinstance(part, layers.RMSBatchNorm):
            part.mean_square.copy_(torch.rand(part.channels, generator=generator) + 0.3)
    return module


def data(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(tensor, wanted, tolerance=1e-9):
    found = naive.array(tensor)
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() < tolerance


def far(tensor, wanted, least=1e-4):
    assert np.abs(naive.array(tensor) - wanted).max() > least


@pytest.mark.parametrize("width", [1, 3, 5, 15])
@pytest.mark.parametrize("length", [1, 2, 17])
def test_standardized_conv(width, length):
    m = drawn(layers.StandardizedConv1d(3, 4, width))
    m.weight.data[1] *= 1e-4  # where the floor holds
    x = data(2, 3, length)
    kernel = naive.standardized(naive.array(m.weight), naive.array(m.scale))
    close(m(x), naive.conv(naive.array(x), kernel, naive.array(m.bias)))
    close(m.effective_weight(), kernel)


def test_standardized_conv_takes_the_population_variance():
    m = drawn(layers.StandardizedConv1d(2, 3, 3))
    w = naive.array(m.weight)
    centred = w - w.mean((1, 2), keepdims=True)
    unbiased = centred * naive.array(m.scale)[:, None, None] / np.sqrt(6 * w.var((1, 2), ddof=1, keepdims=True))
    far(m.effective_weight(), unbiased, 1e-2)


def test_the_floor_is_a_maximum_and_no_summand():
    m = drawn(layers.StandardizedConv1d(2, 3, 3))
    w = naive.array(m.weight)
    total = 6 * w.var((1, 2), keepdims=True)
    wanted = (w - w.mean((1, 2), keepdims=True)) * naive.array(m.scale)[:, None, None] / np.sqrt(total)
    close(m.effective_weight(), wanted, 1e-14)


@pytest.mark.parametrize("dim", [1, -1])
def test_rms_batch_norm_in_evaluation(dim):
    m = drawn(layers.RMSBatchNorm(5, dim=dim))
    x = data(2, 5, 7) if dim == 1 else data(2, 3, 7, 5)
    wanted = naive.rms_batch_norm(np.moveaxis(naive.array(x), dim, -1), m)
    close(m(x), np.moveaxis(wanted, -1, dim))


@pytest.mark.parametrize("rms", [False, True])
def test_layer_norms(rms):
    m, x = drawn(layers.LayerNorm(6, rms=rms)), data(2, 4, 6)
    close(m(x), naive.layer_norm(naive.array(x), m, rms))
    far(m(x), naive.layer_norm(naive.array(x), m, not rms))
    c = drawn(layers.ChannelLayerNorm(6, rms=rms))
    close(c(x.transpose(1, 2)), np.swapaxes(naive.layer_norm(naive.array(x), c, rms), 1, 2))


def test_the_rms_norm_has_an_offset():
    m, x = drawn(layers.LayerNorm(6, rms=True)), data(2, 4, 6)
    assert "bias" in dict(m.named_parameters())
    far(m(x), naive.layer_norm(naive.array(x), m, True) - naive.array(m.bias))


@pytest.mark.parametrize(("name", "wanted"), [("gelu_sigmoid", naive.gelu_sigmoid), ("gelu_tanh", naive.gelu_tanh)])
def test_gelus(name, wanted):
    x = data(100) * 3
    close(layers.activation(name)(x), wanted(naive.array(x)))
    others = {"gelu", "gelu_tanh", "gelu_sigmoid"} - {name}
    for other in others:
        far(layers.activation(other)(x), wanted(naive.array(x)))


def test_the_sigmoid_gelu_casts_its_factor():
    x = torch.randn(1000, dtype=torch.bfloat16)
    factor = torch.tensor(1.702, dtype=torch.bfloat16)
    assert torch.equal(layers.QuickGELU()(x), x * torch.sigmoid(x * factor))


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 9])
def test_pools_keep_a_rest(size, length):
    x = data(2, 3, length) - 5  # all negative: a pad by zero would show
    assert (x < 0).all()
    close(layers.MaxPool(size)(x), naive.max_pool(naive.array(x), size))
    close(layers.MeanPool(size)(x), naive.mean_pool(naive.array(x), size))
    if length >= size:
        whole = naive.array(x)[..., : length // size * size]
        close(layers.MaxPool(size, rest=False)(x), naive.max_pool(whole, size))


@pytest.mark.parametrize("length", [1, 4, 5, 7])
@pytest.mark.parametrize("size", [2, 4])
def test_attention_pool(size, length):
    m, x = drawn(layers.AttentionPool(3, size)), data(2, 3, length)
    a = naive.array(x)
    logits = np.einsum("oc,bcl->bol", naive.array(m.weight), a)
    wanted = [(naive.softmax(logits[..., i : i + size]) * a[..., i : i + size]).sum(-1) for i in range(0, length, size)]
    close(m(x), np.stack(wanted, -1))
    assert torch.equal(layers.AttentionPool(3).weight, 2 * torch.eye(3))


@pytest.mark.parametrize("channels", [2, 6, 128])
def test_rope(channels):
    x = data(2, 40, channels)
    close(layers.Rope(channels)(x), naive.rope(naive.array(x)))
    heads = data(2, 40, 3, channels)
    close(layers.Rope(channels)(heads)[:, :, 1], naive.rope(naive.array(heads[:, :, 1])))


def test_rope_does_not_follow_the_length():
    m = layers.Rope(8)
    long = data(1, 300, 8)
    torch.testing.assert_close(m(long)[:, :10], m(long[:, :10]), rtol=0, atol=0)


def test_rope_is_right_far_out_in_any_precision():
    m = layers.Rope(8)
    x = torch.zeros(1, 8192, 8)
    x[..., ::2] = 1
    wanted = naive.rope(np.asarray(x.double()))
    assert np.abs(naive.array(m(x)) - wanted).max() < 1e-6
    assert np.abs(naive.array(m.bfloat16()(x)) - wanted).max() < 1e-6, "the frequencies were rounded with the model"
    assert m.frequency.dtype == torch.float64


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("value_dim", [4, 6])
def test_attention(with_bias, value_dim):
    m = drawn(layers.MultiQueryAttention(10, heads=3, key_dim=8, value_dim=value_dim, repeat=4))
    x, bias = data(2, 12, 10), data(2, 3, 3, 3, seed=2) * 4 if with_bias else None
    wanted = naive.attention(naive.array(x), m, None if bias is None else naive.array(bias), repeat=4)
    close(m(x, bias), wanted)


def test_the_cap_comes_after_the_bias():
    q, k, v = data(1, 4, 2, 4), data(1, 4, 4, seed=2), data(1, 4, 3, seed=3)
    bias = data(1, 2, 2, 2, seed=4) * 10
    found = layers.attend(q, k, v, bias, repeat=2, cap=5.0)
    logits = np.einsum("bthd,bsd->bhts", naive.array(q), naive.array(k)) / 2
    spread = naive.array(bias).repeat(2, 2).repeat(2, 3)

    def out(capped):
        return np.einsum("bhts,bse->bthe", naive.softmax(capped), naive.array(v))

    close(found, out(5 * np.tanh((logits + spread) / 5)))
    far(found, out(5 * np.tanh(logits / 5) + spread), 1e-2)


def test_a_prefix_of_keys_gets_no_bias():
    q, k, v = data(1, 4, 2, 4), data(1, 7, 4, seed=2), data(1, 7, 3, seed=3)
    bias = data(1, 2, 2, 2, seed=4)
    logits = np.einsum("bthd,bsd->bhts", naive.array(q), naive.array(k)) / 2
    logits[..., 3:] += naive.array(bias).repeat(2, 2).repeat(2, 3)
    wanted = np.einsum("bhts,bse->bthe", naive.softmax(logits), naive.array(v))
    close(layers.attend(q, k, v, bias, repeat=2), wanted)


def test_pair_bias():
    m, pair = drawn(layers.PairBias(6, 3)), data(2, 4, 4, 6)
    close(m(pair), naive.pair_bias(naive.array(pair), m))
    assert isinstance(m.activation, nn.GELU)
    assert m.activation.approximate == "tanh"


@pytest.mark.parametrize("positions", [16, 21, 80])
def test_sequence_to_pair(positions):
    m = drawn(layers.SequenceToPair(6, 5, heads=3, key_dim=4))
    x = data(2, positions, 6)
    close(m(x), naive.sequence_to_pair(naive.array(x), m))
    assert m.activation.approximate == "tanh"


def test_relative_features_do_not_follow_the_length():
    m = layers.SequenceToPair(6, 5, heads=1, key_dim=4)
    few, many = m.features(3), m.features(600)
    torch.testing.assert_close(few, many[597:603], rtol=0, atol=0)
    widths = np.arange(32) + 481.0 ** (np.arange(32) / 32)
    near = (widths > np.abs(np.arange(-600, 600))[:, None]).astype(float)
    assert (naive.array(many)[:, :32] == near).all()
    assert not naive.array(many)[600, 32:].any(), "distance 0 has no sign"


def test_row_attention_and_pair_mlp():
    attention, mlp, pair = drawn(layers.RowAttention(6)), drawn(layers.PairMLP(6)), data(2, 4, 4, 6)
    close(attention(pair), naive.row_attention(naive.array(pair), attention))
    close(mlp(pair), naive.pair_mlp(naive.array(pair), mlp))
    assert attention.q.bias is None
    assert attention.v.bias is not None


def test_squeeze_excite():
    m, x = drawn(layers.SqueezeExcite(4, 2)), data(2, 4, 9)
    h = naive.linear(naive.array(x).mean(-1), m.down)
    h = naive.linear(h / (1 + np.exp(-h)), m.up)
    close(m(x), naive.array(x) / (1 + np.exp(-h))[:, :, None])


def test_organism_linear():
    m, x = drawn(layers.OrganismLinear(2, 3, 4)), data(2, 3, 5)
    y = m(x, torch.tensor([1, 0]))
    for row, organism in enumerate([1, 0]):
        wanted = naive.array(m.weight[organism]) @ naive.array(x[row]) + naive.array(m.bias[organism])[:, None]
        close(y[row], wanted)


def test_a_hook_can_reach_keys_and_values():
    m = drawn(layers.MultiQueryAttention(10, heads=3, key_dim=8, value_dim=4))
    x, before = data(2, 5, 10), None
    before = m(x)

    def prefix(module, args, output):
        k, v = output
        return torch.cat((k[:, :1], k), 1), torch.cat((v[:, :1], v), 1)

    handle = m.kv.register_forward_hook(prefix)
    far(m(x), naive.array(before))
    handle.remove()
    assert torch.equal(m(x), before)
    assert m.kv.role == "kv"
    assert m.q.role == "attn.q"


def test_roles_are_no_state_and_survive_copies():
    import copy
    import pickle

    linear = layers.role(nn.Linear(2, 2), "attn.q")
    assert copy.deepcopy(linear).role == pickle.loads(pickle.dumps(linear)).role == "attn.q"
    assert set(linear.state_dict()) == {"weight", "bias"}
