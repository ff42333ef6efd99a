"""Interchange with peft, judged by peft itself: what it loads of ours, and what we load of its own, gives the same."""

import copy
import json
import re

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

import agblocks
from agblocks._torchvision import mend
from agblocks.adapters import adapt, export_peft, import_peft
from agblocks.adapters.errors import AdapterFileError, BaseMismatch, MergedStateError, UnsupportedModule
from agblocks.testing.adapter_trial import move

mend()
peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    """One of everything that peft can adapt, with names that its suffixes would confuse."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 6, padding_idx=0)
        self.q = nn.Linear(6, 6)
        self.block = nn.ModuleDict({"q": nn.Linear(6, 6, bias=False), "q1": nn.Linear(6, 8)})
        self.conv = nn.Conv1d(8, 10, 3, stride=2, padding=1)
        self.grouped = nn.Conv1d(10, 6, 3, padding="same", groups=2)
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        h = torch.tanh(self.q(self.embedding(x)))
        h = torch.tanh(self.block["q1"](torch.tanh(self.block["q"](h))))
        h = torch.tanh(self.grouped(torch.tanh(self.conv(h.transpose(1, 2)))))
        return self.last(h.transpose(1, 2))


def net():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().double().eval()


LETTERS = torch.randint(7, (2, 11), generator=torch.Generator().manual_seed(1))


def called(model, x=LETTERS):
    with torch.no_grad():
        return model(x)


def near(ours, theirs, bare):
    assert ours.dtype == theirs.dtype
    assert float((ours - theirs).norm() / ours.norm()) < 1e-10
    assert float((ours - bare).norm() / ours.norm()) > 1e-3  # something was adapted at all


def ours(specs, base=None, **options):
    made = adapt(net() if base is None else base, specs, **options)
    move(made)
    return made


def loaded(base, folder):
    """peft's own reading of a folder, without anything missing or left over."""
    model = peft.PeftModel.from_pretrained(base, folder)
    tensors = load_file(f"{folder}/adapter_model.safetensors")
    saved = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    assert saved.keys() == tensors.keys()
    assert all(torch.equal(saved[key], tensors[key]) for key in tensors)
    return model.eval()


ALL = "embedding+q+block.q+block.q1+conv+grouped"
EXPORTS = {
    "lora": [f"lora:glob={ALL},rank=2,alpha=3.0"],
    "lora, rslora": [f"lora:glob={ALL},rank=2,rslora=true"],
    "lora, some rslora": ["lora:glob=q,rank=2,rslora=true", "lora:glob=block.*,rank=2"],
    "lora, other ranks": ["lora:glob=q,rank=4,alpha=5.0", "lora:glob=block.q,rank=1", "locon:glob=conv,rank=3"],
    "lora, a name that ends another's": ["lora:glob=q,rank=4,alpha=5.0", "lora:glob=block.q,rank=4,alpha=7.0"],
    "lora, one of two": ["lora:glob=q,rank=4"],
    "lora, centred": ["lora:glob=q+conv+grouped,rank=2,center=true"],
    "lora, pissa": [f"lora:glob={ALL},rank=2,init=pissa"],
    "lora, pissa and rslora": ["lora:glob=q+conv+grouped,rank=2,init=pissa,rslora=true", "lora:glob=last,rank=1"],
    "dora": ["dora:glob=q+block.*+conv,rank=2"],
    "dora, rslora": ["dora:glob=q+block.*+conv,rank=2,rslora=true"],
    "dora, pissa": ["dora:glob=q+conv,rank=2,init=pissa"],
    "ia3": ["ia3:glob=q+block.q1"],
    "ia3 of both sides": ["ia3:glob=q", "ia3_ff:glob=block.q+last"],
}


