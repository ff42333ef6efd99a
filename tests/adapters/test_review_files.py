"""Files, folders of peft and packed weights, as a reviewer broke them: each refused whole, or put right."""

import copy
import itertools
import json
import math
import os
import re
import subprocess
import sys
import textwrap

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, safe_open, save_file
from torch import func, nn

from agblocks.adapters import Average, adapt, export_peft, import_peft, load_adapter, quantize
from agblocks.adapters.errors import AdapterFileError, BaseMismatch
from agblocks.adapters.files.peft_patterns import Pattern
from agblocks.adapters.files.record import FORMAT, _sum, canonical, write
from agblocks.adapters.nf4.codes import NF4Error
from agblocks.adapters.nf4.tensor import NF4Tensor
from agblocks.testing.adapter_trial import move


def net(dtype=torch.float32, width=8):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)).to(dtype)


def flags(model):
    return {name: p.requires_grad for name, p in model.named_parameters()}


def untouched(base, fresh):
    """No hooks, no other values, no other flags."""
    return (
        not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())
        and flags(base) == flags(fresh)
        and all(torch.equal(v, fresh.state_dict()[k]) for k, v in base.state_dict().items())
    )


def adapted(base=None, **options):
    made = adapt(net() if base is None else base, ["lora:glob=0,rank=2"], train=["2"], **options)
    move(made)
    return made


# Values that are not finite

BAD = [math.nan, math.inf, -math.inf]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "adapter.safetensors"
    adapted().save(path)
    return path


def forged(file, change_tensors=lambda tensors: None, **said):
    """A file that somebody wrote who knows the format."""
    with safe_open(file, framework="pt") as opened:
        content = json.loads(opened.metadata()[FORMAT])
    content = {k: v for k, v in content.items() if k not in ("version", "tensors_sha256", "metadata_sha256")}
    tensors = load_file(file)
    change_tensors(tensors)
    write(file, tensors, content)
    with safe_open(file, framework="pt") as opened:
        content = {**json.loads(opened.metadata()[FORMAT]), **said}
    content["metadata_sha256"] = _sum(content)
    save_file(tensors, file, metadata={FORMAT: canonical(content)})


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("key", ["sites/0/lora/B", "extra/2.weight"])
def test_values_that_are_not_finite_are_not_loaded(file, key, bad):
    forged(file, lambda tensors: tensors[key][0, 0].fill_(bad))
    base = net()
    with pytest.raises(AdapterFileError, match=f"'{key}' holds values that are not finite"):
        load_adapter(base, file)
    assert untouched(base, net())


@pytest.mark.parametrize("key", ["sites/0/lora/B", "extra/2.weight"])
def test_values_beyond_the_type_of_the_base_are_not_loaded(tmp_path, key):
    file = tmp_path / "double.safetensors"
    adapted(net(torch.float64)).save(file)
    forged(file, lambda tensors: tensors[key][0, 0].fill_(1e300))
    base = net()
    with pytest.raises(AdapterFileError, match=f"'{key}' holds values in float64 beyond float32"):
        load_adapter(base, file, allow=["weights"])
    assert untouched(base, net())


def composed(kind, parts=(".",), **options):
    return {"kind": kind, "parts": list(parts) if isinstance(parts, tuple) else parts, "options": options}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"weight": 1e308}, "weight: "),
        ({"weight": -1e7}, "weight: "),
        ({"composition": composed("Stack", "." * 5000)}, "parts are a list"),
        ({"composition": composed("Stack", {".": 1})}, "parts are a list"),
        ({"composition": composed("Stack", (".",) * 1001)}, "parts are a list of at most 1,000"),
        ({"composition": composed("Stack", (".",) * 10**5)}, "a composition of 400,"),
        (
            {"composition": composed("Average", weights=[1e308], normalize=False)},
            "weights are numbers of at most 1,000,000",
        ),
        ({"composition": composed("Average", weights=["1"], normalize=True)}, "no composition"),
        ({"composition": composed("Average", weights=[1.0], normalize=5)}, "normalize is true or false"),
    ],
)
def test_compositions_and_weights_are_bounded(file, said, message):
    forged(file, **said)
    base = net()
    with pytest.raises(AdapterFileError, match=message):
        load_adapter(base, file)
    assert untouched(base, net())


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    made = adapted()
    made.bank.weigh("default", 1e7)
    with pytest.raises(AdapterFileError, match="cannot be saved: weight: "):
        made.save(tmp_path / "a.safetensors")
    made.bank.weigh("default", 1.0)
    made.bank.activate(Average("default", weights=[1e7], normalize=False))
    with pytest.raises(AdapterFileError, match="no composition that is kept in files: weights are numbers of at most"):
        made.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    made.bank.activate(Average("default", weights=[1e6], normalize=False))
    made.save(tmp_path / "a.safetensors")
    load_adapter(net(), tmp_path / "a.safetensors")


