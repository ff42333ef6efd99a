"""Adapters as files: the same bits back, on the same base alone, from untouched files alone."""

import copy
import json
import re
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, safe_open, save_file
from torch import nn

import agblocks
from agblocks.adapters import AdapterSpec, Average, Stack, adapt, kinds, load_adapter
from agblocks.adapters.errors import (
    AdapterError,
    AdapterFileError,
    AlreadyAttached,
    BaseMismatch,
    CompiledModelError,
    MergedStateError,
    UnknownAdapter,
)
from agblocks.adapters.files.record import FORMAT, _sum, canonical, read_record
from agblocks.errors import AgblocksError
from agblocks.testing.adapter_trial import move, outputs, trials
from agblocks.testing.arguments import arguments

SPECS = ["lora:glob=0+2,rank=2", "ia3:glob=2"]


def model(seed=0, dtype=torch.float32):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    return made.to(dtype).eval()


def batch(dtype=torch.float32):
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(1)).to(dtype)


def adapted(specs=SPECS, base=None, **options):
    made = adapt(model() if base is None else base, specs, **options)
    move(made)
    return made


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "adapter.safetensors"
    adapted().save(path)
    return path


def flags(made):
    return {name: p.requires_grad for name, p in made.named_parameters()}


def modes(made):
    return [(name, m.training) for name, m in made.base.named_modules()]


def untouched(base):
    fresh = model().state_dict()
    return (
        not any(m._forward_hooks or m._forward_pre_hooks for m in base.modules())
        and all(p.requires_grad for p in base.parameters())
        and all(torch.equal(v, fresh[k]) for k, v in base.state_dict().items())
    )


def rewritten(path, change, tensors=None):
    """The file with other metadata, its sums made right again, as one who forges it would."""
    with safe_open(path, framework="pt") as opened:
        said = json.loads(opened.metadata()[FORMAT])
    change(said)
    said["metadata_sha256"] = _sum(said)
    save_file(load_file(path) if tensors is None else tensors, path, metadata={FORMAT: canonical(said)})


# Back again


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_kind_comes_back(kind, tmp_path):
    """Outputs, every tensor, flags, modes and the file itself, whatever was drawn before."""
    found = trials(kinds()[kind])
    for trial in (found[0], found[-1]):
        first, x = trial.moved(torch.float32), trial.place.input(torch.float32)
        path, again = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
        first.save(path, licence="CC0", note="for tests")
        state = torch.random.get_rng_state()
        second = load_adapter(trial.place.model(torch.float32), path)
        assert torch.equal(state, torch.random.get_rng_state())
        assert torch.equal(outputs(first, x), outputs(second, x))
        own, other = first.state_dict(), second.state_dict()
        assert list(own) == list(other) and all(torch.equal(v, other[k]) for k, v in own.items())
        assert flags(first) == flags(second) and modes(first) == modes(second)
        assert first.bank.names["default"].specs == second.bank.names["default"].specs
        second.save(again, note="for tests")
        assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("kind", sorted(kinds()))
def test_every_spec_survives_json(kind):
    """Every argument by its annotation, through the text that is in files."""

    @settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(arguments(kinds()[kind]))
    def survives(args):
        try:
            spec = AdapterSpec(kind, role=["attn.q"], layers="-2:", **args)
        except AgblocksError:  # the kind's own check of arguments that exclude each other
            assume(False)
        back = AdapterSpec.from_dict(json.loads(canonical(spec.to_dict())))
        assert back == spec and back.args == spec.args and back.target == spec.target
        assert set(back.to_dict()) == {"adapter", "role", "layers", *kinds()[kind].annotations}

    survives()


def test_tensors_have_the_keys_that_are_documented(tmp_path):
    made = adapted(train=["4"])
    made.save(tmp_path / "a.safetensors")
    assert set(load_file(tmp_path / "a.safetensors")) == {
        "sites/0/lora/A", "sites/0/lora/B", "sites/2/lora/A", "sites/2/lora/B", "sites/2/ia3/l",
        "extra/4.weight", "extra/4.bias",
    }  # fmt: skip


