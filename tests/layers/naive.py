"""Second implementations in float64, loop by loop from the facts; nothing of the package is used."""

import math

import numpy as np


def array(tensor):
    return tensor.detach().double().numpy()


def gelu_sigmoid(x):
    return x / (1 + np.exp(-1.702 * x))


def gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def rms_batch_norm(x, m):
    """Over (..., C), with a module's stored second moment."""
    return x * array(m.weight) / np.sqrt(array(m.mean_square) + 1e-5) + array(m.bias)


def layer_norm(x, m, rms):
    mean = 0 if rms else x.mean(-1, keepdims=True)
    second = (x**2).mean(-1, keepdims=True) if rms else x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(second + 1e-5) * array(m.weight) + array(m.bias)


def linear(x, m):
    y = x @ array(m.weight).T
    return y if m.bias is None else y + array(m.bias)


def standardized(weight, scale):
    kernel = np.empty_like(weight)
    for o in range(weight.shape[0]):
        w = weight[o]
        fan_in = w.size
        mean = w.sum() / fan_in
        variance = ((w - mean) ** 2).sum() / fan_in
        kernel[o] = (w - mean) * scale[o] / math.sqrt(max(fan_in * variance, 1e-4))
    return kernel


def conv(x, kernel, bias):
    """x (batch, in, length), odd width, same length."""
    batch, _, length = x.shape
    out, _, width = kernel.shape
    y = np.zeros((batch, out, length))
    for position in range(length):
        for tap in range(width):
            at = position + tap - width // 2
            if 0 <= at < length:
                y[:, :, position] += x[:, :, at] @ kernel[:, :, tap].T
    return y + bias[None, :, None]


def max_pool(x, size):
    return np.stack([x[..., i : i + size].max(-1) for i in range(0, x.shape[-1], size)], -1)


def mean_pool(x, size):
    return np.stack([x[..., i : i + size].mean(-1) for i in range(0, x.shape[-1], size)], -1)


def rope(x, max_position=8192):
    """x (batch, positions, channels)."""
    channels = x.shape[-1]
    n = channels // 2
    geometric = np.geomspace(1, max_position - n + 1, n)
    y = np.empty_like(x)
    for position in range(x.shape[1]):
        for f in range(n):
            theta = position / (f + geometric[f])
            a, b = x[:, position, 2 * f], x[:, position, 2 * f + 1]
            y[:, position, 2 * f] = a * math.cos(theta) - b * math.sin(theta)
            y[:, position, 2 * f + 1] = b * math.cos(theta) + a * math.sin(theta)
    return y


def attention(x, m, bias=None, cap=5.0, repeat=16):
    """A MultiQueryAttention module m on x (batch, T, C); bias (batch, heads, P, P)."""
    h = rms_batch_norm(x, m.norm)
    k = rope(layer_norm(linear(h, m.k), m.norm_k, False))
    v = layer_norm(linear(h, m.v), m.norm_v, False)
    q_all = linear(h, m.q)
    width = q_all.shape[-1] // m.heads
    outputs = []
    for head in range(m.heads):
        q = rope(layer_norm(q_all[..., head * width : (head + 1) * width], m.norm_q, False))
        logits = np.einsum("btd,bsd->bts", q, k) / math.sqrt(width)
        if bias is not None:
            logits = logits + bias[:, head].repeat(repeat, 1).repeat(repeat, 2)
        logits = cap * np.tanh(logits / cap)
        outputs.append(softmax(logits) @ v)
    return rms_batch_norm(linear(np.concatenate(outputs, -1), m.out), m.norm_out)


def pair_bias(pair, m):
    return np.moveaxis(linear(gelu_tanh(rms_batch_norm(pair, m.norm)), m.linear), -1, 1)


def sequence_to_pair(x, m, pool=16):
    pooled = np.moveaxis(mean_pool(np.moveaxis(x, 1, 2), pool), 1, 2)
    z = layer_norm(pooled, m.norm, True)
    batch, n, _ = z.shape
    heads, width = m.heads, m.key_dim
    q = linear(z, m.q).reshape(batch, n, heads, width)
    k = linear(z, m.k).reshape(batch, n, heads, width)
    q_bias, k_bias = array(m.q_bias), array(m.k_bias)
    w = np.arange(32) + np.geomspace(1, 481, 32, endpoint=False)

    def e(r):
        near = (w > abs(r)).astype(float)
        return linear(np.concatenate([near, np.sign(r) * near]), m.position).reshape(heads, width)

    a = np.zeros((batch, n, n, heads))
    for i in range(n):
        for j in range(n):
            by_row = ((q[:, i] + q_bias) * e(j - i)).sum(-1)
            by_column = ((k[:, j] + k_bias) * e(i - j)).sum(-1)
            a[:, i, j] = (q[:, i] * k[:, j]).sum(-1) + 0.5 * (by_row + by_column)
    g = gelu_tanh(z)
    return linear(a, m.out) + linear(g, m.row)[:, :, None] + linear(g, m.column)[:, None]


def row_attention(pair, m):
    h = layer_norm(pair, m.norm, True)
    q, k, v = linear(h, m.q), linear(h, m.k), linear(h, m.v)
    y = np.empty_like(v)
    for row in range(pair.shape[1]):
        logits = q[:, row] @ np.swapaxes(k[:, row], 1, 2) / math.sqrt(q.shape[-1])
        y[:, row] = softmax(logits) @ v[:, row]
    return y


def pair_mlp(pair, m):
    return linear(np.maximum(linear(layer_norm(pair, m.norm, True), m.up), 0), m.down)