PREFIX = "base_model.model."


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("key", ["0.lora_B.weight", "2.weight"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        *[(lambda t, bad=bad: t * bad, "holds values that are not finite") for bad in BAD],
        (lambda t: torch.full_like(t, 1e300, dtype=torch.float64), "holds values in float64 beyond float32"),
        (lambda t: t.long(), "is int64, which is no kind of float32"),
        (lambda t: t.bool(), "is bool, which is no kind of float32"),
        (lambda t: t.to(torch.complex64), "is complex64, which is no kind of float32"),
    ],
)
def test_tensors_of_peft_are_finite_floating_numbers(tmp_path, key, change, said, beside):
    folder = export_peft(adapted(), tmp_path)
    tensors = load_file(folder / "adapter_model.safetensors")
    tensors[PREFIX + key] = change(tensors[PREFIX + key])
    save_file(tensors, folder / "adapter_model.safetensors")
    base, fresh = net(), net()
    model = adapt(base, ["ia3:glob=1"], name="other") if beside else base
    before = flags(model)
    with pytest.raises(AdapterFileError, match=said):
        import_peft(model, folder)
    assert flags(model) == before
    assert untouched(model.detach() if beside else base, fresh)


def test_finite_values_of_another_type_are_taken(tmp_path, file):
    made = adapted()
    folder, x = export_peft(made, tmp_path / "folder"), torch.randn(3, 8)
    assert torch.equal(import_peft(net(), folder)(x), made(x))
    wide = import_peft(net(torch.float64), folder)(x.double())
    torch.testing.assert_close(wide, made(x).double(), atol=1e-5, rtol=1e-5)
    wide = load_adapter(net(torch.float64), file, allow=["weights"])(x.double())
    torch.testing.assert_close(wide, made(x).double(), atol=1e-5, rtol=1e-5)


# peft's configs


def configured(folder, **said):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **said}))


HANGING = [".*" * 13 + "x", "[a-z]*" * 15 + "0x", ".{0,9}" * 14 + "x", "(.+)" * 14 + "x", "([^.]+|.)" * 20 + "x",
           "(a|a|b)(a|a)*", "(?=.*.*)x", r"(\w)\1", "a?" * 30, "(" * 9 + "a" + ")" * 9, "a" * 10**6, "a)", "a\nb"]  # fmt: skip


@pytest.mark.parametrize("text", HANGING, ids=range(len(HANGING)))
@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern", "feedforward_modules"])
def test_patterns_that_could_take_forever_are_refused(tmp_path, key, text):
    folder = export_peft(adapted(), tmp_path)
    configured(folder, **{key: text if key == "feedforward_modules" else {text: 2}})
    with pytest.raises(AdapterFileError, match="pattern"):
        import_peft(net(), folder)


@pytest.mark.parametrize(
    "text", ["(a|a|b)" * 40 + "x", ".*" * 10 + "x", r"\d+" * 10 + "x", "(.*)" * 10 + "x", "a*" * 10 + "x"]
)
def test_patterns_take_a_time_that_their_length_bounds(tmp_path, text):
    pattern = Pattern(tmp_path, text)
    for letter in "a0.":
        assert not pattern.whole(letter * 500) and not pattern.end(letter * 500)


_letters = st.sampled_from(["a", "b", "1", r"\.", ".", r"\d", "ab", r"\-"]).flatmap(
    lambda letter: st.sampled_from(["", "", "*", "+"]).map(lambda repeat: letter + repeat)
)
_texts = st.recursive(
    st.lists(_letters, max_size=3).map("".join),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda some: f"({'|'.join(some)})"),
        st.lists(inner, min_size=1, max_size=3).map("|".join),
        st.lists(inner, min_size=2, max_size=2).map("".join),
        inner.map(lambda text: f"^{text}"),
        inner.map(lambda text: f"(?:{text})$"),
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=300)
@given(_texts, st.lists(st.text("ab1.-", max_size=6), min_size=1, max_size=8))
def test_patterns_match_what_regular_expressions_match(text, names):
    assume(len(re.findall(r"[*+]", text)) <= 10)
    pattern = Pattern("here", text)
    for name in names:
        assert pattern.whole(name) == bool(re.fullmatch(text, name)), name
        assert pattern.end(name) == bool(re.match(rf"(.*\.)?({text})$", name)), name


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"modules_to_save": [""]}, "or empty"),
        ({"target_modules": 5}, "modules are not of their form"),
        ({"target_modules": [5]}, "no text"),
        ({"feedforward_modules": [""]}, "or empty"),
    ],
)
def test_modules_are_names(tmp_path, said, message):
    folder = export_peft(adapted(), tmp_path)
    configured(folder, **said)
    with pytest.raises(AdapterFileError, match=message):
        import_peft(net(), folder)