def test_what_is_shared_is_there_once(tmp_path):
    sharing = [k for k, v in kinds().items() if getattr(v.target, "common", None) is not None]
    seen = 0
    for kind in sharing:
        for trial in trials(kinds()[kind]):
            made = trial.moved(torch.float32)
            if made.bank.shared:
                made.save(tmp_path / "a.safetensors")
                keys = [key for key in load_file(tmp_path / "a.safetensors") if key.startswith("shared/0/")]
                assert len(keys) == len(next(iter(made.bank.shared.values())).state_dict())
                seen += 1
    assert seen or not sharing


def test_heads_and_norms_that_train_come_along(tmp_path):
    made = adapted(train=["3", "4"])
    made.train()
    made(batch()).sum().backward()
    assert made.base[3].num_batches_tracked == 1
    with torch.no_grad():
        made.base[4].weight.add_(1)
    made.eval()
    made.save(tmp_path / "a.safetensors")
    assert read_record(tmp_path / "a.safetensors").statistics == [
        "3.num_batches_tracked", "3.running_mean", "3.running_var"
    ]  # fmt: skip
    fresh = load_adapter(model(), tmp_path / "a.safetensors")
    assert torch.equal(outputs(made, batch()), outputs(fresh, batch())) and flags(made) == flags(fresh)
    assert fresh.bank.names["default"].train == ("3.weight", "3.bias", "4.weight", "4.bias")


def test_statistics_that_are_tracked_come_along(tmp_path):
    made = adapted(norms="track").train()
    made(batch())
    made.eval()
    made.save(tmp_path / "a.safetensors")
    base = model().train()
    fresh = load_adapter(base, tmp_path / "a.safetensors")
    assert fresh.norms == "track" and fresh.training and base[3].training
    assert torch.equal(outputs(made, batch()), outputs(fresh.eval(), batch()))
    still = adapted().train()
    still(batch())
    still.save(tmp_path / "b.safetensors")
    assert read_record(tmp_path / "b.safetensors").statistics == []


def test_a_norm_that_is_adapted_and_tracked_keeps_its_fingerprint(tmp_path):
    made = adapted(["norm:glob=3"], norms="track").train()
    made(batch())
    made.eval().save(tmp_path / "a.safetensors")
    assert torch.equal(outputs(made, batch()), outputs(load_adapter(model(), tmp_path / "a.safetensors"), batch()))


def test_modes_are_left_alone(file):
    base = model().train()
    base[0].eval()
    assert not load_adapter(model(), file).training
    made = load_adapter(base, file)
    assert made.training and not made.base[3].training  # frozen norms rest


def test_weights_and_what_trains(tmp_path):
    made = adapted()
    made.bank.weigh("default", 0.25)
    made.add("second", ["ia3:glob=0"])
    made.bank.train_only("second")
    made.save(tmp_path / "a.safetensors")
    made.bank.activate("default")
    fresh = load_adapter(model(), tmp_path / "a.safetensors")
    assert torch.equal(outputs(made, batch()), outputs(fresh, batch()))
    assert not any(flags(fresh).values())


def test_a_composition_of_the_name_alone(tmp_path):
    made = adapted()
    made.bank.activate(Stack(Average("default", weights=[0.5], normalize=False)))
    made.save(tmp_path / "a.safetensors")
    plain = outputs(adapted(), batch())
    fresh = load_adapter(model(), tmp_path / "a.safetensors", name="other")
    assert str(fresh.bank.active) == str(made.bank.active).replace("default", "other")
    assert torch.equal(outputs(made, batch()), outputs(fresh, batch()))
    assert not torch.allclose(plain, outputs(fresh, batch()))
    with_another = load_adapter(adapted(["bitfit:glob=4"]), tmp_path / "a.safetensors", name="other")
    assert [str(part) for part in with_another.bank.active.parts] == ["default", str(fresh.bank.active)]


def test_beside_others(tmp_path):
    made = adapted()
    made.add("second", ["bitfit:glob=0+4"])
    move(made, seed=5)
    for name in ("default", "second"):
        made.save(tmp_path / f"{name}.safetensors", name)
    fresh = load_adapter(model(), tmp_path / "default.safetensors")
    assert load_adapter(fresh, tmp_path / "second.safetensors") is fresh
    assert torch.equal(outputs(made, batch()), outputs(fresh, batch()))
    third = load_adapter(fresh, tmp_path / "second.safetensors", name="third")
    assert list(third.bank.names) == ["default", "second", "third"]
    with pytest.raises(AlreadyAttached, match="'second'"):
        load_adapter(fresh, tmp_path / "second.safetensors")


