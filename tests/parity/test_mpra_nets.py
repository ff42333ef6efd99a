"""The MPRA nets against a second implementation of each, written from their published formulas, in float64.

None of them is a package, so the other side is here: plain functions over a state dict, an equation at a time, with
loops where the models call a library's layer. Weights, running statistics and inputs are drawn at random; every edge
of a model is compared, then gradients of a scalar with respect to the input and to named weights.
"""

import pytest
import torch
import torch.nn.functional as F

import agblocks

PARAMETERS = {
    "mpralegnet": 1_322_465,
    "mpralegnet_example": 857_825,
    "dream_rnn": 4_203_393,
    "dream_cnn": 1_945_857,
    "dream_attn": 4_619_521,
    "deepstarr": 622_722,
}
PARTS = {
    "dream_rnn": {"encoder": 19_520, "tower": 1_643_520, "mixer": 4_101_440 - 1_643_520, "mapper": 82_176},
    "dream_cnn": {"encoder": 19_520, "tower": 1_909_440},
    "dream_attn": {"encoder": 9_472, "tower": 4 * 1_121_280 + 230 * 256},
}


# A second implementation


def silu(x):
    return x / (1 + torch.exp(-x))


def relu(x):
    return torch.where(x > 0, x, torch.zeros_like(x))


def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def pool(x):
    """Maximum of pairs; a last odd position is left out."""
    pairs = x.shape[-1] // 2
    return torch.maximum(x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2])


