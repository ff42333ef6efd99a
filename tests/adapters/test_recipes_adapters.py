"""The `adapters:` list of recipes: read, inherited, stored, told, refused."""

import json
from pathlib import Path

import jsonschema
import pytest
import torch

import agblocks
from agblocks import AdapterSpec, RecipeError, adapt, build, resolve
from agblocks.cli import app, main
from agblocks.graph import describe
from agblocks.graph.adapter_spec import digest
from agblocks.graph.diff import diff
from agblocks.graph.editor import json_schema
from agblocks.graph.source import read_file

FOLDER = Path(__file__).parents[1] / "recipes"
MISPLACED = sorted(path.stem for path in (FOLDER / "misplaced").glob("*.yaml"))
LORA = {"adapter": "lora", "role": ["attn.q", "attn.v"], "rank": 2}
IA3 = {"adapter": "ia3", "layers": "-2:"}


def of(*adapters, **more):
    return {"recipe": 1, "name": "mine", "base": "alphagenome_small", "adapters": [*adapters], **more}


def said(*command):
    from typer.testing import CliRunner

    return CliRunner().invoke(app(), list(command))


def test_they_are_specs_with_a_digest_of_their_own():
    resolved, plain = resolve(of(LORA, IA3)), resolve("alphagenome_small")
    assert resolved.adapters == (
        AdapterSpec("lora", role=["attn.q", "attn.v"], rank=2),
        AdapterSpec("ia3", layers="-2:"),
    )
    assert resolved.adapters_digest == digest(resolved.adapters) != plain.adapters_digest
    assert resolved.digest == plain.digest
    assert plain.adapters == ()
    assert resolve(of(IA3, LORA)).adapters_digest != resolved.adapters_digest, "their order means something"


def test_stored_recipe_round_trip():
    resolved = resolve(of(LORA, IA3))
    again = resolve(json.loads(json.dumps(resolved.recipe)))
    assert (again.adapters, again.digest) == (resolved.adapters, resolved.digest)
    assert "base" not in resolved.recipe
    assert "adapters" not in resolve("alphagenome_small").recipe


@pytest.mark.parametrize(
    ("upper", "kinds"), [({}, ["lora"]), ({"adapters": []}, []), ({"adapters": [IA3, LORA]}, ["ia3", "lora"])]
)
def test_a_base_hands_its_list_on_until_another_is_said(tmp_path, upper, kinds):
    (tmp_path / "lower.yaml").write_text(json.dumps(of(LORA)))
    (tmp_path / "upper.yaml").write_text(json.dumps({"recipe": 1, "base": "lower.yaml", **upper}))
    resolved = resolve(tmp_path / "upper.yaml")
    assert [spec.kind for spec in resolved.adapters] == kinds
    assert ("adapters" in resolved.recipe) == bool(kinds)


def test_an_override_says_another_list():
    assert resolve(of(LORA), "adapters=[]").adapters == ()
    (spec,) = resolve("alphagenome_small", "tower.depth=2", "adapters=[{adapter: lora, rank: 3}]").adapters
    assert spec == AdapterSpec("lora", rank=3)
    again = resolve(resolve(of(LORA)).recipe, "adapters=[{adapter: ia3}]")
    assert [spec.kind for spec in again.adapters] == ["ia3"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["adapters=[]", "adapters=[]"], "'adapters' is set twice"),
        (["adapters=lora"], "adapters should be a list, not text ('lora')"),
        (
            ["adapters=[{adapter: lora, rnk: 3}]"],
            "command line:1:10: adapters[0].rnk: 'lora' has no argument or target",
        ),
    ],
)
def test_wrong_overrides(overrides, message):
    with pytest.raises(RecipeError) as caught:
        resolve("alphagenome_small", *overrides)
    assert message in str(caught.value)


def test_adapt_attaches_them():
    model = build(of(LORA, IA3), seed=0)
    names = list(model.state_dict())
    adapted = adapt(model)
    assert adapted.bank.names["default"].specs == model.resolved.adapters
    assert sorted({row["kind"] for row in adapted.bank.report()}) == ["ia3", "lora"]
    assert adapted.detach() is model
    assert list(model.state_dict()) == names


