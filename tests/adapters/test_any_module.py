"""Adapters on models of other libraries, as they are: timm, Hugging Face, x-transformers, torch's own."""

import os
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from agblocks._torchvision import mend
from agblocks.adapters import adapt
from agblocks.adapters.errors import NotMergeable, SiteNeverFired, UnsupportedModule

ROOT = Path(__file__).parents[2]


def outputs(model, probe):
    with torch.no_grad():
        out = model(**probe) if isinstance(probe, dict) else model(probe)
    return out if isinstance(out, torch.Tensor) else out[0]


def moved(adapted):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapted.bank.parameters():
            parameter.add_((torch.randn(parameter.shape, generator=generator) * 0.1).to(parameter))
    return adapted


def walk(model, specs, probe, sites, merges=True):
    """Keys, classes, tensors and flags as before; every site trains; merged equals hooked; ten rounds leave the bits."""
    model = model.double().eval()
    classes = [type(m) for m in model.modules()]
    tensors = {n: (id(t), t.requires_grad) for n, t in [*model.named_parameters(), *model.named_buffers()]}
    keys, bare = list(model.state_dict()), outputs(model, probe)
    for _ in range(10):
        adapted = adapt(model, specs, probe=probe)
        assert torch.equal(outputs(adapted, probe), bare)
        assert list(model.state_dict()) == keys and [type(m) for m in model.modules()] == classes
        assert adapted.detach() is model
    assert torch.equal(outputs(model, probe), bare)
    adapted = moved(adapt(model, specs, probe=probe))
    assert len({row["site"] for row in adapted.bank.report()}) == sites
    hooked = outputs(adapted, probe)
    assert not torch.allclose(hooked, bare)
    out = adapted(**probe) if isinstance(probe, dict) else adapted(probe)
    (out if isinstance(out, torch.Tensor) else out[0]).square().sum().backward()
    trained = [n for n, p in adapted.named_parameters() if p.grad is not None and bool(p.grad.abs().max() > 0)]
    assert set(trained) == {f"bank.{n}" for n, _ in adapted.bank.named_parameters()}
    if merges:
        merged = outputs(adapted.merged(), probe)
        assert float((merged - hooked).norm() / hooked.norm()) < 1e-10
    adapted.detach()
    assert {n: (id(t), t.requires_grad) for n, t in [*model.named_parameters(), *model.named_buffers()]} == tensors
    assert torch.equal(outputs(model, probe), bare)


def images(size):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_timm_vision_transformer():
    mend()
    import timm

    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=2, num_classes=5)
    specs = [
        "lora:glob=blocks.*.attn.qkv+blocks.*.attn.proj,rank=4,expect=4",
        "ia3:glob=blocks.*.mlp.fc2",
        "norm:glob=norm",
    ]
    walk(model, specs, images(32), 7)


def test_timm_convnext():
    mend()
    import timm

    torch.manual_seed(0)
    model = timm.create_model("convnext_atto", depths=(1, 1, 1, 1), num_classes=5)
    groups = [
        "locon:glob=stem.0+stages.*.downsample.1,rank=3",
        "lora:regex=.*mlp\\.fc[12],rank=4",
        "bitfit:type=LayerNorm2d",
    ]
    for stage in model.stages:
        stage.blocks[0].gamma.data.fill_(0.5)  # they begin near 0
    walk(model, groups, images(64), 21)


def test_hugging_face():
    mend()
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
                        max_position_embeddings=16)  # fmt: skip
    tokens = torch.randint(30, (2, 12), generator=torch.Generator().manual_seed(3))
    probe = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    specs = [
        "lora:glob=**.query+**.value,rank=4,expect=4",
        "lora:glob=embeddings.word_embeddings,rank=4",
        "ia3:glob=encoder.layer.*.output.dense",
        "dora:glob=encoder.layer.*.intermediate.dense,rank=4",
    ]
    walk(BertModel(config, add_pooling_layer=False), specs, probe, 9)


