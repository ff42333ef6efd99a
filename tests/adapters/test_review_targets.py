"""What a review found in targets, specs, compositions and contracts, each as a test that failed before its mend."""

import json
import re
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from agblocks import AdapterSpec
from agblocks.adapters import Adapter, Average, BatchSplit, Parallel, Split, Stack, adapt
from agblocks.adapters.composition import names_in
from agblocks.adapters.errors import AdapterError, CompositionError, NoTargetMatch
from agblocks.adapters.flags import set_flags
from agblocks.adapters.targets import select
from agblocks.errors import AgblocksError
from agblocks.graph import adapter_kinds
from agblocks.graph.adapter_kinds import adapter
from agblocks.graph.adapter_spec import as_spec
from agblocks.testing import Broken
from agblocks.testing.adapter_contracts import check_adapter
from agblocks.testing.adapter_trial import Trial, move, trials


class Named(nn.Module):
    """Linear layers under any dotted names."""

    def __init__(self, *names):
        super().__init__()
        for name in names:
            *parents, last = name.split(".")
            at = self
            for parent in parents:
                if parent not in at._modules:
                    at.add_module(parent, nn.Module())
                at = at.get_submodule(parent)
            at.add_module(last, nn.Linear(4, 4))


BLOCKS = [f"blocks.{n}.{part}" for n in range(6) for part in ("attn.qkv", "mlp.fc1", "mlp.fc2")]
HEAD = ["head.fc1", "head.fc2"]
RESNET = ["conv1.0", "conv1.3", "layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.downsample.0", "fc"]
SWIN = [f"stages.{n}.blocks.{m}.mlp.fc1" for n in range(3) for m in range(2)]


@pytest.mark.parametrize(
    ("names", "target", "wanted"),
    [
        (BLOCKS + HEAD, {"layers": "-1:"}, BLOCKS[-3:]),
        (BLOCKS + HEAD, {"layers": [0, 2]}, BLOCKS[:3] + BLOCKS[6:9]),
        (RESNET, {"layers": [1]}, RESNET[2:4]),
        (RESNET, {"layers": "2:"}, RESNET[4:6]),
        (HEAD, {"layers": [-1]}, ["head.fc2"]),  # nothing else is numbered
        (["conv1.0", "conv1.3", "fc"], {"layers": [1]}, ["conv1.0", "conv1.3"]),
        (["0", "1", "2"], {"layers": "1:"}, ["1", "2"]),
        (["encoder.0", "encoder.1", "decoder.0"], {"layers": [-1]}, ["encoder.1", "decoder.0"]),
        (SWIN, {"stages": [-1]}, SWIN[-2:]),
        (["stage1.0", "stage2.0", "fc1"], {"stages": ":2"}, ["stage1.0"]),
        (["net.0.stages.0.conv", "net.0.stages.1.conv"], {"stages": [1]}, ["net.0.stages.1.conv"]),
    ],
)
def test_what_is_numbered_as_a_layer_and_what_as_a_stage(names, target, wanted):
    assert list(select(Named(*names), {"type": ["Linear"], **target})) == wanted


def test_stages_are_no_layers():
    with pytest.raises(NoTargetMatch, match="numbered layer"):
        select(Named(*SWIN), {"type": ["Linear"], "layers": [1]})


def test_layers_that_are_themselves_meant():
    model = Named(*BLOCKS, *HEAD)
    assert list(select(model, {"glob": ["blocks.*"], "layers": "-2:"})) == ["blocks.4", "blocks.5"]
    both = select(model, {"glob": ["blocks.*", "blocks.*.mlp.fc1"], "layers": [5]})
    assert list(both) == ["blocks.5", "blocks.5.mlp.fc1"]


def test_a_bare_name_that_matches_nothing_is_told_near_ones():
    model = Named(*BLOCKS, *HEAD, "blocks.0.attn.c_proj")
    for wrong in ("q_proj", "**.q_proj"):
        with pytest.raises(NoTargetMatch, match=r"did you mean \*\*\.c_proj\?"):
            select(model, {"glob": [wrong]})
    with pytest.raises(NoTargetMatch, match=r"did you mean \*\*\.q\?"):
        select(Named("a.q", "a.k", "a.row", "project"), {"glob": ["q_proj"]})
    with pytest.raises(NoTargetMatch) as caught:
        select(model, {"glob": ["zzzzzzzzzzzz"]})
    assert "there is: **.attn, **.blocks, **.c_proj" in str(caught.value) and "blocks.0" not in str(caught.value)