@pytest.mark.parametrize("name", EXPORTS)
def test_peft_loads_what_is_exported(name, tmp_path):
    made = ours(EXPORTS[name])
    assert export_peft(made, tmp_path / "folder") == tmp_path / "folder"
    theirs = loaded(net(), tmp_path / "folder")
    near(called(made), called(theirs), called(net()))
    adapted = {n for n, m in theirs.base_model.model.named_modules() if hasattr(m, "base_layer")}
    assert adapted == {site for sites in made.bank.names["default"].sites for site in sites}
    back = import_peft(net(), tmp_path / "folder")  # and our own reading of it
    near(called(made), called(back), called(net()))


LORA = {"r": 2, "lora_alpha": 3}
IMPORTS = {
    "lora": peft.LoraConfig(target_modules=["q", "q1", "conv", "embedding"], **LORA),
    "lora by a pattern": peft.LoraConfig(target_modules=r"block\..*", lora_dropout=0.1, **LORA),
    "rslora, patterns of ends": peft.LoraConfig(
        target_modules=["q", "q1", "conv", "last"], use_rslora=True, rank_pattern={"q": 3, "block.q1": 4},
        alpha_pattern={"^q": 5, "conv": 7.5}, **LORA),
    "lora, gaussian": peft.LoraConfig(target_modules=["q"], init_lora_weights="gaussian", **LORA),
    "dora": peft.LoraConfig(target_modules=["q", "q1", "conv"], use_dora=True, **LORA),
    "ia3": peft.IA3Config(target_modules=["q", "q1", "last"], feedforward_modules=["last", "q1"]),
    "ia3 by patterns": peft.IA3Config(target_modules=r"q|block\.q1|last", feedforward_modules=r"q|last"),
}  # fmt: skip


def trained(config, base):
    model = peft.get_peft_model(base, config).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name or "ia3_" in name:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


@pytest.mark.parametrize("name", IMPORTS)
def test_what_peft_saved_is_imported(name, tmp_path):
    theirs = trained(copy.deepcopy(IMPORTS[name]), net())
    theirs.save_pretrained(tmp_path)
    base = net()
    made = import_peft(base, tmp_path, name="theirs")
    near(called(made), called(theirs), called(net()))
    merged = made.merged()
    near(called(merged), called(theirs), called(net()))
    export_peft(made, tmp_path / "again", "theirs")
    near(called(loaded(net(), tmp_path / "again")), called(theirs), called(net()))
    made.detach()
    assert torch.equal(called(base), called(net())) and all(p.requires_grad for p in base.parameters())


def test_gradients_are_those_of_peft(tmp_path):
    """The exported adapter trains on as it would here, DoRA's detached lengths too."""
    for kind in ("lora", "dora"):
        made = ours([f"{kind}:glob=q+conv,rank=2"])
        export_peft(made, tmp_path / kind)
        theirs = peft.PeftModel.from_pretrained(net(), tmp_path / kind, is_trainable=True).eval()
        made(LETTERS).square().sum().backward()
        theirs(LETTERS).square().sum().backward()
        for adapter in made.bank.adapters("default"):
            other = theirs.base_model.model.get_submodule(adapter.path)
            for mine, them in ((adapter.A, other.lora_A), (adapter.B, other.lora_B)):
                wanted = them["default"].weight.grad
                assert torch.allclose(mine.grad, wanted.view(mine.shape), rtol=1e-9, atol=1e-12)


@pytest.fixture(scope="module")
def tiny():
    return agblocks.build("alphagenome_small", seed=0).double().eval()


DNA = nn.functional.one_hot(torch.arange(2048) % 4, 4).T[None].double()


@pytest.mark.parametrize("spec", ["lora:role=attn.q+attn.v+mlp.down,rank=2", "dora:role=attn.out,rank=2",
                                  "ia3:role=attn.k+attn.v"])  # fmt: skip
def test_a_recipe_in_both_directions(tiny, spec, tmp_path):
    made = ours([spec], copy.deepcopy(tiny))
    export_peft(made, tmp_path)
    theirs, back = loaded(copy.deepcopy(tiny), tmp_path), import_peft(copy.deepcopy(tiny), tmp_path)
    with torch.no_grad():
        asked = {"dna": DNA, "organism": torch.tensor([0]), "outputs": ["tower"]}
        bare, one, other, third = (m(**asked)["tower"] for m in (tiny, made, theirs, back))
    near(one, other, bare)
    near(one, third, bare)
    sites = {n for n, m in theirs.base_model.model.named_modules() if hasattr(m, "base_layer")}
    assert sites == {site for each in made.bank.names["default"].sites for site in each}


