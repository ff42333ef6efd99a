"""AlphaGenome's blocks and composites against a second implementation written from the facts, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

import agblocks
from agblocks.layers import RMSBatchNorm

SMALL = {"channels": 6, "growth": 2, "stages": 4}


def recipe(nodes, heads, inputs=None):
    return {
        "recipe": 1,
        "name": "t",
        "inputs": inputs or {"dna": "B 4 L", "organism": "B"},
        "nodes": nodes,
        "heads": heads,
    }


def drawn(model):
    """In float64 and evaluation, with nothing left at 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.4 + 0.1
    for part in model.modules():
        if isinstance(part, RMSBatchNorm):
            part.mean_square.copy_(torch.rand(part.channels, generator=generator) + 0.5)
    return model


class State:
    """A state dict read by names, and AlphaGenome's layers over it."""

    def __init__(self, model):
        self.of = model.state_dict()

    def norm(self, x, name):
        column = (slice(None), *(None,) * (x.dim() - 2))
        weight, bias, second = (self.of[f"{name}.{part}"][column] for part in ("weight", "bias", "mean_square"))
        return x / torch.sqrt(second + 1e-5) * weight + bias

    def conv(self, x, name, width):
        weight, bias = self.of[f"{name}.weight"], self.of[f"{name}.bias"]
        if width > 1:
            fan_in = weight[0].numel()
            mean = weight.mean((1, 2), keepdim=True)
            variance = ((weight - mean) ** 2).mean((1, 2), keepdim=True)
            weight = (
                (weight - mean)
                * self.of[f"{name}.scale"][:, None, None]
                / torch.sqrt(torch.clamp(fan_in * variance, min=1e-4))
            )
        return F.conv1d(F.pad(x, (width // 2, width // 2)), weight, bias)

    def block(self, x, node, suffix, width):
        """ConvBlock: norm, GELU, convolution."""
        h = self.norm(x, f"{node}norm{suffix}")
        return self.conv(h * torch.sigmoid(1.702 * h), f"{node}conv{suffix}", width)


def pool(x):
    length = x.shape[-1]
    return torch.stack([x[..., i : i + 2].amax(-1) for i in range(0, length, 2)], -1)


def encode(state, dna, stages=4):
    x = F.conv1d(F.pad(dna, (7, 7)), state.of["encoder.stage1.conv1.weight"], state.of["encoder.stage1.conv1.bias"])
    x = x + state.block(x, "encoder.stage1.", "2", 5)
    skips = [x]
    for stage in range(2, stages + 1):
        x = pool(x)
        out = state.block(x, f"encoder.stage{stage}.", "1", 5)
        more = out.shape[1] - x.shape[1]
        out = out + torch.cat((x, torch.zeros(x.shape[0], more, x.shape[2], dtype=x.dtype)), 1)
        x = out + state.block(out, f"encoder.stage{stage}.", "2", 5)
        skips.append(x)
    return pool(x), skips


def decode(state, x, skips):
    for level, skip in enumerate(reversed(skips)):
        node = f"decoder.up{2 ** (len(skips) - 1 - level)}."
        wide = skip.shape[1]
        h = state.block(x, f"{node}main.", "", 5) + x[:, :wide]
        h = torch.repeat_interleave(h, 2, -1) * state.of[f"{node}main.scale"]
        h = h + state.block(skip, node, "_skip", 1)
        x = h + state.block(h, node, "_out", 5)
    return x


def dna(batch, length):
    letters = torch.randint(4, (batch, length), generator=torch.Generator().manual_seed(2))
    return F.one_hot(letters, 4).transpose(1, 2).double()


def unet(**args):
    nodes = {
        "encoder": {"block": "encoder.alphagenome", "in": "dna", "args": SMALL},
        "decoder": {"block": "decoder.unet", "in": {"x": "encoder", "skips": "encoder"}, "args": args},
    }
    return recipe(nodes, {"y": {"block": "head.scalar", "in": "decoder"}}, {"dna": "B 4 L"})


@pytest.mark.parametrize("length", [1, 2, 9, 37, 64])
def test_the_encoder(length):
    nodes = {"encoder": {"block": "encoder.alphagenome", "in": "dna", "args": SMALL}}
    model = drawn(agblocks.build(recipe(nodes, {"y": {"block": "head.scalar", "in": "encoder"}}, {"dna": "B 4 L"})))
    x = dna(2, length)
    names = [f"encoder.stage{i}" for i in range(1, 5)]
    found = model(dna=x, outputs=["encoder", *names])
    out, skips = encode(State(model), x)
    torch.testing.assert_close(found["encoder"], out, rtol=0, atol=1e-9)
    for name, skip in zip(names, skips, strict=True):
        torch.testing.assert_close(found[name], skip, rtol=0, atol=1e-9)
    assert out.shape == (2, 12, math.ceil(length / 16))


@pytest.mark.parametrize("length", [16, 48])
def test_the_decoder(length):
    model = drawn(agblocks.build(unet()))
    x = dna(2, length)
    out, skips = encode(State(model), x)
    wanted = decode(State(model), out, skips)
    torch.testing.assert_close(model(dna=x, outputs=["decoder"])["decoder"], wanted, rtol=1e-10, atol=1e-8)


def test_the_residual_scale_starts_at_one():
    model = agblocks.build(unet())
    assert model.state_dict()["decoder.up1.main.scale"] == 1


def test_the_output_embedders():
    nodes = {
        "coarse": {"block": "pool.mean", "in": "dna", "args": {"pool": 4}},
        "embed_4bp": {"block": "embed.track", "in": {"x": "coarse", "organism": "organism"}},
        "embed_1bp": {
            "block": "embed.track",
            "in": {"x": "dna", "organism": "organism", "coarse": "embed_4bp"},
            "args": {"factor": 4, "channels": 5},
        },
    }
    model = drawn(agblocks.build(recipe(nodes, {"y": {"block": "head.scalar", "in": "embed_1bp"}})))
    state, x, organism = State(model), dna(2, 12), torch.tensor([1, 0])

    def finished(h, node):
        h = state.norm(h, f"{node}.norm") + state.of[f"{node}.embedding.weight"][organism][:, :, None]
        return h * torch.sigmoid(1.702 * h)

    four = finished(state.conv(x.unflatten(-1, (3, 4)).mean(-1), "embed_4bp.project", 1), "embed_4bp")
    skip = torch.einsum("oc,bcl->bol", state.of["embed_1bp.project_coarse.weight"][..., 0], four)
    assert "embed_1bp.project_coarse.bias" not in state.of
    one = finished(state.conv(x, "embed_1bp.project", 1) + skip.repeat_interleave(4, -1), "embed_1bp")
    found = model(dna=x, organism=organism, outputs=["embed_4bp", "embed_1bp"])
    assert found["embed_4bp"].shape == (2, 8, 3)
    torch.testing.assert_close(found["embed_4bp"], four, rtol=0, atol=1e-9)
    torch.testing.assert_close(found["embed_1bp"], one, rtol=0, atol=1e-9)


def test_the_pair_embedder():
    from agblocks.blocks.embed import PairEmbedding

    block = drawn(PairEmbedding(6))
    x = torch.randn(2, 3, 3, 6, dtype=torch.float64)
    organism = torch.tensor([1, 0])
    h = (x + x.transpose(1, 2)) / 2
    h = h / torch.sqrt((h**2).mean(-1, keepdim=True) + 1e-5) * block.norm.weight + block.norm.bias
    h = h + block.embedding.weight[organism][:, None, None]
    torch.testing.assert_close(block(x, organism), h * torch.sigmoid(1.702 * h), rtol=0, atol=1e-9)


# The tower: its parts have numbers in tests/layers; here their order.

TOWER = {
    "depth": 3, "heads": 2, "key_dim": 4, "value_dim": 5,
    "pair_channels": 6, "pair_heads": 2, "pair_key_dim": 4, "pool": 4,
}  # fmt: skip


def tower(**args):
    return recipe(
        {"tower": {"block": "tower.alphagenome", "in": "dna", "args": {**TOWER, **args}}},
        {"y": {"block": "head.scalar", "in": "tower"}},
        {"dna": "B 4 L"},
    )


def test_the_tower_is_its_parts_in_the_published_order():
    model = drawn(agblocks.build(tower(), keep=["tower.pair"]))
    x = torch.randn(2, 4, 12, dtype=torch.float64)
    h, pair = x.transpose(1, 2), None
    for i in range(3):
        if i % 2 == 0:
            update = model.get_submodule(f"tower.pair{i // 2 + 1}")
            new = update.from_track(h)
            pair = new if pair is None else pair + new
            pair = pair + update.attention(pair)
            pair = pair + update.mlp(pair)
        layer = model.get_submodule(f"tower.layer{i + 1}")
        h = h + layer.attention(h, layer.bias(pair))
        m = layer.mlp
        hidden = torch.relu(m.up(m.norm(h)))
        h = h + m.norm_out(m.down(hidden))
    found = model(dna=x, outputs=["tower", "tower.pair"])
    torch.testing.assert_close(found["tower"], h.transpose(1, 2), rtol=0, atol=1e-9)
    torch.testing.assert_close(found["tower.pair"], pair, rtol=0, atol=1e-9)


def test_without_a_pair_map_there_is_no_bias_and_any_length():
    model = agblocks.build(tower(pair=False)).eval()
    names = [name for name, _ in model.named_parameters()]
    assert not any("pair" in name or ".bias.linear" in name for name in names)
    for length in (1, 7, 13):
        assert model(dna=torch.randn(2, 4, length), outputs=["tower"])["tower"].shape == (2, 4, length)


@pytest.mark.parametrize(("every", "updates"), [(1, 3), (2, 2), (3, 1)])
def test_pair_updates_come_every_so_many_layers(every, updates):
    resolved = agblocks.resolve(tower(every=every))
    assert sum(name.startswith("tower.pair") for name in resolved.nodes) == updates


# Totals of the published model


@pytest.fixture(scope="module")
def published():
    nodes = {
        "encoder": {"block": "encoder.alphagenome", "in": "dna"},
        "trunk": {"block": "embed.organism", "in": {"x": "encoder", "organism": "organism"}},
        "tower": {"block": "tower.alphagenome", "in": "trunk"},
        "decoder": {"block": "decoder.unet", "in": {"x": "tower", "skips": "encoder"}},
        "embed_128bp": {"block": "embed.track", "in": {"x": "tower", "organism": "organism"}},
        "embed_1bp": {"block": "embed.track", "in": {"x": "decoder", "organism": "organism", "coarse": "embed_128bp"}},
        "embed_pair": {"block": "embed.pair", "in": {"x": "tower.pair", "organism": "organism"}},
    }
    tracks = {"tracks": 768, "squash": True}
    heads = {
        "rna_1": {"block": "head.tracks", "in": {"x": "embed_1bp", "organism": "organism"}, "args": tracks},
        "rna_128": {"block": "head.tracks", "in": {"x": "embed_128bp", "organism": "organism"}, "args": tracks},
        "contacts": {"block": "head.contacts", "in": {"x": "embed_pair", "organism": "organism"}},
    }
    return agblocks.build(recipe(nodes, heads), device="meta")


def count(model, *prefixes):
    return sum(p.numel() for name, p in model.named_parameters() if name.startswith(prefixes))


@pytest.mark.parametrize(
    ("prefix", "wanted"),
    [
        ("encoder.", 89_972_992),
        ("encoder.stage1.", 2_999_040),
        ("encoder.stage2.", 7_461_632),
        ("encoder.stage7.", 22_621_952),
        ("trunk.", 3_072),
        ("tower.", 191_801_088),
        ("tower.pair1.", 13_373_568),
        ("tower.layer1.attention.", 4_432_256),
        ("tower.layer1.mlp.", 9_447_936),
        ("tower.layer1.bias.", 1_280),
        ("decoder.", 111_501_447),
        ("decoder.up64.", 25_969_153),
        ("decoder.up1.", 6_988_289),
        ("embed_128bp.", 4_733_952),
        ("embed_1bp.", 5_905_920),
        ("embed_pair.", 512),
        ("rna_", 7_084_032),
        ("contacts.", 7_224),
    ],
)
def test_parameters_of_the_published_model(published, prefix, wanted):
    assert count(published, prefix) == wanted


def test_parameters_of_the_published_trunk(published):
    trunk = ("encoder.", "trunk.", "tower.", "decoder.", "embed_")
    assert count(published, *trunk) == 403_918_983


# The decoder over other pyramids


def over_stack(stages, **args):
    nodes = {
        "encoder": {"block": "encoder.stack", "in": "dna", "args": {"stages": stages}},
        "decoder": {"block": "decoder.unet", "in": {"x": "encoder", "skips": "encoder"}, "args": args},
    }
    return recipe(nodes, {"y": {"block": "head.scalar", "in": "decoder"}}, {"dna": "B 4 L"})


STEM = {"block": "conv.stem", "args": {"channels": 6}}
POOL = {"block": "pool.max"}
LACKING = [STEM, {"block": "pool.max", "args": {"pool": 4}}, {"block": "conv.block", "args": {"channels": 8}}, POOL]


def test_a_missing_stride_is_refused():
    with pytest.raises(agblocks.RecipeError, match=r"'encoder' has no stage at stride 2; it has 1, 4, 8"):
        agblocks.resolve(over_stack(LACKING))


def test_or_is_a_level_without_skip():
    model = agblocks.build(over_stack(LACKING, missing="plain"))
    assert [n for n in model.resolved.nodes if n.startswith("decoder")] == ["decoder.up4", "decoder.up2", "decoder.up1"]
    assert model.resolved.nodes["decoder.up2"].entry.name == "conv.up_plain"
    assert model(dna=dna(2, 16).float(), outputs=["decoder"])["decoder"].shape == (2, 6, 16)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"to": 3}, "steps of 2 don't come to stride 3; 'to' may be 4, 2, 1"),
        ({"to": 16}, "steps of 2 don't come to stride 16; 'to' may be 4, 2, 1"),
        ({"factor": 1}, "steps of 1 don't come to stride 1; a larger factor would do"),
        ({"factor": 16}, "steps of 16 don't come to stride 1; a track of stride 16 would do"),
        ({"channels": [4], "missing": "plain"}, "lists 1 widths for 3 levels, of strides 4, 2, 1"),
    ],
)
def test_what_the_decoder_cannot_do_it_says(args, message):
    with pytest.raises(agblocks.RecipeError, match=message):
        agblocks.resolve(over_stack(LACKING, **args))


@pytest.mark.parametrize("to", [1, 2, 4])
def test_down_to_any_stride_with_any_width(to):
    levels = {1: [9, 7, 5], 2: [9, 7], 4: [9]}[to]
    stages = [STEM, {"block": "conv.down", "args": {"growth": 2}}, {"block": "conv.down", "args": {"growth": 2}}, POOL]
    model = agblocks.build(over_stack(stages, to=to, channels=levels))
    out = model(dna=dna(2, 32).float(), outputs=["decoder"])["decoder"]
    assert out.shape == (2, levels[-1], 32 // to)


def test_a_bad_stage_of_a_stack_is_located():
    with pytest.raises(agblocks.RecipeError, match=r"nodes\.encoder\.args\.stages\[1\].*'conv\.downn'") as raised:
        agblocks.resolve(over_stack([STEM, {"block": "conv.downn"}]))
    assert "conv.down" in str(raised.value)