def test_what_another_adapter_trained_is_not_overwritten(tmp_path):
    made = adapted(train=["4"])
    made.save(tmp_path / "a.safetensors")
    before = copy.deepcopy(made.base.state_dict())
    with pytest.raises(BaseMismatch, match=r"'4\.bias', trained with adapter 'default' here, .*remove\('default'\)"):
        load_adapter(made, tmp_path / "a.safetensors", name="again")
    assert list(made.bank.names) == ["default"]
    assert all(torch.equal(v, before[k]) for k, v in made.base.state_dict().items())


def test_widths_that_a_probe_told_are_in_the_file(tmp_path):
    class Doubled(nn.Module):
        def forward(self, x):
            return torch.cat([x, x], -1)

    base = nn.Sequential(nn.Linear(6, 3), Doubled(), nn.Linear(6, 2))
    twin = copy.deepcopy(base)
    made = adapted(["bitfit:glob=1"], base, probe=batch())
    made.save(tmp_path / "a.safetensors")
    assert read_record(tmp_path / "a.safetensors").modules["1"].place == (3, 6, -1)
    assert torch.equal(outputs(made, batch()), outputs(load_adapter(twin, tmp_path / "a.safetensors"), batch()))


def test_licence_and_note(tmp_path):
    adapted().save(tmp_path / "a.safetensors", licence="weights: CC BY-NC", note="liver")
    record = read_record(tmp_path / "a.safetensors")
    assert (record.licence, record.note, record.torch) == ("weights: CC BY-NC", "liver", torch.__version__)
    load_adapter(model(), tmp_path / "a.safetensors").save(tmp_path / "b.safetensors")
    assert read_record(tmp_path / "b.safetensors").licence == "weights: CC BY-NC"


# Recipes


DNA = nn.functional.one_hot(torch.arange(512) % 4, 4).T[None].float()


@pytest.fixture(scope="module")
def small():
    return agblocks.build("alphagenome_small", seed=0)


@pytest.fixture(scope="module")
def encoder():
    """The encoder of `alphagenome_small` under an MPRA head, from stage 7 and from stage 5."""
    cut = {"recipe": 1, "name": "cut", "base": "alphagenome_small", "remove": ["heads.*"]}
    head = {"block": "head.scalar", "in": "encoder", "args": {"hidden": [8]}}
    return (
        agblocks.build({**cut, "heads": {"activity": head}}, seed=0),
        agblocks.build({**cut, "heads": {"activity": {**head, "in": "encoder.stage5"}}}, seed=0),
    )


ENCODER = [
    "locon:role=conv.main,glob=encoder.**,stages=2+4",
    "ia3:role=conv.main,stages=1:6",
    "norm:role=norm,glob=encoder.**",
]


def same_weights(model, other):
    state = other.state_dict()
    model.load_state_dict({name: state.get(name, value) for name, value in model.state_dict().items()})
    return model.eval()


def test_a_stage_keeps_its_adapter_in_a_cut_model(small, encoder, tmp_path):
    whole, cut = copy.deepcopy(small).eval(), same_weights(copy.deepcopy(encoder[0]), small)
    assert whole.resolved.digest != cut.resolved.digest
    made = adapted(ENCODER, whole)
    made.save(tmp_path / "a.safetensors")
    fresh = load_adapter(cut, tmp_path / "a.safetensors")
    with torch.no_grad():
        one, other = made(dna=DNA, outputs=["encoder"]), fresh(dna=DNA, outputs=["encoder"])
        bare = small.eval()(dna=DNA, outputs=["encoder"])
    assert torch.equal(one["encoder"], other["encoder"])
    assert not torch.allclose(one["encoder"], bare["encoder"])
    back = load_adapter(copy.deepcopy(small).eval(), tmp_path / "a.safetensors")
    assert back.bank.names["default"].sites == made.bank.names["default"].sites