@pytest.mark.parametrize("call", range(1, 7))  # fsync of the two files, then of each again and its renaming
def test_a_folder_is_never_half_of_each(tmp_path, monkeypatch, call):
    """Weights of one adapter with the config of another would load, and compute something else."""
    old, new = adapted(), adapted()
    new.bank.weigh("default", 3.0)  # another alpha
    export_peft(old, tmp_path)
    (tmp_path / "README.md").write_text("kept")
    before, calls = {p.name: p.read_bytes() for p in tmp_path.iterdir()}, []

    def counted(what):
        def run(*args):
            calls.append(what)
            if len(calls) == call:
                raise OSError("the disk is full")
            return what(*args)

        return run

    with monkeypatch.context() as patched:
        for name in ("fsync", "replace"):
            patched.setattr(os, name, counted(getattr(os, name)))
        with pytest.raises(AdapterFileError, match="the disk is full"):
            export_peft(new, tmp_path)
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert after["README.md"] == b"kept" and not any(name.endswith(".part") for name in after)
    if call < 3:
        assert after == before
    else:
        with pytest.raises(AdapterFileError, match=r"adapter_config\.json: cannot be read"):
            import_peft(net(), tmp_path)
    export_peft(new, tmp_path)
    x = torch.randn(2, 8)
    torch.testing.assert_close(import_peft(net(), tmp_path)(x), new(x))


# Packed weights


def test_a_packed_weight_that_trained_is_not_saved(tmp_path):
    made = adapted(net(width=64))
    done = quantize(nn.Sequential(made.base[2]), ["0"])
    with pytest.raises(AdapterFileError, match=r"'2\.weight' trained with 'default' and is in NF4 by now"):
        made.save(tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())
    done.dequantize_()
    made.save(tmp_path / "a.safetensors")
    base = net(width=64)
    quantize(base, ["2"])
    with pytest.raises((AdapterFileError, BaseMismatch), match=r"'extra/2\.weight' belongs where a packed weight is"):
        load_adapter(base, tmp_path / "a.safetensors")


