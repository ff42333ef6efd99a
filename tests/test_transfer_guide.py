"""The guide to transfer: its code runs, its table is what is printed, its commands and keys are there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from agblocks import resolve
from agblocks.graph.source import read_text
from agblocks.training import Settings, Transfer, load_run
from agblocks.training.tuning.terms import as_terms
from agblocks.training.tuning.text import read_transfer

GUIDE = (Path(__file__).parents[1] / "docs" / "transfer.md").read_text()


def blocks(language):
    fenced = [text.partition("\n") for text in GUIDE.split("```")[1::2]]
    return [text.rstrip("\n") for said, _, text in fenced if said == language]


def rows(title):
    """The first cells of a section's table."""
    section = GUIDE.partition(f"\n## {title}\n")[2].partition("\n## ")[0] if title else GUIDE.partition("\n## ")[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("| ")]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The guide's code, run; what it printed, and its names."""
    import os

    folder, said, space = tmp_path_factory.mktemp("guide"), [], {}
    here = Path.cwd()
    os.chdir(folder)
    try:
        for number, code in enumerate(blocks("python")):
            exec(compile(code, f"block {number} of docs/transfer.md", "exec"), {**space, "print": said.append}, space)
    finally:
        os.chdir(here)
    return folder, said, space


def test_the_code_runs_and_prints_the_table(run):
    folder, said, space = run
    (table,) = blocks("")
    assert said[-1] == table
    assert load_run(folder / "runs/lenti").data["transfer"]["digest"] == space["transfer"].digest


def test_the_section_is_the_transfer_of_the_code(run):
    (text,) = blocks("yaml")
    problems = []
    assert read_transfer(read_text(text), problems, recipe=resolve("mpra_small")) == run[2]["transfer"]
    assert not problems


def test_the_table_of_keys_is_whole():
    named = [re.findall(r"`(\w+)`", row[0])[0] for row in rows("") if row[0].startswith("`")]
    assert named == [field.name for field in fields(Transfer)]
    for row in rows(""):
        for option in re.findall(r"`--([\w-]+)", row[2]):
            names = ("weights", "weights-into", "adapter")
            assert option in names or hasattr(Settings(), option.replace("-", "_")), option


def test_every_term_is_one():
    for row in rows("Terms"):
        for term in re.findall(r"`([^`]+)`", row[0]):
            if term != "not:TERM":
                Transfer(reinit=as_terms(term))
                assert term == "full" or Transfer(reinit=f"not:{term}")


def test_every_schedule_is_one():
    found = [text for row in rows("Letting more train") for text in re.findall(r"`--(.*?)`", row[1])]
    assert len(found) == 4
    for text in found:
        said = dict(zip(*[iter(f"--{text}".split())] * 2, strict=True))
        made = Settings(epochs=50, tune=said["--tune"], unfreeze=said["--unfreeze"])
        assert made.tuning.plateaus
    (text,) = re.findall(r"`--unfreeze (plateau:5:20x0.1=full)`", GUIDE)
    (step,) = Settings(epochs=50, tune="head", unfreeze=text).tuning.later
    assert step.to_dict() == {"plateau": 5, "latest": 20, "lr": 0.1, "train": ["full"]}
