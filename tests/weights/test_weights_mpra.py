"""The MPRA nets under their published names: what a second implementation computes from the same state dict.

None is a package, so each is written out here over keys as published: functions of a state dict, from the formulas. A
table that took one tensor for another of the same shape (queries for keys, a branch for the other) would show.
"""

import pytest
import torch
import torch.nn.functional as F
from helpers import backwards

import agblocks
from agblocks.weights import load_weights

AGCT = [0, 2, 1, 3]


def batch_norm(s, name, x):
    shape = (1, -1) + (1,) * (x.dim() - 2)
    scale = s[f"{name}.weight"] / torch.sqrt(s[f"{name}.running_var"] + 1e-5)
    return (x - s[f"{name}.running_mean"].view(shape)) * scale.view(shape) + s[f"{name}.bias"].view(shape)


def conv(s, name, x, groups=1):
    kernel = s[f"{name}.weight"]
    return F.conv1d(x, kernel, s.get(f"{name}.bias"), padding=kernel.shape[-1] // 2, groups=groups)


def linear(s, name, x):
    return F.linear(x, s[f"{name}.weight"], s.get(f"{name}.bias"))


def conv_norm_silu(s, x, number, norm, groups=1):
    return F.silu(batch_norm(s, norm, conv(s, number, x, groups)))


def bottleneck(s, name, x, group):
    inner = len(s[f"{name}.0.weight"])
    x = conv_norm_silu(s, x, f"{name}.0", f"{name}.1")
    x = conv_norm_silu(s, x, f"{name}.3", f"{name}.4", inner // group)
    gate = linear(s, f"{name}.6.fc.2", F.silu(linear(s, f"{name}.6.fc.0", x.mean(-1))))
    x = x * torch.sigmoid(gate)[:, :, None]
    return conv_norm_silu(s, x, f"{name}.7", f"{name}.8")


def legnet(s, x):
    x = conv_norm_silu(s, x, "stem.block.0", "stem.block.1")
    for i in range(4):
        x = torch.cat([bottleneck(s, f"main.{i}.0.fn.block", x, 1), x], 1)
        x = F.max_pool1d(conv_norm_silu(s, x, f"main.{i}.1.block.0", f"main.{i}.1.block.1"), 2)
    x = conv(s, "mapper.block.1", batch_norm(s, "mapper.block.0", x)).mean(-1)
    return linear(s, "head.3", F.silu(batch_norm(s, "head.1", linear(s, "head.0", x))))


def branches(s, name, x):
    return torch.cat([F.relu(conv(s, f"{name}.conv_list.{i}.conv", x)) for i in (0, 1)], 1)


def lstm_step(s, x, way):
    """One direction, a position at a time; gates in torch's order: input, forget, cell, output."""
    hidden = len(s["core.lstm.weight_hh_l0"]) // 4
    h = c = x.new_zeros(len(x), hidden)
    found = []
    for place in range(x.shape[1]) if not way else reversed(range(x.shape[1])):
        gates = F.linear(x[:, place], s[f"core.lstm.weight_ih_l0{way}"], s[f"core.lstm.bias_ih_l0{way}"])
        gates = gates + F.linear(h, s[f"core.lstm.weight_hh_l0{way}"], s[f"core.lstm.bias_hh_l0{way}"])
        i, f, g, o = gates.chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        found.append(h)
    return torch.stack(found if not way else found[::-1], 1)


def rnn(s, x):
    x = branches(s, "first", x).transpose(1, 2)
    x = torch.cat([lstm_step(s, x, ""), lstm_step(s, x, "_reverse")], 2).transpose(1, 2)
    return final(s, branches(s, "core", x))


def cnn(s, x):
    x = branches(s, "first", x)
    for i in range(2):
        x = torch.cat([x, bottleneck(s, f"core.seqextractor.inv_res_blc{i}", x, 2)], 1)
        name = f"core.seqextractor.resize_blc{i}"
        x = conv_norm_silu(s, x, f"{name}.0", f"{name}.1")
    return final(s, x)


def layer_norm(s, name, x):
    return F.layer_norm(x, x.shape[-1:], s[f"{name}.weight"], s[f"{name}.bias"], 1e-6)


def feed_forward(s, name, x):
    value, gate = linear(s, f"{name}.linear1", layer_norm(s, f"{name}.layernorm", x)).chunk(2, -1)
    return linear(s, f"{name}.linear2", value * F.silu(gate))


def attn(s, x):
    x = conv_norm_silu(s, x, "first.block.0", "first.block.1").transpose(1, 2) + s["core.pos_embedding.weight"]
    for i in range(2):
        name = f"core.blocks.{i}"
        x = x + feed_forward(s, f"{name}.ff1", x) / 2
        normed = layer_norm(s, f"{name}.layernorm1", x)
        turned = normed.transpose(1, 2)
        turned = conv(s, f"{name}.conv.1", conv(s, f"{name}.conv.0", turned, turned.shape[1]))
        x = layer_norm(s, f"{name}.layernorm2", x + normed + F.relu(turned).transpose(1, 2))
        module = torch.nn.MultiheadAttention(x.shape[-1], 4, batch_first=True).double().eval()
        start = f"{name}.attn."
        module.load_state_dict({k.removeprefix(start): v for k, v in s.items() if k.startswith(start)})
        x = x + module(x, x, x, need_weights=False)[0]
        x = x + feed_forward(s, f"{name}.ff2", x) / 2
    return final(s, x.transpose(1, 2))


def final(s, x):
    return linear(s, "final.linear.0", conv(s, "final.mapper", x).mean(-1))


NETS = {
    "mpralegnet": (
        legnet,
        ["encoder.stem=6", "encoder.channels=[8, 8, 8, 8]", "mapper.channels=10", "activity.hidden=[8]"],
    ),
    "dream_rnn": (rnn, ["encoder.channels=8", "tower.hidden=4", "mixer.channels=8", "mapper.channels=6"]),
    "dream_cnn": (cnn, ["encoder.channels=8", "tower.channels=[8, 8]", "mapper.channels=6"]),
    "dream_attn": (attn, ["inputs.dna=B 4 40", "encoder.channels=8", "tower.depth=2", "tower.length=40"]),
}


@pytest.mark.parametrize("recipe", NETS)
def test_published_names_give_the_published_formulas(recipe):
    net, sizes = NETS[recipe]
    model = agblocks.build(recipe, *sizes, dtype=torch.float64)
    drawn, _ = backwards(model, "mpralegnet" if recipe == "mpralegnet" else "dream")
    state = {}
    for key, value in drawn.items():
        if value.dim() > 1:  # of unit gain
            value = (value - 1) * 12**0.5 / value[0].numel() ** 0.5
        elif key.endswith(("bias", "running_mean")):
            value = value - 1
        state[key] = value
    assert load_weights(model, state).left == []
    given = {key: value.double() for key, value in state.items()}
    generator = torch.Generator().manual_seed(1)
    dna = torch.rand(3, 4, 40, generator=generator, dtype=torch.float64)
    reverse = torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    x, inputs = dna[:, AGCT], {"dna": dna}
    if recipe != "mpralegnet":
        x = torch.cat([x, reverse[:, None, None].expand(-1, 1, 40)], 1)
        inputs["reverse"] = reverse
    found = model.eval()(**inputs)["activity"].detach()
    wanted = net(given, x)
    assert wanted.std() > 1e-4
    assert torch.allclose(found, wanted, rtol=1e-9, atol=1e-12)


def test_flashzoi_rows():
    """Queries of all heads, then keys, then values, in one matrix."""
    model = agblocks.build("flashzoi_small", seed=0)
    state, _ = backwards(model, "borzoi-pytorch")
    attention = model.get_submodule("tower.layer1.attention")
    queries, keys = len(attention.q.weight), len(attention.k.weight)
    assert queries == 2 * keys
    whole = torch.rand(queries + 2 * keys, attention.q.weight.shape[1])
    load_weights(model, {**state, "transformer.0.0.fn.1.mha.Wqkv.weight": whole})
    assert torch.equal(attention.q.weight, whole[:queries])
    assert torch.equal(attention.k.weight, whole[queries : queries + keys])
    assert torch.equal(attention.v.weight, whole[queries + keys :])