def test_a_shorter_cut_takes_what_it_has(small, encoder, tmp_path):
    short = same_weights(copy.deepcopy(encoder[1]), small)
    some = adapted(["locon:role=conv.main,glob=encoder.**,stages=-7:6"], copy.deepcopy(small).eval())
    some.save(tmp_path / "some.safetensors")
    assert load_adapter(short, tmp_path / "some.safetensors").bank.count() == some.bank.count()
    adapted(["locon:role=conv.main,glob=encoder.**"], copy.deepcopy(small).eval()).save(tmp_path / "all.safetensors")
    short = same_weights(copy.deepcopy(encoder[1]), small)
    with pytest.raises(BaseMismatch, match=r"4 of its 14 modules are not in this model: 'encoder\.stage6\.conv1', "):
        load_adapter(short, tmp_path / "all.safetensors")


def test_another_recipe_of_the_same_shapes(tmp_path):
    base = agblocks.build("tiny", seed=0)
    adapted(["locon:role=conv.main,stages=3:"], base).save(tmp_path / "a.safetensors")
    other = same_weights(agblocks.build("tiny", "encoder.statistics=frozen", seed=1), base)
    with pytest.raises(BaseMismatch) as caught:
        load_adapter(other, tmp_path / "a.safetensors")
    assert "made on recipe 'tiny'" in str(caught.value) and "'encoder.stage3'" in str(caught.value)
    assert not any(m._forward_hooks for m in other.modules())
    assert load_adapter(other, tmp_path / "a.safetensors", allow=["recipe"]).bank.count() > 0
    head = same_weights(agblocks.build("tiny", "activity.loss=poisson", seed=1), base)
    assert load_adapter(head, tmp_path / "a.safetensors").bank.count() > 0  # what comes after does not matter


def test_a_head_that_trained_has_to_be_the_same(tmp_path):
    base = agblocks.build("tiny", seed=0)
    made = adapted(["locon:role=conv.main"], base, train=["activity"])
    made.save(tmp_path / "a.safetensors")
    assert "activity" in read_record(tmp_path / "a.safetensors").recipe.edges
    fresh = load_adapter(agblocks.build("tiny", seed=0).eval(), tmp_path / "a.safetensors")
    assert torch.equal(made.eval()(dna=DNA)["activity"], fresh(dna=DNA)["activity"])
    with pytest.raises(BaseMismatch, match="'activity'"):
        load_adapter(agblocks.build("tiny", "activity.pool_at=end", seed=0), tmp_path / "a.safetensors")
    with pytest.raises(BaseMismatch, match="parameters that this model has not: 'activity"):
        load_adapter(agblocks.build("tiny", "activity.hidden=[]", seed=0), tmp_path / "a.safetensors")


def test_with_and_without_a_recipe(tmp_path):
    base = agblocks.build("tiny", seed=0)
    bare = copy.deepcopy(base)
    adapted(["locon:role=conv.main"], base).save(tmp_path / "a.safetensors")
    bare.__dict__.pop("resolved", None)
    if hasattr(bare, "resolved"):
        object.__setattr__(bare, "resolved", None)
    with pytest.raises(BaseMismatch, match="made on recipe 'tiny'"):
        load_adapter(bare, tmp_path / "a.safetensors")


# Refusals: the base


def test_other_weights(file):
    base = model()
    with torch.no_grad():
        base[2].weight[0, 0] += 1e-6
    with pytest.raises(BaseMismatch, match=r"1 of its 2 modules have other weights than it was made on: '2'; allow"):
        load_adapter(base, file)
    assert torch.equal(load_adapter(base, file, allow=["weights"]).bank.state_dict()["sites.0.default:lora.B"],
                       load_file(file)["sites/0/lora/B"])  # fmt: skip
    with torch.no_grad():
        base = model()
        base[4].weight += 1  # not adapted
    assert load_adapter(base, file).bank.names


def test_another_type(file):
    with pytest.raises(BaseMismatch, match=r"\(bfloat16 here, float32 there\)"):
        load_adapter(model(dtype=torch.bfloat16), file)
    made = load_adapter(model(dtype=torch.bfloat16), file, allow="weights")
    assert outputs(made, batch(torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.__setitem__(2, nn.Linear(6, 7)), "'2' is a Linear (bias [7], weight [7, 6]), it was made on a "
                                                      "Linear (bias [6], weight [6, 6])"),
        (lambda m: m.__setitem__(2, nn.Linear(6, 6, bias=False)), "'2' is a Linear (weight [6, 6])"),
        (lambda m: m.__setitem__(2, nn.Bilinear(6, 6, 6)), "'2' is a Bilinear"),
        (lambda m: [m.pop(-1) for _ in range(3)], "1 of its 2 modules are not in this model: '2'"),
        (lambda m: m.append(nn.Linear(2, 2)), "other tensors around them"),
    ],
)  # fmt: skip
def test_another_structure(file, change, said):
    base = model()
    change(base)
    with pytest.raises(BaseMismatch) as caught:
        load_adapter(base, file)
    assert said in str(caught.value) and str(file) in str(caught.value)
    assert not any(m._forward_hooks for m in base.modules()) and all(p.requires_grad for p in base.parameters())