def test_without_any_adapt_says_so():
    with pytest.raises(agblocks.adapters.errors.AdapterError, match="nothing to attach"):
        adapt(build("tiny"))


def test_they_change_no_weight_that_is_drawn():
    plain, adapted = build("alphagenome_small", seed=3), build(of(LORA), seed=3)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), adapted.parameters(), strict=True))


def test_what_show_and_diff_say():
    resolved, plain = resolve(of(LORA, IA3)), resolve("alphagenome_small")
    lines = describe.summary(resolved).splitlines()
    at = lines.index(f"adapters {resolved.adapters_digest[:12]}")
    assert lines[at + 1 : at + 3] == ["  lora:role=attn.q+attn.v,rank=2", "  ia3:role=attn.k+attn.v,layers=-2:"]
    assert describe.adapters(plain) == []
    assert [str(change) for change in diff(plain, resolved)] == [
        "+ adapters: lora:role=attn.q+attn.v,rank=2", "+ adapters: ia3:role=attn.k+attn.v,layers=-2:"
    ]  # fmt: skip
    assert [str(change) for change in diff(resolved, resolve(of(LORA)))] == [
        "- adapters: ia3:role=attn.k+attn.v,layers=-2:"
    ]
    (turned,) = diff(resolved, resolve(of(IA3, LORA)))
    assert str(turned).startswith("~ adapters: lora:")
    assert diff(resolved, resolve(of(LORA, IA3))) == []


VALIDATOR = jsonschema.Draft202012Validator(json.loads(json.dumps(json_schema())))


def test_the_schema_for_editors_knows_them():
    jsonschema.Draft202012Validator.check_schema(VALIDATOR.schema)
    VALIDATOR.validate(of(LORA, IA3, {"adapter": "norm", "exclude": "tower.**", "stages": [1, 2], "expect": 3}))
    for name in ("adapters_no_list", "adapters_wrong_arguments", "adapters_wrong_form"):
        assert list(VALIDATOR.iter_errors(read_file(FOLDER / "broken" / f"{name}.yaml").plain())), name


def test_a_nested_recipe_without_any_is_a_node(tmp_path):
    (tmp_path / "part.yaml").write_text((FOLDER / "parts" / "encoder.yaml").read_text() + "\nadapters: []\n")
    head = {"block": "head.scalar", "in": "encoder.stages", "args": {"targets": 1, "pool": "mean"}}
    (tmp_path / "whole.yaml").write_text(json.dumps({
        "recipe": 1, "inputs": {"dna": "B 4 L"}, "nodes": {"encoder": {"recipe": "part", "in": "dna"}},
        "heads": {"activity": head}, "adapters": [{"adapter": "lora", "glob": "encoder.stages.stage2.conv1"}],
    }))  # fmt: skip
    adapted = adapt(build(tmp_path / "whole.yaml"))
    assert [row["site"] for row in adapted.bank.report()] == ["encoder.stages.stage2.conv1"]


@pytest.mark.parametrize("name", MISPLACED)
def test_what_check_says_of_adapters_that_cannot_sit_there(name, monkeypatch, capfd):
    """`resolve` cannot know; `agblocks check` builds without memory and asks each."""
    monkeypatch.chdir(FOLDER)
    assert resolve(f"misplaced/{name}.yaml").adapters
    monkeypatch.setattr("sys.argv", ["agblocks", "check", f"misplaced/{name}.yaml"])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capfd.readouterr()
    assert (caught.value.code, out) == (2, "")
    assert err == (FOLDER / "misplaced" / f"{name}.txt").read_text()


def test_what_check_says_of_good_ones(tmp_path):
    (tmp_path / "mine.yaml").write_text(json.dumps(of(LORA, IA3)))
    result = said("check", str(tmp_path / "mine.yaml"))
    assert result.exit_code == 0
    assert ", adapters lora:role=attn.q+attn.v,rank=2 ia3:role=attn.k+attn.v,layers=-2:; L must be" in result.output
