"""`agblocks adapters`: list, describe, count."""

import json
import re

import pytest
from typer.testing import CliRunner

import agblocks
from agblocks import adapt, build
from agblocks.adapters.errors import AdapterError
from agblocks.adapters.planned import plan, tried
from agblocks.cli import app
from agblocks.errors import AgblocksError
from agblocks.graph.adapter_kinds import kinds

# Catalogue, section 0: worked by formula for AlphaGenome (d 1536, 9 layers, q 1024, k 128, v 192, hidden 3072).
GOLDEN = {
    "lora": 308_736,
    "lora:role=attn.q+attn.k+attn.v+attn.out+mlp.up+mlp.down": 1_313_280,
    "lora:glob=encoder.stage7.*,role=conv.main,rank=4,alpha=1": 71_168,
    "ia3": 2_880,
    "ia3_ff": 27_648,
    "norm": 227_456,
    "houlsby": 470_160,
    "prefix": 86_400,
    "adapter_plus": 470_160,
    "compacter": 85_600,
    "loreft:role=block.out,glob=tower.**,rank=4": 110_628,
    "nice:glob=encoder.stage7": 1_181_952,  # 1,536 channels
}


def said(*command):
    result = CliRunner().invoke(app(), ["adapters", *command])
    return result


def test_list_names_every_kind():
    for command in (["list"], []):
        lines = said(*command).output.splitlines()
        assert [line.split()[0] for line in lines[::2]] == sorted(kinds())
    assert "sits on role attn.q attn.v" in said("list").output


@pytest.mark.parametrize("name", sorted(kinds()))
def test_describe_says_what_a_kind_is_for(name):
    text = said("describe", name).output
    assert text.startswith(f"{name}\n\n{kinds()[name].summary}")
    assert "Use when:" in text and "Parameters" in text and "sits " in text
    arguments = re.findall(r"^  (\w+): .*$", text, re.MULTILINE)
    assert arguments[-len(kinds()[name].annotations) or len(arguments) :] == list(kinds()[name].annotations)


def test_describe_of_none():
    with pytest.raises(AgblocksError, match="did you mean lora"):
        CliRunner().invoke(app(), ["adapters", "describe", "lorra"], catch_exceptions=False)


@pytest.fixture(scope="module")
def alphagenome():
    return build("alphagenome", device="meta")


@pytest.mark.parametrize(("spec", "parameters"), GOLDEN.items(), ids=GOLDEN)
def test_golden_counts(alphagenome, spec, parameters):
    (planned,) = plan(alphagenome, [spec])
    assert planned.parameters == parameters
    assert planned.bytes == 4 * parameters


def test_counting_leaves_the_model_as_it_was(alphagenome):
    flags = [p.requires_grad for p in alphagenome.parameters()]
    with pytest.raises(AdapterError):
        plan(alphagenome, ["ia3", "lora:role=nothing"])
    assert [p.requires_grad for p in alphagenome.parameters()] == flags
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in alphagenome.modules())


def test_what_is_wrong_is_told_spec_by_spec(alphagenome):
    found, wrong = tried(alphagenome, ["ia3", "lora:role=nothing", "norm:role=attn.q", "bitfit"])
    assert [planned.spec.kind for planned in found] == ["ia3", "bitfit"]
    assert sorted(wrong) == [1, 2]


def test_count_is_what_attaching_makes():
    specs = ["lora:role=attn.q+mlp.up,rank=3", "ia3", "lora:glob=encoder.stage3.*,type=StandardizedConv1d,rank=2"]
    model = build("alphagenome_small", seed=0)
    planned = plan(model, specs)
    for part in planned:
        adapted = adapt(model, [part.spec])
        assert part.parameters == adapted.bank.count()
        assert [(s.path, s.parameters) for s in part.sites] == [
            (r["site"], r["parameters"]) for r in adapted.bank.report()
        ]
        adapted.detach()


def test_count_prints_sites_share_and_memory():
    lines = said("count", "alphagenome_small", "lora:role=attn.q+attn.v,rank=4", "lora:glob=encoder.stage3.conv1")
    lines = lines.output.splitlines()
    assert lines[0] == "lora:role=attn.q+attn.v,rank=4: 6 sites, 1,296 parameters"
    assert lines[1:3] == [
        "  tower.layer*.attention.q  3 x Linear, 224 each",
        "  tower.layer*.attention.v  3 x Linear, 208 each",
    ]
    assert lines[4].split() == ["encoder.stage3.conv1", "1", "x", "StandardizedConv1d,", lines[3].split()[3]]
    total = 1296 + int(lines[3].split()[3].replace(",", ""))
    parameters = sum(p.numel() for p in build("alphagenome_small", device="meta").parameters())
    share = f"{100 * total / parameters:.3g}"
    assert lines[5] == f"together {total:,} parameters, {share} % of the model's {parameters:,}"
    assert (
        lines[6] == f"parameters {4 * total:,} bytes, gradients {4 * total:,} bytes, Adam's state {8 * total:,} bytes"
    )


def test_count_of_a_recipes_own_and_with_overrides(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(json.dumps({"recipe": 1, "base": "alphagenome_small", "adapters": [{"adapter": "ia3"}]}))
    own = said("count", str(path), "--sites").output.splitlines()
    assert own[0].startswith("ia3:role=attn.k+attn.v: 6 sites")
    assert sum("tower.layer2.attention.k  Linear, " in line for line in own) == 1
    fewer = said("count", str(path), "--set", "tower.depth=1").output
    assert "2 sites" in fewer


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["alphagenome_small"], "has no adapters of its own; name some"),
        (["alphagenome_small", "lora:role=attn.w"], "role 'attn.w' matches no module; did you mean"),
        (["alphagenome_small", "lora:rank=0"], "0 is not a whole number, > 0"),
        (["alphagenome_small", "lora:rank"], "should be name=value"),
        (["alphagenom_small", "lora"], "did you mean alphagenome_small"),
    ],
)
def test_errors_of_count(command, message):
    with pytest.raises(AgblocksError, match=re.escape(message)):
        CliRunner().invoke(app(), ["adapters", "count", *command], catch_exceptions=False)


def test_specs_that_do_not_go_together():
    with pytest.raises(agblocks.adapters.errors.DuplicateSite):
        plan(build("alphagenome_small", device="meta"), ["lora", "lora:role=attn.v"])