class Net:
    """A state dict read by the recipe's names. `edges` collects what each node hands on."""

    def __init__(self, state):
        self.of, self.edges = state, {}

    def conv(self, x, name, group=None):
        """Same length, zeros outside; `group` channels of each output's own (None: all)."""
        weight, bias = self.of[f"{name}.weight"], self.of.get(f"{name}.bias")
        width = weight.shape[-1]
        length, half = x.shape[-1], width // 2
        x = F.pad(x, (half, half))
        windows = torch.stack([x[..., i : i + length] for i in range(width)], 2)  # batch channels width length
        if group is None:
            made = torch.einsum("ock,bckl->bol", weight, windows)
        else:
            windows = windows.unflatten(1, (-1, group))
            made = torch.einsum("gock,bgckl->bgol", weight.unflatten(0, (-1, group)), windows).flatten(1, 2)
        return made if bias is None else made + bias[:, None]

    def norm(self, x, name, eps):
        """Batch norm by the kept statistics."""
        shape = (-1, *(1,) * (x.dim() - 2))
        parts = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (self.of[f"{name}.{part}"].reshape(shape) for part in parts)
        return (x - mean) / torch.sqrt(var + eps) * weight + bias

    def layer_norm(self, x, name, eps=1e-6):
        mean = x.mean(-1, keepdim=True)
        var = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(var + eps) * self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    def linear(self, x, name):
        made = torch.einsum("...i,oi->...o", x, self.of[f"{name}.weight"])
        bias = self.of.get(f"{name}.bias")
        return made if bias is None else made + bias

    def order(self, dna):
        """A C G T to A G C T."""
        self.edges["order"] = dna[:, [0, 2, 1, 3]]
        return self.edges["order"]

    def strand(self, x, reverse):
        flag = torch.stack([torch.full((x.shape[-1],), float(bit), dtype=x.dtype) for bit in reverse])
        self.edges["strand"] = torch.cat((x, flag[:, None]), 1)
        return self.edges["strand"]

    def legnet_stage(self, x, name, group, input_first):
        """Bottleneck beside its input, then the convolution that mixes both."""
        h = silu(self.norm(self.conv(x, f"{name}.expand.0"), f"{name}.expand.1", 1e-5))
        h = silu(self.norm(self.conv(h, f"{name}.depthwise.0", group), f"{name}.depthwise.1", 1e-5))
        squeezed = silu(self.linear(h.mean(-1), f"{name}.excite.down"))
        h = h * sigmoid(self.linear(squeezed, f"{name}.excite.up"))[:, :, None]
        h = silu(self.norm(self.conv(h, f"{name}.reduce.0"), f"{name}.reduce.1", 1e-5))
        both = torch.cat((x, h) if input_first else (h, x), 1)
        self.edges[name] = silu(self.norm(self.conv(both, f"{name}.mix.0"), f"{name}.mix.1", 1e-5))
        return self.edges[name]

    def branches(self, x, name):
        """BHI's two convolutions side by side, ReLU on each."""
        parts = []
        for width in (9, 15):
            parts.append(relu(self.conv(x, f"{name}.width{width}.conv")))
            self.edges[f"{name}.width{width}"] = parts[-1]
        self.edges[f"{name}.join15"] = torch.cat(parts, 1)
        return self.edges[f"{name}.join15"]

    def human_final(self, x):
        """Autosome's final layers for human data: pointwise convolution, mean, linear."""
        self.edges["mapper"] = self.conv(x, "mapper.conv")
        self.edges["activity"] = self.linear(self.edges["mapper"].mean(-1), "activity.layers.0")

    def lstm_direction(self, x, suffix):
        """States (batch, length, hidden) of one direction; gates in the order input, forget, cell, output."""
        w, u, b, c = (
            self.of[f"tower.lstm.{part}_l0{suffix}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        hidden = u.shape[1]
        h = cell = torch.zeros(x.shape[0], hidden, dtype=x.dtype)
        steps = range(x.shape[-1]) if not suffix else reversed(range(x.shape[-1]))
        states = {}
        for t in steps:
            gates = x[..., t] @ w.T + b + h @ u.T + c
            i, f, g, o = (gates[:, n * hidden : (n + 1) * hidden] for n in range(4))
            cell = sigmoid(f) * cell + sigmoid(i) * torch.tanh(g)
            h = sigmoid(o) * torch.tanh(cell)
            states[t] = h
        return torch.stack([states[t] for t in range(x.shape[-1])], 2)

    def feed_forward(self, x, name):
        value, gate = self.linear(self.layer_norm(x, f"{name}.norm"), f"{name}.up").tensor_split(2, -1)
        return self.linear(value * silu(gate), f"{name}.down")

    def attention(self, x, name, heads=4):
        """Each head by itself."""
        q, k, v = (self.linear(x, f"{name}.{part}") for part in "qkv")
        size, made = q.shape[-1] // heads, []
        for head in range(heads):
            mine = slice(head * size, (head + 1) * size)
            logits = torch.einsum("bid,bjd->bij", q[..., mine], k[..., mine]) / size**0.5
            weights = torch.exp(logits - logits.amax(-1, keepdim=True))
            made.append(weights / weights.sum(-1, keepdim=True) @ v[..., mine])
        return self.linear(torch.cat(made, -1), f"{name}.out")

    def conformer(self, x, name):
        x = x.transpose(1, 2)
        x = x + 0.5 * self.feed_forward(x, f"{name}.forward1")
        n = self.layer_norm(x, f"{name}.norm_conv")
        depthwise = self.conv(n.transpose(1, 2), f"{name}.depthwise", group=1)
        x = x + n + relu(self.conv(depthwise, f"{name}.pointwise")).transpose(1, 2)
        x = self.layer_norm(x, f"{name}.norm_attention")
        x = x + self.attention(x, f"{name}.attention")
        self.edges[name] = (x + 0.5 * self.feed_forward(x, f"{name}.forward2")).transpose(1, 2)
        return self.edges[name]


def mpralegnet(net, dna):
    x = silu(net.norm(net.conv(net.order(dna), "encoder.stem.conv"), "encoder.stem.norm", 1e-5))
    net.edges["encoder.stem"] = x
    for stage in range(1, 5):
        x = pool(net.legnet_stage(x, f"encoder.stage{stage}", group=1, input_first=False))
    net.edges["encoder.pool"] = x
    net.edges["mapper"] = net.conv(net.norm(x, "mapper.norm", 1e-5), "mapper.conv")
    hidden = net.norm(net.linear(net.edges["mapper"].mean(-1), "activity.layers.0"), "activity.layers.1.norm", 1e-5)
    net.edges["activity"] = net.linear(silu(hidden), "activity.layers.3")


def dream_rnn(net, dna, reverse):
    x = net.branches(net.strand(net.order(dna), reverse), "encoder")
    net.edges["tower"] = torch.cat((net.lstm_direction(x, ""), net.lstm_direction(x, "_reverse")), 1)
    net.edges["mixer.drop"] = net.branches(net.edges["tower"], "mixer")
    net.human_final(net.edges["mixer.drop"])


def dream_cnn(net, dna, reverse):
    x = net.branches(net.strand(net.order(dna), reverse), "encoder")
    for stage in range(1, 4):
        x = net.legnet_stage(x, f"tower.stage{stage}", group=2, input_first=True)
    net.human_final(x)


def dream_attn(net, dna, reverse):
    x = net.strand(net.order(dna), reverse)
    net.edges["encoder"] = silu(net.norm(net.conv(x, "encoder.conv"), "encoder.norm", 1e-5))
    x = net.edges["tower.positions"] = net.edges["encoder"] + net.of["tower.positions.weight"].T
    for layer in (1, 2):
        x = net.conformer(x, f"tower.layer{layer}")
    net.human_final(x)


def deepstarr(net, dna):
    x = dna
    for stage in range(1, 4):
        x = relu(net.norm(net.conv(x, f"encoder.stage{stage}.conv"), f"encoder.stage{stage}.norm", 1e-3))
        net.edges[f"encoder.stage{stage}"] = x
        x = net.edges[f"encoder.pool{stage}"] = pool(x)
    x = net.edges["row"] = torch.stack([torch.cat([row[:, p] for p in range(row.shape[-1])]) for row in x])
    for dense in ("dense1", "dense2"):
        x = net.edges[dense] = relu(net.norm(net.linear(x, f"{dense}.linear"), f"{dense}.norm", 1e-3))
    for head in ("dev", "hk"):
        net.edges[head] = net.linear(x, f"{head}.linear")


NETS = {f.__name__: f for f in (mpralegnet, dream_rnn, dream_cnn, dream_attn, deepstarr)}
LENGTHS = {
    "mpralegnet": (16, 33, 45, 281),
    "dream_rnn": (1, 13, 30),
    "dream_cnn": (1, 13, 300),
    "dream_attn": (21,),
    "deepstarr": (39,),
}


# The comparison


def drawn(name, *overrides):
    """The small model in float64 and evaluation, with nothing left at 0 or 1."""
    generator = torch.Generator().manual_seed(1)
    model = agblocks.build(f"{name}_small", *overrides).double().eval()
    for key, tensor in model.state_dict().items():
        if key.endswith("running_var"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=torch.float64) + 0.5)
        elif tensor.is_floating_point():
            tensor.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.float64) * 0.4 + 0.1)
    return model