def test_other_surroundings_are_allowed_on_request(file):
    base = model()
    base[4] = nn.Linear(6, 9)
    with pytest.raises(BaseMismatch, match="recipe"):
        load_adapter(base, file)
    assert load_adapter(base, file, allow=["recipe"])(batch()).shape == (5, 9)
    with pytest.raises(AdapterError, match="not 'wieghts'"):
        load_adapter(base, file, allow=["wieghts"])


def test_the_meta_device(file, tmp_path):
    with torch.device("meta"):
        base = nn.Sequential(nn.Linear(6, 6))
    with pytest.raises(AdapterFileError, match="meta device"):
        adapt(base, ["lora:glob=0,rank=2"]).save(tmp_path / "a.safetensors")
    with pytest.raises(AdapterFileError, match="meta device"):
        load_adapter(model().to("meta"), file)


def test_quantised_bases(tmp_path):
    """A QLoRA file knows the packed weights it was made on, and says so where they are others or dense."""
    from agblocks.adapters.nf4.quantize import quantize

    def wide(seed=0, packed=True):
        torch.manual_seed(seed)
        base = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
        if packed:
            quantize(base)
        return base

    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    made = adapted(["lora:glob=0+2,rank=2"], wide())
    made.save(tmp_path / "a.safetensors")
    assert read_record(tmp_path / "a.safetensors").quantised == {"0.weight": "NF4Tensor", "2.weight": "NF4Tensor"}
    assert torch.equal(outputs(made, x), outputs(load_adapter(wide(), tmp_path / "a.safetensors"), x))
    with pytest.raises(BaseMismatch, match="2 of its 2 modules have other weights than"):
        load_adapter(wide(1), tmp_path / "a.safetensors")
    with pytest.raises(BaseMismatch, match=r"\(float32 here, NF4Tensor and float32 there\)"):
        load_adapter(wide(packed=False), tmp_path / "a.safetensors")
    assert load_adapter(wide(packed=False), tmp_path / "a.safetensors", allow=["weights"]).bank.count() == 512


def test_sharded_over_processes(tmp_path):
    """Under FSDP the file holds whole tensors, and is the same; a model that is sharded already is refused."""
    if not torch.distributed.is_available() or torch.distributed.is_initialized():
        pytest.skip("torch.distributed is not there, or in use")
    from torch.distributed.fsdp import fully_shard

    plain, made = adapted(), adapted()
    plain.save(tmp_path / "plain.safetensors")
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        mesh = torch.distributed.init_device_mesh("cpu", (1,))
        fully_shard(made, mesh=mesh)
        assert all(isinstance(p, torch.distributed.tensor.DTensor) for p in made.parameters())
        made.save(tmp_path / "sharded.safetensors")
        with pytest.raises(AdapterError, match="sharded already"):
            load_adapter(fully_shard(model(), mesh=mesh), tmp_path / "plain.safetensors")
    finally:
        torch.distributed.destroy_process_group()
    assert (tmp_path / "plain.safetensors").read_bytes() == (tmp_path / "sharded.safetensors").read_bytes()


def test_merged_compiled_unknown(file, tmp_path):
    made = adapted(["lora:glob=0,rank=2"])
    with pytest.raises(UnknownAdapter, match="'defualt'; did you mean default"):
        made.save(tmp_path / "a.safetensors", "defualt")
    made.bank.merge_()
    with pytest.raises(MergedStateError, match="save has to wait"):
        made.save(tmp_path / "a.safetensors")
    with pytest.raises(MergedStateError, match="attach has to wait"):
        load_adapter(made, file, name="other")
    assert not (tmp_path / "a.safetensors").exists()
    base = model()
    base.compile(backend="eager")
    with pytest.raises(CompiledModelError):
        load_adapter(base, file)
    assert untouched(base)


