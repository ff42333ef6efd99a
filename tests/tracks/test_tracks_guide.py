"""The guide to genome tracks: its code runs on made data, its commands and columns are what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tracks_helpers import made_genome

from agblocks import resolve
from agblocks.cli import app
from agblocks.data.tracks.table import COLUMNS

GUIDE = (Path(__file__).parents[2] / "docs" / "tracks.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)\n```", GUIDE, re.DOTALL)


def test_the_code_runs_in_turn(tmp_path, monkeypatch, capsys):
    made = made_genome(tmp_path)
    assert made.table.read_text().strip() == blocks("tsv")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(blocks("yaml")[0])
    space: dict[str, object] = {}
    for number, code in enumerate(blocks("python")):
        exec(compile(code, f"block {number} of docs/tracks.md", "exec"), space)
        if number == 0:
            said = [line.partition("  # ")[2] for line in code.splitlines() if line.startswith("print(")]
            assert capsys.readouterr().out.splitlines() == said
    assert (tmp_path / "run" / "model.safetensors").is_file()
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_columns_are_those_of_a_track():
    assert re.findall(r"^\| `(\w+)` \|", GUIDE, re.MULTILINE) == [
        "pair", *(name for name in COLUMNS if name not in ("name", "path", "pair"))
    ]  # fmt: skip


@pytest.mark.parametrize("line", blocks("sh")[0].replace("\\\n", " ").splitlines())
def test_commands_have_these_options(line):
    import typer

    words = line.split()
    command = typer.main.get_command(app())
    for word in words[1:3]:
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in words if re.match(r"--?[a-z]", word)} <= known


@pytest.mark.parametrize("name", ["yeast_alphagenome", "yeast_enformer"])
def test_the_yeast_recipes_have_five_tracks_at_two_resolutions(name):
    resolved = resolve(name)
    assert {head: resolved.info(head).shape for head in resolved.heads} == {
        "coverage_32bp": "[B 5 L/32]", "coverage_128bp": "[B 5 L/128]"
    }  # fmt: skip
    assert resolved.rule().admits({"L": 4096})