def inputs(model, length):
    generator = torch.Generator().manual_seed(length)
    letters = torch.randint(5, (3, length), generator=generator)  # 4 is N
    dna = F.one_hot(letters, 5)[..., :4].transpose(1, 2).double()
    dna = dna + 0.01 * torch.rand(dna.shape, generator=generator, dtype=torch.float64)  # so that no gradient is moot
    return {"dna": dna, **({"reverse": torch.tensor([0, 1, 1])} if "reverse" in model.resolved.inputs else {})}


def both(name, length):
    model = drawn(name)
    given = inputs(model, length)
    given["dna"].requires_grad_()
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    net = Net(state)
    NETS[name](net, **given)
    edges = [edge for node in model.resolved.nodes.values() for edge in node.outputs]
    return model, given, model(**given, outputs=edges), net.edges


@pytest.mark.parametrize(("name", "length"), [(name, length) for name in NETS for length in LENGTHS[name]])
def test_every_edge_is_what_the_formulas_give(name, length):
    _, _, ours, naive = both(name, length)
    assert set(ours) == set(naive)
    for edge, value in naive.items():
        torch.testing.assert_close(ours[edge], value, atol=1e-9, rtol=1e-9, msg=lambda m, e=edge: f"{e}: {m}")
        assert length == 1 or value.std() > 1e-6, f"{edge} says nothing"