def test_what_is_not_finite_is_not_saved(file, tmp_path):
    made, before = adapted(), file.read_bytes()
    with torch.no_grad():
        next(iter(made.bank.parameters()))[0, 0] = float("nan")
    with pytest.raises(AdapterFileError, match="'sites/0/lora/A' holds values that are not finite"):
        made.save(file)
    assert file.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == [file.name]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(AdapterFileError, match=r"one file, run\.safetensors"):
        adapted().save(tmp_path / "run")
    with pytest.raises(AdapterFileError, match="cannot be written"):
        adapted().save(tmp_path / "nowhere" / "a.safetensors")


def test_a_failure_at_the_last_step_leaves_the_model(file, monkeypatch):
    """Hooks are registered one after the other; a failure on the way takes all of them off."""
    from agblocks.adapters.site import Site

    calls = []
    hook = Site.hook

    def fails(self, *args):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no")
        hook(self, *args)

    monkeypatch.setattr(Site, "hook", fails)
    base = model()
    with pytest.raises(RuntimeError, match="no"):
        load_adapter(base, file)
    assert untouched(base)


# Refusals: the file


def test_no_adapter_files(file, tmp_path):
    with pytest.raises(AdapterFileError, match="cannot be read"):
        load_adapter(model(), tmp_path / "nowhere.safetensors")
    with pytest.raises(AdapterFileError, match="is a folder"):
        load_adapter(model(), tmp_path)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"format": "pt"})
    with pytest.raises(AdapterFileError, match=r"no adapter of agblocks: its metadata hold format, not"):
        load_adapter(model(), tmp_path / "x.safetensors")
    save_file({"base_model.model.0.lora_A.weight": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(AdapterFileError, match="import_peft"):
        load_adapter(model(), tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes(b"PK\x03\x04 a pickle, perhaps")
    with pytest.raises(AdapterFileError, match="no safetensors file"):
        load_adapter(model(), tmp_path / "x.safetensors")


def test_every_cut_is_noticed(file):
    whole, base = file.read_bytes(), model()
    for length in (0, 7, 8, 100, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(AdapterFileError):
            load_adapter(base, file)
    file.write_bytes(whole + b"\0")
    with pytest.raises(AdapterFileError):
        load_adapter(base, file)
    assert untouched(base)


def test_every_changed_byte_is_noticed(file):
    whole, base = file.read_bytes(), model()

    @settings(max_examples=150, deadline=None, database=None)
    @given(st.integers(0, len(whole) - 1), st.integers(1, 255))
    def noticed(at, change):
        other = bytearray(whole)
        other[at] ^= change
        file.write_bytes(other)
        with pytest.raises((AdapterFileError, BaseMismatch)):
            load_adapter(base, file)

    noticed()
    assert untouched(base)


def test_tampered_tensors(file):
    tensors = load_file(file)
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors["sites/2/ia3/l"][0] += 1
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(AdapterFileError, match="its tensors are not what was written"):
        load_adapter(model(), file)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("sites/0/lora/B"), "'sites/0/lora/B' is missing"),
        (lambda t: t.update({"sites/0/lora/C": torch.zeros(1)}), "'sites/0/lora/C' is unknown"),
        (lambda t: t.update({"extra/4.weight": torch.zeros(2, 6)}), "'extra/4.weight' is unknown"),
        (lambda t: t.update({"sites/2/ia3/l": torch.zeros(7)}), "'sites/2/ia3/l' is [7], wanted [6]"),
        (lambda t: t.update({"sites/2/ia3/l": torch.zeros(6).half()}), "'sites/2/ia3/l' is float16, wanted float32"),
    ],
)
def test_other_tensors(file, change, said):
    tensors = load_file(file)
    change(tensors)
    rewritten(file, lambda said: None, tensors)
    with pytest.raises(AdapterFileError) as caught:
        load_adapter(model(), file)
    assert said in str(caught.value)


def test_tampered_metadata(file):
    with safe_open(file, framework="pt") as opened:
        text = opened.metadata()[FORMAT]
    save_file(load_file(file), file, metadata={FORMAT: text.replace('"alpha":16.0', '"alpha":99.0')})
    with pytest.raises(AdapterFileError, match="its metadata are not what was written"):
        load_adapter(model(), file)


def nest(depth):
    return json.loads("[" * depth + "]" * depth)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.update(version=2), "version 2 of the format, this agblocks reads 1"),
        (lambda s: s.update(version=True), "version"),
        (lambda s: s.pop("norms"), "norms: Field required"),
        (lambda s: s.update(code="print(1)"), "code: Extra inputs are not permitted"),
        (lambda s: s.update(weight=1e999), "no number"),
        (lambda s: s.update(name="a b"), "name: "),
        (lambda s: s.update(specs=[{"adapter": "lroa"}] * 2), "no adapter is registered as 'lroa'; did you mean lora"),
        (lambda s: s["specs"][0].update(rank=0), "rank: 0 is not a whole number, > 0"),
        (lambda s: s["specs"][0].update(rank=3), "'sites/0/lora/A' is [2, 6], wanted [3, 6]"),
        (lambda s: s["specs"][0].update(rank=7), "its adapters cannot be made: 'lora' cannot sit on '0'"),
        (lambda s: s["sites"].pop(), "do not belong together"),
        (lambda s: s["sites"][0].append("4"), "do not belong together"),
        (lambda s: s["sites"][0].append("0"), "do not belong together"),
        (lambda s: [s[k].append(s[k][0]) for k in ("specs", "sites")], "puts 'lora' on '0' twice"),
        (lambda s: s["modules"]["0"].update(place=[6, 5, -1]), "reads 6 and gives 6 channels"),
        (lambda s: s.update(train=["4.weight"]), "'extra/4.weight' is missing"),
        (lambda s: s.update(train=["nowhere"]), "parameters that this model has not: 'nowhere'"),
        (lambda s: s.update(statistics=["3.running_mean"]), "'extra/3.running_mean' is missing"),
        (lambda s: s.update(composition={"kind": "Fuse", "parts": ["."], "options": {}}), "composition"),
        (lambda s: s.update(composition={"kind": "nn", "parts": ["."], "options": {}}), "composition"),
        (lambda s: s.update(composition={"kind": "Stack", "parts": ["x"], "options": {}}), "composition"),
        (lambda s: s.update(note=nest(40)), "nested 41 deep"),
        (lambda s: s.update(note="x" * 2**25), "metadata of 33,"),
        (lambda s: s.update(fingerprint="0"), "fingerprint is not that of its own modules"),
    ],
)
def test_forged_metadata(file, change, said):
    with safe_open(file, framework="pt") as opened:
        content = json.loads(opened.metadata()[FORMAT])
    change(content)
    rest = {k: v for k, v in content.items() if k != "metadata_sha256"}
    import hashlib

    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    content["metadata_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    save_file(load_file(file), file, metadata={FORMAT: json.dumps(content)})
    base = model()
    with pytest.raises((AdapterFileError, BaseMismatch)) as caught:
        load_adapter(base, file)
    assert said in str(caught.value), caught.value
    assert untouched(base)


def test_sizes_are_compared_before_anything_is_made(tmp_path, monkeypatch):
    """A file that asks for an adapter of gigabytes is refused by its tensors' shapes."""
    path = tmp_path / "a.safetensors"
    adapted(["houlsby:glob=0"]).save(path)
    rewritten(path, lambda said: said["specs"][0].update(latent=60_000))
    made = []
    monkeypatch.setattr("agblocks.adapters.making.generator", lambda *args: made.append(args))
    with pytest.raises(AdapterFileError, match="60000"):
        load_adapter(model(), path)
    assert not made


@pytest.mark.parametrize("text", ["[]", "null", "{", "[" * 100_000, '{"version": NaN}', '"\\ud800"', "9" * 5000, ""])
def test_metadata_of_no_form(file, text):
    header = json.dumps({"__metadata__": {FORMAT: text}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(AdapterFileError):
        load_adapter(model(), file)


def test_the_page_about_files(tmp_path, monkeypatch):
    """Its code runs from top to bottom, and it names what a record has."""
    page = (Path(__file__).parents[2] / "docs" / "adapters_files.md").read_text()
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    assert len(blocks) == 2
    exec("\n".join(blocks), {})
    assert {p.name for p in tmp_path.iterdir()} == {"liver.safetensors", "for_peft"}
    assert read_record("liver.safetensors").licence == "weights: CC BY-NC 4.0"