def test_half_of_a_lora_is_a_smaller_alpha(tmp_path):
    made = ours(["lora:glob=q,rank=2", "lora:glob=conv,rank=4,rslora=true"])
    made.bank.weigh("default", 0.5)
    export_peft(made, tmp_path)
    near(called(made), called(loaded(net(), tmp_path)), called(net()))


def test_beside_another_name(tmp_path):
    made = ours(["lora:glob=q,rank=2"])
    export_peft(made, tmp_path)
    both = ours(["ia3:glob=last"])
    assert import_peft(both, tmp_path, name="theirs") is both and list(both.bank.names) == ["default", "theirs"]
    export_peft(both, tmp_path / "again", "theirs")
    assert (tmp_path / "again" / "adapter_model.safetensors").read_bytes() == (
        tmp_path / "adapter_model.safetensors").read_bytes()  # fmt: skip


@settings(max_examples=25, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    groups=st.integers(1, 3), each=st.integers(1, 3), outs=st.integers(1, 3), kernel=st.integers(1, 4),
    stride=st.integers(1, 3), padding=st.integers(0, 2), per_group=st.integers(1, 2), alpha=st.floats(0.1, 9.0),
    rslora=st.booleans(), pissa=st.booleans(),
)  # fmt: skip
def test_any_convolution(
    tmp_path_factory, groups, each, outs, kernel, stride, padding, per_group, alpha, rslora, pissa
):
    if per_group > min(outs, each * kernel):
        return
    torch.manual_seed(0)
    base = nn.Sequential(nn.Conv1d(groups * each, groups * outs, kernel, stride, padding, groups=groups)).double()
    spec = {"adapter": "lora", "glob": ["0"], "rank": groups * per_group, "alpha": alpha, "rslora": rslora}
    made = ours([{**spec, "init": "pissa" if pissa else "kaiming"}], copy.deepcopy(base))
    folder = tmp_path_factory.mktemp("conv")
    export_peft(made, folder)
    x = torch.randn(2, groups * each, 9, dtype=torch.float64)
    one, other = called(made, x), called(loaded(copy.deepcopy(base), folder), x)
    assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)
    if not pissa or 2 * per_group * groups <= min(groups * outs, groups * each * kernel):
        assert torch.allclose(one, called(import_peft(copy.deepcopy(base), folder), x), rtol=1e-10, atol=1e-12)


# What has no counterpart