@pytest.mark.parametrize("name", NETS)
def test_gradients_are_those_of_the_formulas(name):
    model, given, ours, naive = both(name, LENGTHS[name][-1])
    weights = dict(model.named_parameters())
    some = list(weights)[:: max(1, len(weights) // 24)]
    heads = list(model.resolved.heads)
    asked = [given["dna"], *(weights[key] for key in some)]
    one, two = (
        torch.autograd.grad(sum(torch.sin(edges[head]).sum() for head in heads), asked) for edges in (ours, naive)
    )
    assert len(some) >= 10
    for key, a, b in zip(["dna", *some], one, two, strict=True):
        assert (a - b).norm() <= 1e-9 * b.norm() + 1e-12, key
    assert sum(b.norm() > 1e-6 for b in two) >= 10


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("mpralegnet", "order.order=ACGT"),
        ("mpralegnet", "mapper.activation=silu"),
        ("mpralegnet", "activity.activation=relu"),
        ("mpralegnet", "encoder.stage2.input_first=true"),
        ("dream_rnn", "order.order=ACGT"),
        ("dream_rnn", "mixer.activation=gelu"),
        ("dream_cnn", "tower.stage1.input_first=false"),
        ("dream_cnn", "mapper.activation=relu"),
        ("dream_attn", "tower.heads=2"),
        ("dream_attn", "tower.layer1.eps=1e-5"),
        ("deepstarr", "encoder.eps=1e-5"),
        ("deepstarr", "dense1.eps=1e-5"),
    ],
)
def test_a_wrong_variant_shows(name, wrong):
    """With the same weights: what each of these settings changes, the comparison above would see."""
    length = LENGTHS[name][-1]
    right, other = drawn(name), drawn(name, wrong)
    other.load_state_dict(right.state_dict())
    given = inputs(right, length)
    one, two = right(**given), other(**given)
    assert any((one[head] - two[head]).abs().max() > 1e-7 for head in one)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_published(name):
    model = agblocks.build(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    for node, wanted in PARTS.get(name, {}).items():
        assert sum(p.numel() for key, p in model.named_parameters() if key.startswith(f"{node}.")) == wanted, node


@pytest.mark.parametrize("name", NETS)
def test_a_gradient_reaches_every_parameter(name):
    """But the keys' bias, which adds the same to all logits of a query: published, and never learnt."""
    model = drawn(name)
    made = model(**inputs(model, LENGTHS[name][-1]))
    sum(torch.sin(value).sum() for value in made.values()).backward()
    still = {key for key, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-13}
    assert still == {key for key, _ in model.named_parameters() if key.endswith("attention.k.bias")}


# What the papers say of initial values, and what a model is told of the strand


def test_initial_values_are_as_published():
    legnet = agblocks.build("mpralegnet", seed=0)
    mix = legnet.get_parameter("encoder.stage2.mix.0.weight")
    assert mix.std().item() == pytest.approx((2 / (9 * 96)) ** 0.5, rel=0.02)
    depthwise = legnet.get_parameter("encoder.stage4.depthwise.0.weight")
    assert depthwise.std().item() == pytest.approx((2 / (9 * 448)) ** 0.5, rel=0.05)
    assert legnet.get_parameter("activity.layers.0.weight").std().item() == pytest.approx(0.001, rel=0.02)
    assert legnet.get_parameter("encoder.stage1.excite.up.bias").abs().max() == 0

    starr = agblocks.build("deepstarr", seed=0)
    bound = (6 / (1800 + 256)) ** 0.5
    dense = starr.get_parameter("dense1.linear.weight")
    assert 0.99 * bound < dense.abs().max() <= bound
    assert starr.get_parameter("encoder.stage1.conv.bias").abs().max() == 0

    attention = agblocks.build("dream_attn", seed=0).get_submodule("tower.layer1.attention")
    reference = torch.nn.MultiheadAttention(256, 4)
    assert attention.q.weight.abs().max().item() == pytest.approx(reference.in_proj_weight.abs().max().item(), rel=0.01)
    assert attention.out.bias.abs().max() == 0


def test_a_channel_for_the_strand_is_one_node_more():
    model = agblocks.build(
        {
            "recipe": 1,
            "base": "mpralegnet",
            "inputs": {"reverse": "B"},
            "nodes": {"strand": {"block": "input.reverse", "in": {"x": "order", "reverse": "reverse"}}},
            "set": {"encoder.in": "strand"},
        },
        device="meta",
    )
    assert model.get_parameter("encoder.stem.conv.weight").shape == (64, 5, 11)


def test_a_length_bound_net_refuses_other_lengths():
    with pytest.raises(agblocks.RecipeError, match="length"):
        agblocks.resolve("dream_attn", "inputs.dna=B 4 200")
    with pytest.raises(agblocks.RecipeError, match="state the length of the recipe's input"):
        agblocks.resolve("deepstarr", "inputs.dna=B 4 L")
