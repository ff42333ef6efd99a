"""The guide to adapters: its code runs, its numbers and its commands are what the code says."""

import re
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from agblocks import adapt, build, resolve
from agblocks.adapters.errors import NotMergeable
from agblocks.adapters.planned import plan
from agblocks.cli import app
from agblocks.data import simulate_mpra
from agblocks.graph.adapter_kinds import TARGET_FIELDS, kinds
from agblocks.graph.adapter_spec import AdapterSpec
from agblocks.training import Settings, load_run

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "adapters.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)\n```", GUIDE, re.DOTALL)


def section(title):
    return GUIDE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_the_code_runs_in_turn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    for number, code in enumerate(blocks("python")):
        exec(compile(code, f"block {number} of docs/adapters.md", "exec"), space)
    assert {path.name for path in tmp_path.iterdir()} == {"atac.safetensors", "liver.safetensors"}


CONFIGURATIONS = re.findall(
    r"\*\*([\w ]+)\*\*: (.*?)```python\n(.*?)\n```", section("Seven ways to adapt AlphaGenome"), re.DOTALL
)


def test_there_are_seven():
    assert [name for name, *_ in CONFIGURATIONS] == [
        "Linear probing", "LoRA", "Locon", "IA3", "Houlsby", "Houlsby on linear maps", "Several at once"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def alphagenome():
    return build("alphagenome", device="meta")


@pytest.mark.parametrize(("name", "words", "code"), CONFIGURATIONS, ids=[name for name, *_ in CONFIGURATIONS])
def test_each_is_counted_and_trains_what_it_should(alphagenome, name, words, code):
    space = {
        "adapt": adapt,
        "pretrained": lambda: build("alphagenome_small", seed=0),
        "heads": ["atac_1bp", "atac_128bp"],
    }
    exec(code, space)
    adapted = space["adapted"]
    specs = adapted.bank.names["default"].specs
    counts = sum(planned.parameters for planned in plan(alphagenome, specs))
    assert f"{counts:,}" in re.findall(r"[\d,]*\d", words)
    trains = {n for n, p in adapted.base.named_parameters() if p.requires_grad}
    assert trains == {n for n, _ in adapted.base.named_parameters() if n.startswith("atac_")}
    made = adapted(dna=torch.randn(1, 4, 2048), organism=torch.tensor([0]), outputs=["atac_1bp", "atac_128bp"])
    sum(out.sum() for out in made.values()).backward()
    still = {n for n, p in adapted.named_parameters() if p.requires_grad and p.grad is None}
    assert all("embed_pair" in name for name in still), "all but what leads to other heads"
    if "Houlsby" in name:
        with pytest.raises(NotMergeable):
            adapted.merged()
    else:
        adapted.merged()


def test_the_count_that_is_shown():
    (shown,) = re.findall(r"```\n\$ (agblocks adapters count .*?)\n(.*?)\n```", GUIDE, re.DOTALL)
    assert CliRunner().invoke(app(), shown[0].split()[1:]).output == shown[1] + "\n"


def test_the_recipe(tmp_path):
    (text,) = blocks("yaml")
    (tmp_path / "mine.yaml").write_text(text)
    adapted = adapt(build(tmp_path / "mine.yaml"))
    assert {row["kind"] for row in adapted.bank.report()} == {"lora", "locon"}
    assert CliRunner().invoke(app(), ["check", str(tmp_path / "mine.yaml")]).exit_code == 0


def test_the_table_of_fields_is_whole():
    first = [cells.split("|")[1] for cells in section("Where adapters sit").splitlines() if cells.startswith("| `")]
    assert sorted(re.findall(r"`(\w+)`", "".join(first))) == sorted(TARGET_FIELDS)
    module = build("alphagenome_small", device="meta")
    for fields in (
        {"glob": "tower.layer*.attention.q"},
        {"regex": r"tower\.layer[12]\..*", "type": "Linear"},
        {"role": "attn.q", "layers": "-2:"},
    ):
        assert plan(module, [AdapterSpec("bitfit", **fields)])[0].sites


def test_specs_and_settings_of_the_commands():
    for text in re.findall(r"--adapter ([\w:=.,+]+)", GUIDE):
        AdapterSpec.parse(text)
    said = section("Which one")
    for tune in re.findall(r"--tune ([\w:]+)", said):
        Settings(tune=tune)
    for option in set(re.findall(r"--([a-z][\w-]+)", GUIDE)) - {"adapter", "weights", "yaml", "data"}:
        assert hasattr(Settings(), option.replace("-", "_")), option


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A table of few rows, and a run on it to start from: its command, but for what is said here and there."""
    folder = tmp_path_factory.mktemp("guide")
    table, _ = simulate_mpra(80, 64, seed=0, sites=2.0)
    cells = zip(table.sequences, table.targets[:, 0], table.fold, strict=True)
    text = "".join(f"{sequence}\t{value}\t{fold}\n" for sequence, value, fold in cells)
    (folder / "rows.tsv").write_text(f"sequence\tactivity\tfold\n{text}")
    command = ["fit", "mpra_attention", "tower.depth=4", "--data", str(folder / "rows.tsv"), "--sequence", "sequence",
               "--targets", "activity", "--fold", "fold", "--epochs", "1", "--patience", "0", "--device", "cpu"]  # fmt: skip
    result = CliRunner().invoke(app(), [*command, "-o", str(folder / "base")])
    assert result.exit_code == 0, result.output
    return folder, [*command, "--weights", str(folder / "base")]


ROWS = [
    options
    for row in section("Which one").splitlines()
    if row.startswith("|")
    for options in re.findall(r"`(--.*?)`", row)
]


@pytest.mark.parametrize("options", ROWS)
def test_every_row_of_the_decision_guide_trains(trained, tmp_path, options):
    _, command = trained
    result = CliRunner().invoke(app(), [*command, *options.split(), "-o", str(tmp_path / "run")])
    assert result.exit_code == 0, (result.output, result.exception)
    run = load_run(tmp_path / "run")
    kinds_of = [spec.kind for spec in run.resolved.adapters]
    assert kinds_of == re.findall(r"--adapter (\w+)", options)
    share = run.data["parameters"]["trained"] / run.data["parameters"]["all"]
    assert share == 1 if "full" in options else share < (0.15 if "last" not in options else 1)


def test_the_training_command(trained, tmp_path, monkeypatch):
    folder, command = trained
    (line,) = blocks("sh")
    monkeypatch.chdir(tmp_path)
    words = line.split()[1:]
    at = words.index("human_lentimpra_3k")
    words[at : at + 1] = command[4:9]
    words[words.index("pretrained/")] = str(folder / "base")
    result = CliRunner().invoke(app(), [*words, "tower.depth=4", *command[9:15]])
    assert result.exit_code == 0, (result.output, result.exception)
    assert [path.name for path in (tmp_path / "run" / "adapters").iterdir()] == ["0.safetensors"]


def test_names_that_the_guide_uses_are_there():
    for kind in ("lora", "locon", "ia3", "ia3_ff", "houlsby", "norm", "bitfit", "loreft"):
        assert kind in kinds()
    for page in re.findall(r"\]\((\w+\.md)\)", GUIDE):
        assert (ROOT / "docs" / page).is_file(), page
    assert "adapters" in resolve("mpra_attention").recipe or not resolve("mpra_attention").adapters


def test_numbers_of_the_last_table():
    assert f"{1e-5 * 0.95**47:.3g}" == "8.97e-07"
    assert "| 8.97e-7 | 8.97e-7 |" in GUIDE
    # Four bits, and for each block of 64 eight bits, for each 256 blocks 32: against 32 a block.
    assert round(4 + 8 / 64 + 32 / (64 * 256), 3) == 4.127
    assert round(4 + 32 / 64 - 4.127, 3) == 0.373