def test_x_transformers():
    from x_transformers import Encoder, TransformerWrapper

    torch.manual_seed(0)
    model = TransformerWrapper(num_tokens=7, max_seq_len=32, attn_layers=Encoder(dim=32, depth=2, heads=4))
    tokens = torch.randint(7, (2, 12), generator=torch.Generator().manual_seed(3))
    walk(model, ["lora:glob=**.to_q+**.to_v,rank=4,expect=4", "ia3:glob=**.to_out"], tokens, 6)


def test_torch_encoder_layer():
    """Its fast path in evaluation is left where there are hooks; its attention reads the weights itself."""
    torch.manual_seed(0)
    model = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2, enable_nested_tensor=False
    )
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    walk(model, ["lora:glob=layers.*.linear*,rank=4,expect=4", "bitfit:type=LayerNorm"], x, 8)
    with pytest.raises(SiteNeverFired, match=r"layers\.0\.self_attn\.out_proj.*nn\.MultiheadAttention"):
        adapt(model, "lora:glob=layers.*.self_attn.out_proj,rank=4", probe=x)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert all(p.requires_grad for p in model.parameters())


def test_torch_attention():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x)[0]

    torch.manual_seed(0)
    model = Attends().double().eval()
    x = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with pytest.raises(SiteNeverFired, match="out_proj"):
        adapt(model, "lora:type=Linear,rank=4", probe=x)
    bare = outputs(model, x)  # around it an adapter is right
    adapted = moved(adapt(model, "bitfit:glob=attention", probe=x))
    shift = next(adapted.bank.parameters()).detach()
    torch.testing.assert_close(outputs(adapted, x), bare + shift)


class Standardised(nn.Conv1d):
    """Pads and standardises by itself, as alphagenome-pytorch's does: its `padding` says 0."""

    def __init__(self, inputs, outputs, width):
        super().__init__(inputs, outputs, width)
        self.scale = nn.Parameter(torch.rand(outputs, 1, 1) + 0.5)

    def kernel(self):
        centred = self.weight - self.weight.mean((1, 2), keepdim=True)
        return self.scale * centred / centred.flatten(1).norm(dim=1)[:, None, None]

    def forward(self, x):
        left = (self.kernel_size[0] - 1) // 2
        x = nn.functional.pad(x, (left, self.kernel_size[0] - 1 - left))
        return nn.functional.conv1d(x, self.kernel(), self.bias)


class Telling(Standardised):
    def conv_geometry(self):
        left = (self.kernel_size[0] - 1) // 2
        return left, self.kernel_size[0] - 1 - left, 1, 1, 1

    def effective_weight(self):
        return self.kernel()


class Halved(nn.Linear):
    def forward(self, x):
        return super().forward(x) / 2


def test_modules_that_compute_otherwise():
    """By their class they are convolutions and linear maps; what their weight means is theirs to say."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for kind in ("lora", "locon", "dora"):
        with pytest.raises(UnsupportedModule, match="Standardised computes in a way of its own"):
            adapt(nn.Sequential(Standardised(6, 5, 4)), f"{kind}:glob=0,rank=2")
        model = nn.Sequential(Telling(6, 5, 4), nn.ReLU(), nn.Conv1d(5, 3, 1))
        walk(model, [f"{kind}:glob=0,rank=2", "bitfit:glob=0"], x, 1)
    linear = nn.Sequential(Halved(9, 5)).double()
    with pytest.raises(UnsupportedModule, match="Halved computes"):
        adapt(linear, "lora:glob=0,rank=2")
    adapted = moved(
        adapt(linear, "ia3:glob=0")
    )  # a factor of what it gives is right, folded into it is not known to be
    with pytest.raises(NotMergeable, match="Halved computes"):
        adapted.merged()


PORT = ROOT / ".peers" / "alphagenome_pytorch" / "bin" / "python"


@pytest.mark.slow
def test_alphagenome_pytorch_itself():
    """In an environment of its own; it needs pydantic and ruamel.yaml beside the port."""
    if (
        not PORT.exists()
        or subprocess.run([PORT, "-c", "import pydantic, ruamel.yaml"], capture_output=True).returncode
    ):
        pytest.skip("make peers")
    script = ROOT / "tools" / "fixtures" / "adapt_alphagenome_pytorch.py"
    done = subprocess.run(
        [PORT, script], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=script.parent
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.strip().endswith("all of it holds"), done.stdout
