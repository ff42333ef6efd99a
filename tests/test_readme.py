"""What the README shows is what the commands print."""

import re
from pathlib import Path

import pytest

from agblocks import RecipeError, build, resolve
from agblocks.graph import describe
from agblocks.graph.find import shipped
from agblocks.testing import check_block

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


def test_the_python_blocks_run_in_order(mine, monkeypatch):
    """As a reader would run them; the published model is a narrow one, its weights made up under the published names."""
    from safetensors.torch import save_file

    for room in ("weights", "testing"):
        monkeypatch.syspath_prepend(ROOT / "tests" / room)
    from helpers import backwards
    from planted import registered

    narrow = ("alphagenome_encoder_mpra", "encoder.channels=16", "encoder.growth=8")
    published, _ = backwards(build(*narrow, device="meta"), "alphagenome-pytorch")
    save_file({name: value.contiguous() for name, value in published.items()}, "alphagenome.safetensors")
    codes = re.findall(r"```python\n(.*?)\n```", README, re.DOTALL)
    assert len(codes) == README.count("```python") == 4
    space: dict[str, object] = {"__name__": "readme"}
    with registered():
        for number, code in enumerate(codes):
            code = code.replace(f'"{narrow[0]}"', ", ".join(f'"{text}"' for text in narrow))
            exec(compile(code, f"block {number} of README.md", "exec"), space)
            if "conv.gated" in code:
                check_block(
                    "conv.gated", contracts=["shape", "rows", "reach", "lengths"]
                )  # the page says all; these are quick
    adapted, model = space["adapted"], space["model"]
    assert {row["site"].rpartition(".")[0] for row in adapted.bank.report()} <= {"encoder.stage6", "encoder.stage7"}
    assert space["out"]["activity"].shape == (2, 1)
    assert model.resolved.heads.keys() == {"activity"} and Path("liver.safetensors").is_file()


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
