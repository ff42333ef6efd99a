"""Input blocks, crops, joins, MPRALegNet's stage, x-transformers' tower, timm's layers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import agblocks
from agblocks.blocks.conv import ConvBlock, Stem
from agblocks.blocks.convnext import ConvNextStage
from agblocks.blocks.crop import CenterCrop, SideCrop
from agblocks.blocks.input import ChannelOrder, ReverseFlag, Unknown
from agblocks.blocks.join import Add, Concat
from agblocks.blocks.legnet import LegNetStage
from agblocks.towers.transformer import Transformer


def one_hot(letters):
    return torch.stack(
        [F.one_hot(torch.tensor("ACGT".index(c)), 4) if c in "ACGT" else torch.zeros(4) for c in letters], -1
    )


def test_channel_order():
    x = one_hot("ACGTN")[None].float()
    y = ChannelOrder(order="AGCT")(x)
    assert torch.equal(y[0].argmax(0)[:4], torch.tensor([0, 2, 1, 3]))
    assert torch.equal(ChannelOrder(order="ACGT")(x), x)
    assert not ChannelOrder().state_dict()


def test_unknown_bases():
    x = one_hot("ANT")[None].float()
    assert torch.equal(Unknown()(x)[0], torch.tensor([[1, 0.25, 0], [0, 0.25, 0], [0, 0.25, 0], [0, 0.25, 1]]))
    half = torch.tensor([0.5, 0, 0, 0])[None, :, None]
    assert Unknown()(half).sum() == 1


def test_reverse_flag():
    x = one_hot("AC")[None].float().repeat(2, 1, 1)
    y = ReverseFlag()(x, torch.tensor([0, 1]))
    assert y.shape == (2, 5, 2)
    assert torch.equal(y[:, 4], torch.tensor([[0.0, 0.0], [1.0, 1.0]]))


def test_joins():
    x, y = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(Add()(x, y), x + y)
    assert torch.equal(Concat()(x, y)[:, 3:], y)


@pytest.mark.parametrize(("length", "target", "first"), [(11, 4, 3), (9, 8, 0), (4, 4, 0), (10, 4, 3)])
def test_crops(length, target, first):
    x = torch.arange(length)[None, None].float()
    y = CenterCrop(target_length=target)(x)
    assert y[0, 0].tolist() == list(range(first, first + target))
    if length > 4:
        assert SideCrop(crop=2)(x)[0, 0].tolist() == list(range(2, length - 2))


@pytest.mark.parametrize(("channels", "residual"), [(3, True), (6, True), (4, True), (6, False)])
def test_conv_block_residual(channels, residual):
    block = ConvBlock(4, channels=channels, kernel=3, residual=residual, norm="rms_batch").eval()
    x = torch.randn(2, 4, 9)
    h = block.conv(block.activation(block.norm(x)))
    if residual:
        same = min(4, channels)
        h = torch.cat((h[:, :same] + x[:, :same], h[:, same:]), 1)
    torch.testing.assert_close(block(x), h)


@pytest.mark.parametrize("norm", ["rms_batch", "batch", "layer", "rms", "none"])
def test_norms_by_name(norm):
    stem = Stem(4, channels=12, norm=norm)
    assert stem(torch.randn(3, 4, 8)).shape == (3, 12, 8)
    assert (stem.conv.bias is None) == (norm != "none")


def test_drop_path_is_timms_and_leaves_out_whole_examples():
    block = ConvBlock(4, residual=True, drop_path=0.5)
    assert type(block.drop_path).__module__.startswith("timm.")
    x = torch.randn(64, 4, 6)
    torch.manual_seed(0)
    same = (block(x) == x).flatten(1).all(1)
    assert 10 < same.sum() < 54
    assert not (block.eval()(x) == x).flatten(1).all(1).any()


def test_convnext_is_almost_the_identity_at_first():
    block = ConvNextStage(6)
    x = torch.randn(2, 6, 11)
    torch.testing.assert_close(block(x), x, atol=1e-4, rtol=0)
    assert not torch.equal(ConvNextStage(6, scale=0.0)(x), x)


def legnet(kernels, widths=(80, 96, 112, 128)):
    """MPRALegNet whole, as a recipe over our blocks."""
    stem, inner = kernels
    nodes = {
        "agct": {"block": "input.order", "in": "dna"},
        "encoder": {
            "block": "encoder.legnet",
            "in": "agct",
            "args": {"stem_kernel": stem, "kernel": inner, "channels": list(widths)},
        },
        "mapper": {
            "block": "conv.block",
            "in": "encoder",
            "args": {"channels": 256, "kernel": 1, "norm": "batch", "activation": "none"},
        },
    }
    head = {
        "block": "head.scalar",
        "in": "mapper",
        "args": {"hidden": [256], "norm": "none", "hidden_norm": "batch", "activation": "silu"},
    }
    return {"recipe": 1, "name": "legnet", "inputs": {"dna": "B 4 L"}, "nodes": nodes, "heads": {"activity": head}}


@pytest.mark.parametrize(("kernels", "wanted"), [((11, 9), 1_322_465), ((5, 3), 857_825)])
def test_legnet_has_the_published_number_of_parameters(kernels, wanted):
    model = agblocks.build(legnet(kernels), device="meta")
    assert sum(p.numel() for p in model.parameters()) == wanted


def test_legnet_lengths():
    model = agblocks.build(legnet((11, 9), (8, 8, 8, 8))).eval()
    found = model(dna=torch.randn(2, 4, 230), outputs=["encoder", "encoder.stage1", "encoder.stage4", "activity"])
    assert [v.shape[-1] for v in found.values()] == [14, 230, 28, 1]


def test_legnet_stage():
    """Against a second implementation in evaluation, from the facts."""
    torch.manual_seed(0)
    block = LegNetStage(4, channels=6, kernel=3, pool=2).double()
    for part in block.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    block.eval()
    x = torch.randn(2, 4, 11, dtype=torch.float64)

    def step(h, conv, norm, groups=1):
        h = F.conv1d(h, conv.weight, padding=conv.weight.shape[-1] // 2, groups=groups)
        h = (h - norm.running_mean[:, None]) / torch.sqrt(norm.running_var + 1e-5)[:, None]
        h = h * norm.weight[:, None] + norm.bias[:, None]
        return h * torch.sigmoid(h)

    p = torch.maximum(x[..., 0:10:2], x[..., 1:10:2])
    h = step(p, *block.expand[:2])
    h = step(h, *block.depthwise[:2], groups=16)
    gate = h.mean(-1) @ block.excite.down.weight.T + block.excite.down.bias
    gate = (gate * torch.sigmoid(gate)) @ block.excite.up.weight.T + block.excite.up.bias
    assert block.excite.down.weight.shape == (4, 16)
    h = step(h * torch.sigmoid(gate)[:, :, None], *block.reduce[:2])
    h = step(torch.cat((h, p), 1), *block.mix[:2])
    torch.testing.assert_close(block(x), h, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"cap": 5.0, "norm": "rms", "sandwich": True},
        {"one_kv_head": True, "gated": True, "activation": "silu", "qk_norm": True},
        {"positions": "none", "activation": "relu_squared", "flash": False},
    ],
)
def test_transformer(args):
    tower = Transformer(12, depth=2, heads=2, head_dim=32, **args).eval()
    x = torch.randn(2, 12, 9)
    assert tower(x).shape == x.shape
    torch.testing.assert_close(tower(x)[:1], tower(x[:1]), rtol=1e-4, atol=1e-5)
    assert tower(torch.randn(1, 12, 30)).shape == (1, 12, 30), "a second length"
    roles = {getattr(m, "role", None) for m in tower.modules()}
    assert {"attn.q", "attn.k", "attn.v", "attn.out", "mlp.up", "mlp.down", "block.attn", "block.mlp"} <= roles


def test_transformer_reads_positions():
    x = torch.randn(1, 12, 9)
    for positions in ("rotary", "none"):
        tower = Transformer(12, depth=1, heads=2, head_dim=32, positions=positions).eval()
        mirrored = torch.allclose(tower(x.flip(-1)).flip(-1), tower(x), atol=1e-5)
        assert mirrored == (positions == "none")


def test_transformer_draws_itself_anew():
    made = [Transformer(12, depth=1, heads=2, head_dim=32) for _ in range(2)]
    before = made[0].state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    for tower in made:
        for parameter in tower.parameters():
            parameter.data.fill_(float("nan"))
        torch.manual_seed(0)
        agblocks.reset_parameters(tower)
    after = [tower.state_dict() for tower in made]
    for name, tensor in before.items():
        assert torch.equal(after[0][name], after[1][name])
        assert torch.isfinite(after[0][name]).all()
        torch.testing.assert_close(after[0][name].float().std(), tensor.float().std(), rtol=0.2, atol=0.05)


def test_a_group_norm_sees_the_whole_length():
    """So only a block that says so offers it."""
    stage = LegNetStage(8, channels=8, norm="group").eval()
    x = torch.randn(1, 8, 40)
    y = x.clone()
    y[..., -1] += 1
    assert not torch.equal(stage(x)[..., 0], stage(y)[..., 0])
    assert stage.expand[1].num_groups == 4


def test_rotary_frequencies_are_not_rounded_with_the_model():
    tower = Transformer(12, depth=1, heads=2, head_dim=32).eval()
    x = torch.randn(1, 12, 600)
    wanted = tower(x)
    tower = tower.bfloat16()
    assert all(b.dtype == torch.float32 for name, b in tower.named_buffers() if name.endswith("inv_freq"))
    found = tower(x.bfloat16())
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0.1, atol=0.1)


def test_one_head_still_has_an_output_projection():
    tower = Transformer(12, depth=1, heads=1, head_dim=32).eval()
    assert tower(torch.randn(2, 12, 5)).shape == (2, 12, 5)
    assert sum(isinstance(m, nn.Linear) and getattr(m, "role", "") == "attn.out" for m in tower.modules()) == 1