def test_no_module():
    for wrong in ({"a": 1}, None, nn.Linear):
        with pytest.raises(AdapterError, match=r"adapters sit on an nn\.Module, not on"):
            select(wrong, {"type": ["Linear"]})


def test_a_module_without_shapes_yet():
    model = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    for target in ({"type": ["Linear"]}, {"glob": ["1"]}):  # what lies elsewhere could not be frozen
        with pytest.raises(AdapterError, match=r"'0', a LazyLinear, has no shapes yet: call the model once"):
            select(model, target)
    model(torch.zeros(1, 3))
    assert list(select(model, {"type": ["Linear"]})) == ["0", "1"]


# The text form of specs


@pytest.fixture(scope="module")
def anything():
    """A kind whose arguments are of every type."""

    @adapter("anything_at_all")
    class Anything(Adapter):
        """Nothing."""

        def __init__(
            self, place, *, text: str = "null", number: float = 1.0, many: list[int] = [], words: list[str] = ["a"],  # noqa: B006
            deep: list[list[str]] = [], table: dict[str, float] = {}, either: bool | int | float | str | None = 1,  # noqa: B006
        ):  # fmt: skip
            super().__init__(place)

    yield "anything_at_all"
    del adapter_kinds._kinds["anything_at_all"]


told = st.one_of(st.text(max_size=12), st.text('a+,=:"\\\\[]{} *#1-\n', max_size=6), st.sampled_from([
    "null", "true", "~", "1", "1.0", "-4:", "1e3", "0x1", ".inf", "[1]", "{a: b}", '"', "'", "&a", "a: b", "+", " a",
]))  # fmt: skip
said = told.filter(bool)
real = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(-(2**63) + 1, 2**63 - 1)


def _compiles(text):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # of sets inside sets, which are to come
            re.compile(text)
    except (re.error, FutureWarning):
        return False
    return True


ARGUMENTS = {
    "text": told, "number": real, "many": st.lists(whole, max_size=3), "words": st.lists(told, max_size=3),
    "deep": st.lists(st.lists(told, max_size=2), max_size=2), "table": st.dictionaries(told, real, max_size=2),
    "either": st.one_of(st.booleans(), whole, real, told, st.none()),
}  # fmt: skip
NARROWING = {
    "role": st.lists(said, min_size=1, max_size=3),
    "regex": st.lists(st.one_of(said.filter(_compiles), st.sampled_from(["a.+b", "a{1,2}", r"x\\+y", "[ab],c"])),
                      min_size=1, max_size=2),
    "exclude": said, "layers": st.one_of(st.lists(whole, min_size=1, max_size=3), st.sampled_from([":", "-4:", "1:3"])),
    "expect": st.integers(1, 99),
}  # fmt: skip


@given(st.fixed_dictionaries({"glob": st.lists(said, min_size=1, max_size=3)}, optional={**ARGUMENTS, **NARROWING}))
def test_every_spec_is_read_as_it_prints(anything, fields):
    spec = AdapterSpec(anything, **fields)
    assert AdapterSpec.parse(str(spec)) == spec
    assert json.loads(AdapterSpec.parse(str(spec)).to_json()) == json.loads(spec.to_json())


@pytest.mark.parametrize(("fields", "text"), [
    ({"role": ["attn.q", "attn.v"], "rank": 4}, "lora:role=attn.q+attn.v,rank=4"),
    ({"glob": "tower.layer*.**", "layers": "-4:", "exclude": "**.head"},
     "lora:glob=tower.layer*.**,layers=-4:,exclude=**.head"),
    ({"regex": r"a\.\d", "layers": [1, 3]}, r"lora:regex=a\.\d,layers=1+3"),
    ({"regex": "a.+b"}, 'lora:regex="a.+b"'),
    ({"regex": ["a{1,2}", "[ab]"]}, 'lora:regex="a{1,2}"+[ab]'),
    ({"regex": r"x\+y"}, r'lora:regex="x\\+y"'),
])  # fmt: skip
def test_simple_things_print_simply(fields, text):
    spec = AdapterSpec("lora", **fields)
    assert str(spec) == text and AdapterSpec.parse(text) == spec


