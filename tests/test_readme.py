"""What the README shows is what the commands print."""

import re
from pathlib import Path

import pytest

from agblocks import RecipeError, build, resolve
from agblocks.graph import describe
from agblocks.graph.find import shipped

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def block(start):
    (found,) = re.findall(rf"```\w*\n({re.escape(start)}.*?)\n```", README, re.DOTALL)
    return found


@pytest.fixture
def mine(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(block("# mine.yaml"))
    return "mine.yaml"


def test_show(mine):
    assert block("$ agblocks show mine.yaml") == "$ agblocks show mine.yaml\n" + describe.summary(resolve(mine))


def test_the_picture():
    assert block("flowchart TD") == describe.mermaid(resolve("alphagenome"))


def test_the_python_example(mine):
    import torch

    model = build(mine, "encoder.channels=32")
    out = model(dna=torch.zeros(2, 4, 200), outputs=["activity", "encoder.stage2"])
    assert {name: tuple(value.shape) for name, value in out.items()} == {
        "activity": (2, 1),
        "encoder.stage2": (2, 48, 100),
    }


def test_the_ablation(tmp_path):
    path = tmp_path / "wide.yaml"
    path.write_text(block("recipe: 1\nname: wide_third_stage"))
    resolved = resolve(path)
    assert resolved.nodes["encoder.stage3"].args["channels"] == 1024
    assert list(resolved.nodes)[-2:] == ["encoder.stage5", "activity"]


def test_the_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text((ROOT / "tests" / "recipes" / "broken" / "skip_of_another_stride.yaml").read_text())
    with pytest.raises(RecipeError) as caught:
        resolve("mine.yaml")
    assert block("mine.yaml:5") == str(caught.value)


def test_the_shipped_recipes_resolve_and_are_named():
    for name in shipped():
        assert resolve(name).nodes
        last = name.rpartition("/")[2]
        assert f"`{last}`" in README or f"`recipes/{shipped()[name].parent.name}/`" in README


def test_published_parameter_counts():
    counts = describe.parameters(resolve("alphagenome"))
    of = {
        top: sum(n for name, n in counts.items() if name.partition(".")[0] == top)
        for top in ("encoder", "tower", "decoder")
    }
    assert of == {"encoder": 89_972_992, "tower": 191_801_088, "decoder": 111_501_447}
    heads = resolve("alphagenome").heads
    assert sum(n for name, n in counts.items() if name not in heads) == 403_918_983
    field = resolve("alphagenome").info("encoder").field
    assert field.width == 1154
    assert str(resolve("alphagenome").rule()) == "L must be a multiple of 2048"
    assert str(resolve("alphagenome").rule(["encoder"])) == "any length"