class Awkward(nn.Module):
    def __init__(self):
        super().__init__()
        from agblocks.layers import StandardizedConv1d

        self.standardised = StandardizedConv1d(6, 6, 3)
        self.dilated = nn.Conv1d(6, 6, 3, dilation=2)
        self.circular = nn.Conv1d(6, 6, 3, padding=1, padding_mode="circular")
        self.grouped = nn.Conv1d(6, 6, 3, groups=2)
        self.norm = nn.LayerNorm(6)
        self.shared = nn.Linear(6, 6)
        self.again = self.shared
        self.short = nn.Embedding(6, 6, max_norm=1.0)
        self.plain = nn.Linear(6, 6)


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (["locon:glob=standardised"], "'locon' on 'standardised', a StandardizedConv1d"),
        (["lora:glob=dilated,rank=2"], "'dilated', a Conv1d, cannot be written in peft's layout: .*don't dilate"),
        (["lora:glob=circular,rank=2"], "'circular', .* pad with zeros"),
        (["dora:glob=grouped,rank=2"], "'grouped', .* no DoRA on convolutions in groups"),
        (["lora:glob=shared,rank=2"], "'shared', .* several names"),
        (["lora:glob=short,rank=2"], "'short', .* max_norm"),
        (["bitfit:glob=plain"], "'bitfit' on 'plain', a Linear, .* no such method; there are lora"),
        (["ia3:glob=norm"], "'ia3' on 'norm', .* linear maps alone"),
        (["lora:glob=plain,rank=2", "ia3:glob=plain"], "one method: lora on 'plain', ia3 on 'plain'"),
        (["lora:glob=plain,rank=2", "dora:glob=grouped,rank=2"], "groups"),
        (["lora:glob=grouped,rank=2", "locon:glob=grouped,rank=2"], "'lora' and 'locon' both sit on 'grouped'"),
        (["lora:glob=plain,rank=2", "locon:glob=grouped,rank=2,dropout=0.5"], "one dropout: 0.0 on 'plain', 0.5 on"),
    ],
)  # fmt: skip
def test_refused_by_name(specs, said, tmp_path):
    made = ours(specs, Awkward())
    with pytest.raises(UnsupportedModule, match=said):
        export_peft(made, tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


def test_refused_states(tmp_path):
    for train, said in (
        (["q"], r"'q' trained, and peft, .* would take 'block\.q' too"),
        (["conv", "last"], "an adapter sits inside, on 'conv'"),
    ):
        with pytest.raises(UnsupportedModule, match=said):
            export_peft(ours(["lora:glob=conv,rank=2"], train=train), tmp_path)
    with pytest.raises(UnsupportedModule, match="no adapter in it"):
        export_peft(adapt(net(), [], train=["last"]), tmp_path)
    normed = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
    with pytest.raises(UnsupportedModule, match=r"statistics like '1\.num_batches_tracked' moved"):
        export_peft(adapt(normed, ["lora:glob=0,rank=2"], norms="track"), tmp_path)
    for kind in ("dora", "ia3"):
        made = ours([f"{kind}:glob=q"] if kind == "ia3" else ["dora:glob=q,rank=2"])
        made.bank.weigh("default", 0.5)
        with pytest.raises(UnsupportedModule, match=r"goes 0\.5 of its way"):
            export_peft(made, tmp_path)
    made = ours(["lora:glob=q,rank=2"])
    made.bank.merge_()
    with pytest.raises(MergedStateError):
        export_peft(made, tmp_path)


def test_heads_that_train_are_kept_whole(tmp_path):
    made = ours(["lora:glob=q,rank=2"], train=["last", "conv"])
    with torch.no_grad():
        made.base.last.weight.add_(1)
        made.base.conv.bias.add_(1)
    export_peft(made, tmp_path)
    theirs, back = loaded(net(), tmp_path), import_peft(net(), tmp_path)
    near(called(made), called(theirs), called(net()))
    assert torch.equal(called(made), called(back))
    assert {n: p.requires_grad for n, p in made.named_parameters()} == {
        n: p.requires_grad for n, p in back.named_parameters()
    }
    with pytest.raises(BaseMismatch, match="'conv.bias' is trained with adapter 'default' here"):
        import_peft(made, tmp_path, name="again")


def test_modules_that_peft_saved(tmp_path):
    config = peft.LoraConfig(target_modules=["q"], modules_to_save=["last", "grouped"], **LORA)
    theirs = trained(config, net())
    with torch.no_grad():
        theirs.base_model.model.last.modules_to_save["default"].weight.add_(1)
    theirs.save_pretrained(tmp_path)
    near(called(import_peft(net(), tmp_path)), called(theirs), called(net()))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    for change, error, said in (
        ({"base_model.model.last.weight": torch.zeros(3, 6)}, BaseMismatch, r"'last\.weight' is \[3, 6\], this"),
        (
            {"base_model.model.last.weigth": torch.zeros(1)},
            AdapterFileError,
            "'last.weigth' has no counterpart; did you",
        ),
        ({"base_model.model.q.bias": torch.zeros(1)}, AdapterFileError, "'q.bias' has no counterpart"),
    ):
        save_file({**tensors, **change}, tmp_path / "adapter_model.safetensors")
        fails(tmp_path, error, said)
    del tensors["base_model.model.last.bias"]
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    fails(tmp_path, AdapterFileError, "'last.bias' is not in the file")


def test_a_head_of_a_recipe(tmp_path):
    def base():
        return agblocks.build("mpra_attention", seed=0).double().eval()

    made = ours(["lora:role=attn.q+attn.v,rank=2"], base(), train=["activity"])
    made.train()(dna=DNA[:, :, :512].repeat(3, 1, 1))  # moves the head's statistics
    with torch.no_grad():
        made.eval().base.activity.layers[0].weight.add_(0.1)
    export_peft(made, tmp_path)
    x = DNA[:, :, :512]
    with torch.no_grad():
        one, other, bare = (m(dna=x)["activity"] for m in (made, loaded(base(), tmp_path), base()))
    near(one, other, bare)
    assert torch.equal(one, import_peft(base(), tmp_path)(dna=x)["activity"].detach())


@pytest.fixture
def folder(tmp_path):
    return export_peft(ours(["lora:glob=q+grouped,rank=2"]), tmp_path / "folder")


def fails(folder, error, said):
    base = net()
    with pytest.raises(error) as caught:
        import_peft(base, folder)
    assert re.search(said, str(caught.value)), caught.value
    assert not any(m._forward_hooks for m in base.modules()) and all(p.requires_grad for p in base.parameters())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        ({"bias": "all"}, "bias is 'all'"),
        ({"init_lora_weights": "pissa"}, "path_initial_model_for_weight_conversion"),
        ({"modules_to_save": "last"}, "not of their form"),
        ({"modules_to_save": [1]}, "no text"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"lora_bias": True}, "lora_bias"),
        ({"something_new": 3}, "something_new is '3'"),
        ({"use_dora": True}, "has A, B; wanted A, B, m"),
        ({"r": 3}, r"A of \[2, .*\], where its config says rank 3"),
        ({"r": "2"}, "not of their form"),
        ({"lora_alpha": -1.0}, "alpha"),
        ({"rank_pattern": {"(": 2}}, "has its end at 1, where names"),
        ({"rank_pattern": {"(a+)+b": 2}}, r"has '\+b' at 4, where names"),
        ({"peft_type": "IA3"}, "has no counterpart"),
        ({"auto_mapping": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}, "nested"),
    ],
)
def test_configs_without_counterpart(folder, change, said):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    fails(folder, AdapterFileError, said)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda t: t.pop("base_model.model.q.lora_B.weight"), AdapterFileError, "'q' has A; wanted A, B"),
        (lambda t: t.update({"base_model.model.last.weight": torch.zeros(2, 6)}), AdapterFileError, "'base_model.model.last.weight' has no counterpart"),
        (lambda t: t.update({"q.lora_A.weight": torch.zeros(2, 6)}), AdapterFileError, "'q.lora_A.weight' has no counterpart"),
        (lambda t: [t.update({f"base_model.model.qq.lora_{k}.weight": torch.zeros(2, 2)}) for k in "AB"], BaseMismatch, "'qq'; did you mean q"),
        (lambda t: t.update({"base_model.model.q.lora_B.weight": torch.zeros(5, 2)}), BaseMismatch, r"'q' has B of \[5, 2\], this model's wants \[6, 2\]"),
        (lambda t: t["base_model.model.grouped.lora_A.weight"].fill_(1), UnsupportedModule, "reads across groups"),
        (lambda t: t.clear(), AdapterFileError, "no adapter in it"),
    ],
)  # fmt: skip
def test_tensors_without_counterpart(folder, change, error, said):
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    fails(folder, error, said)


def test_files_that_are_not_there(folder, tmp_path):
    fails(tmp_path, AdapterFileError, r"adapter_config\.json: cannot be read")
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    fails(folder, AdapterFileError, "is a pickle")
    (folder / "adapter_model.safetensors").write_bytes(b"nothing")
    fails(folder, AdapterFileError, "no safetensors file")
    (folder / "adapter_config.json").write_bytes(b"\xff")
    fails(folder, AdapterFileError, "no text")
    (folder / "adapter_config.json").write_bytes(b" " * 2**23)
    fails(folder, AdapterFileError, "which no config has")