def test_texts_that_look_like_something_else():
    for value in ("1", "head+x", "null", "bases"):
        spec = AdapterSpec("nice", glob=["stem", value], inverse=value)
        assert AdapterSpec.parse(str(spec)) == spec
    spec = AdapterSpec("condition", glob="part", count=3, label="null")
    assert str(spec) == 'condition:glob=part,count=3,label="null"' and AdapterSpec.parse(str(spec)) == spec
    assert AdapterSpec.parse("nice: glob = stem , inverse = bases,") == AdapterSpec(
        "nice", glob="stem", inverse="bases"
    )


@pytest.mark.parametrize(("text", "words"), [
    ('lora:regex="a', "no text in quotes"), ('lora:regex="a"b', r"after 'a' comes ',' or '\+', not 'b'"),
    ("lora:rank=4,rank=8", "'rank' is said twice"), ("lora:rank", "'rank' should be name=value"),
    ("lora:=4", "''"), ("lora:rank=[4]", "rank"), ("lora:rank=&a", "anchor"),
])  # fmt: skip
def test_texts_that_cannot_be_read(text, words):
    with pytest.raises(AgblocksError, match=words) as caught:
        AdapterSpec.parse(text)
    assert type(caught.value) is AgblocksError and str(caught.value).startswith("adapter ")


def test_forms_of_a_spec():
    spec = AdapterSpec("lora", rank=4)
    assert as_spec(spec) is spec
    assert as_spec("lora:rank=4") == as_spec({"adapter": "lora", "rank": 4}) == spec
    with pytest.raises(
        AgblocksError, match="an adapter is an AdapterSpec, a text like 'lora:rank=8' or a mapping, not 3"
    ):
        as_spec(3)


# Compositions


@pytest.mark.parametrize("weights", [
    [1, "x"], ["1", "2"], "12", [1, None], [1, float("nan")], [1, float("inf")], [1, 2, 3], [1], 3, [1, [2]], [1, 1 + 2j],
])  # fmt: skip
@pytest.mark.parametrize("normalize", [True, False])
def test_weights_are_finite_numbers(weights, normalize):
    with pytest.raises(
        CompositionError, match="Average has 2 adapters and wants as many finite numbers as weights, not"
    ):
        Average("a", "b", weights=weights, normalize=normalize)


@pytest.mark.parametrize("weights", [[1, -1], [0, 0], [-1, 0.5], [1e308, 1e308]])
def test_a_sum_that_nothing_is_divided_by(weights):
    with pytest.raises(CompositionError, match=r"their sum, which is .*normalize=False"):
        Average("a", "b", weights=weights)
    Average("a", "b", weights=weights, normalize=False)


def test_numbers_of_any_library():
    assert Average("a", "b", weights=torch.tensor([1.0, 3.0])).shares() == (0.25, 0.75)
    assert Average("a", "b", weights=(1, 3)) == Average("a", "b", weights=[1.0, 3.0])


@pytest.mark.parametrize(
    "fractions", [["a", "b"], [0.5, float("nan")], [1.0], [0.2, 0.3, 0.5], 1, None, [float("inf"), 1]]
)
def test_fractions_are_finite_numbers(fractions):
    with pytest.raises(
        CompositionError, match="Split has 2 adapters and wants as many finite numbers as fractions, not"
    ):
        Split("a", "b", fractions=fractions)


@pytest.mark.parametrize("sizes", [["a", 1], [1.0, 2], [-1, 2], [1], 2, None, [True, 1]])
def test_sizes_are_numbers_of_rows(sizes):
    with pytest.raises(CompositionError, match="BatchSplit"):
        BatchSplit("a", "b", sizes=sizes)


def test_names_in_what_is_active():
    assert (
        names_in(None) == () and names_in("a") == ("a",) and names_in(Stack("a", Average("b", "c"))) == ("a", "b", "c")
    )


# Contracts, and the bugs that they are there for


@pytest.mark.parametrize("kind", ["compacter", "flank", "prefix", "lora"])
def test_the_inactive_want_no_gradients(kind):
    check_adapter(kind, "inactive")