def test_packed_weights_are_shared_and_not_handed_out():
    """In a process of its own, which a null pointer would end."""
    code = """
        import numpy, pytest, torch
        from torch import nn
        from agblocks.adapters import quantize
        from agblocks.adapters.nf4.codes import NF4Error
        from safetensors.torch import save_model

        model, x = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64)), torch.randn(2, 64)
        quantize(model)
        wanted = model(x)
        assert not model[0].weight.is_shared()
        assert model.share_memory() is model and type(model[0].weight.data).__name__ == "NF4Tensor"
        assert model[0].weight.is_shared() and all(part.is_shared() for part in model[0].weight.packed)
        assert torch.equal(model(x), wanted)
        for read in (torch.from_dlpack, numpy.from_dlpack):
            with pytest.raises(NF4Error, match="no memory of its own shape"):
                read(model[0].weight)
        with pytest.raises(RuntimeError, match="data pointer"):
            torch.utils.dlpack.to_dlpack(model[0].weight)
        with pytest.raises(NF4Error, match="dequantize_"):
            save_model(model, "never.safetensors")
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_fsdp_leaves_packed_weights_whole_or_is_refused(tmp_path):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh, x = init_device_mesh("cpu", (1,)), torch.randn(2, 64)
        for ignore in (False, True):
            model = net(width=64)
            quantize(model, ["0", "1"])
            wanted = model(x)
            packed = {p for p in model.parameters() if isinstance(p, NF4Tensor)}
            if not ignore:
                with pytest.raises(NF4Error, match="cannot be sharded: .* ignored_params="):
                    fully_shard(model, mesh=mesh)
            else:
                fully_shard(model, mesh=mesh, ignored_params=packed)
                assert torch.equal(model(x), wanted)
                assert {p for p in model.parameters() if isinstance(p, NF4Tensor)} == packed
    finally:
        torch.distributed.destroy_process_group()
    assert [type(part) for part in NF4Tensor.of(torch.randn(6, 4)).chunk(2)] == [torch.Tensor] * 2


def orders(steps):
    """Every order of steps in which what undoes another comes after it."""
    after = {"dequantize": "quantize", "detach": "adapt", "inactive": "adapt"}
    for order in itertools.permutations(steps):
        if all(order.index(first) < order.index(last) for last, first in after.items() if last in order):
            yield order


@pytest.mark.parametrize("handed", ["adapted", "base", "around"])
@pytest.mark.parametrize("order", [*orders(["quantize", "adapt", "dequantize", "detach", "inactive"])], ids="-".join)
def test_flags_come_back_in_every_order(order, handed):
    base = net(width=64)
    base[0].weight.requires_grad_(False)
    base[1].bias.requires_grad_(False)
    around, wanted, made, done = nn.Sequential(base), flags(base), None, None
    for step in order:
        attached = made is not None and made.bank.names
        if step == "quantize":
            model = around if handed == "around" else made if handed == "adapted" and attached else base
            done = quantize(model)
            assert [name.removeprefix("0.") if handed == "around" else name for name in done.modules] == ["0", "1"]
        elif step == "adapt":
            made = adapt(base, ["lora:glob=1,rank=2"], train=["2"])
        elif step == "dequantize":
            done.dequantize_()
        elif step == "inactive":
            if attached:
                made.bank.activate()
        else:
            made.detach()
        if made is not None and made.bank.names:
            training = {name for name, flag in flags(base).items() if flag}
            assert training == ({"2.weight", "2.bias"} if made.bank.active else set())
    assert flags(base) == wanted


def test_weights_around_an_adapted_part_are_no_concern_of_its_adapters():
    base = net(width=64)
    around = nn.Sequential(base, nn.Linear(4, 64), nn.Linear(64, 64))
    base[2].weight.requires_grad_(False)
    wanted = flags(around)
    made = adapt(base, ["lora:glob=0,rank=2"])
    done = quantize(around)
    assert done.modules == ["0.0", "0.1", "2"]
    done.dequantize_()
    assert [name for name, flag in flags(around).items() if flag] == ["1.weight", "1.bias", "2.weight", "2.bias"]
    made.detach()
    assert flags(around) == wanted


def test_what_trains_stays_dense():
    made = adapted(net(width=64))
    done = quantize(made, ["1", "2"])
    assert done.modules == ["1"] and done.left == {"2": "it trains with adapter 'default'"}
    made.bank.activate("default")
    assert "2: dense, it trains with adapter 'default'" in done.report() and made.base[2].weight.requires_grad
    other = adapt(net(width=64), ["lora:glob=0,rank=2"], train=["1"])
    assert quantize(other).left["1"] == "it trains with adapter 'default'"
    assert quantize(other.detach()).modules == ["1"]


def test_packed_weights_cannot_be_opened():
    base = net(width=64)
    quantize(base)
    before = flags(base)
    with pytest.raises(NF4Error, match="frozen"):
        adapt(base, ["lora:glob=0,rank=2"], train=["1"])
    assert flags(base) == before and not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())


TRANSFORMS = {
    "vmap": lambda f, x: func.vmap(f)(x),
    "vmap of the last axis": lambda f, x: func.vmap(f, in_dims=2, out_dims=1)(x.movedim(0, 2)),
    "vmap of vmap": lambda f, x: func.vmap(func.vmap(f))(x[None]),
    "vmap of grad": lambda f, x: func.vmap(func.grad(lambda z: f(z).tanh().sum()))(x),
    "jvp": lambda f, x: func.jvp(f, (x[0],), (x[1],))[1],
    "jvp of grad": lambda f, x: func.jvp(func.grad(lambda z: f(z).tanh().sum()), (x[0],), (x[1],))[1],
    "jacrev": lambda f, x: func.jacrev(f)(x[0]),
    "jacfwd": lambda f, x: func.jacfwd(f)(x[0]),
    **{
        f"{outer.__name__} of {inner.__name__}": lambda f, x, o=outer, i=inner: o(i(lambda z: f(z).tanh().sum()))(x[0])
        for outer in (func.jacfwd, func.jacrev)
        for inner in (func.jacfwd, func.jacrev)
    },
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "error:.*batching rule")
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize(("make", "shape"), [
    (lambda: nn.Linear(6, 5), (3, 2, 6)),
    (lambda: nn.Conv1d(4, 6, 3, padding=1, groups=2), (3, 2, 4, 5)),
    (lambda: nn.Conv1d(4, 6, 3, bias=False), (3, 4, 5)),
])  # fmt: skip
def test_transforms_of_packed_maps_are_those_of_the_restored_ones(make, shape, name):
    torch.manual_seed(0)
    dense = make().double()
    packed = copy.deepcopy(dense)
    packed.weight = nn.Parameter(NF4Tensor.of(dense.weight), requires_grad=False)
    dense.weight = nn.Parameter(packed.weight.dequantize())
    x = torch.randn(shape, dtype=torch.float64)
    wanted = TRANSFORMS[name](dense, x)
    assert wanted.abs().max() > 0
    torch.testing.assert_close(TRANSFORMS[name](packed, x), wanted)
    if dense.bias is not None:
        some = torch.randn(4, *dense.bias.shape, dtype=torch.float64)
        ours, theirs = (
            func.vmap(lambda b, m=m: func.functional_call(m, {"bias": b}, (x[0],)))(some) for m in (packed, dense)
        )
        torch.testing.assert_close(ours, theirs)