def test_shared_modules_that_are_never_frozen_break_a_contract(monkeypatch):
    def forgetful(bank):
        set_flags(bank)
        for module in bank.shared.values():
            module.requires_grad_(True)

    trial = Trial("compacter", "linear")
    trial.check("inactive")
    monkeypatch.setattr("agblocks.adapters.bank.set_flags", forgetful)
    with pytest.raises(Broken, match=r"with 'other' active .*shared.default:0.A"):
        trial.check("inactive")
    Trial("lora", "linear").check("inactive")  # which shares nothing


def test_gradients_that_come_in_spite_of_the_flag_break_a_contract(monkeypatch):
    monkeypatch.setattr("agblocks.adapters.bank.set_flags", lambda bank: bank.requires_grad_(True))
    with pytest.raises(Broken, match="want no gradients|want gradients"):
        Trial("lora", "linear").check("inactive")


@pytest.mark.parametrize("scale", [0.3, 5.0, float("inf")])
def test_a_kind_that_claims_nothing_is_held_to_a_bound(scale):
    @adapter("loud")
    class Loud(Adapter):
        """No identity."""

        identity = False

        def __init__(self, place):
            super().__init__(place)
            self.scale = self.parameter(1)

        def reset_parameters(self, generator):
            nn.init.constant_(self.scale, 1 + scale)

        def after(self, module, args, kwargs, out):
            return out * self.scale.to(out.dtype)

    try:
        if scale < 1:
            Trial("loud", "linear").check("identity")
        else:
            with pytest.raises(Broken, match="at the start"):
                Trial("loud", "linear").check("identity")
    finally:
        del adapter_kinds._kinds["loud"]


def test_where_a_kind_fits_is_tried_once(monkeypatch):
    kind = adapter_kinds.lookup("lora")
    first = trials(kind)
    monkeypatch.setattr(Trial, "adapted", None)
    assert trials(kind) == first


# What a batch passes through


class Keyword(nn.Module):
    """A model that is called by keywords."""

    def __init__(self):
        super().__init__()
        self.map, self.norm, self.drop = nn.Linear(3, 2), nn.BatchNorm1d(2), nn.Dropout(0.5)

    def forward(self, x, *, scale, power=1, switch=None):
        assert switch is None or switch.dim() == 0
        return self.drop(self.norm(self.map(x))) * scale[:, None] ** power


def test_parallel_repeats_keyword_arguments():
    torch.manual_seed(0)
    model, x, scale = Keyword().double().eval(), torch.randn(4, 3).double(), torch.arange(1.0, 5.0).double()
    adapted = adapt(model, ["lora:type=Linear,rank=1"], name="a").add("b", ["ia3:type=Linear"])
    move(adapted)
    wanted = []
    for name in ("a", "b"):
        with adapted.bank.using(name), torch.no_grad():
            wanted.append(adapted(x, scale=scale, power=2))
    switch = torch.tensor(True)  # of no batch
    with adapted.bank.using(Parallel("a", "b")), torch.no_grad():
        for made in (adapted(x, scale=scale, power=2, switch=switch), adapted(x=x, scale=scale, power=2)):
            torch.testing.assert_close(made, torch.cat(wanted))
    assert not torch.allclose(*wanted)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norms", ["track", "frozen"])
def test_a_probe_leaves_every_mode_as_it_was(training, norms):
    model = nn.Sequential(Keyword(), nn.Dropout(0.1)).train(training)
    model[1].train(not training)
    model[0].drop.train(not training)
    probed = model[0]
    modes = {name: module.training for name, module in model.named_modules()}
    probe = {"x": torch.randn(4, 3), "scale": torch.ones(4)}
    adapted = adapt(probed, ["lora:type=Linear,rank=1"], probe=probe, norms=norms)
    resting = {"0.norm"} if norms == "frozen" else set()
    found = {name: module.training for name, module in model.named_modules()}
    assert {name: mode for name, mode in found.items() if name not in resting} == {
        name: mode for name, mode in modes.items() if name not in resting
    }
    adapted.detach()
    assert {name: module.training for name, module in model.named_modules()} == modes


def test_a_probe_that_fails_leaves_every_mode_as_it_was():
    model = Keyword()
    model.drop.eval()
    modes = [module.training for module in model.modules()]
    with pytest.raises(TypeError):
        adapt(model, ["lora:type=Linear,rank=1"], probe=torch.randn(4, 3))
    assert [module.training for module in model.modules()] == modes
