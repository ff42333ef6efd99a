"""The guide to studies: its code runs, what it shows is what the code says."""

import re
from pathlib import Path

import pytest

from agblocks.studies import StudyError, load_study, plan, shipped_studies
from agblocks.studies.file.form import PATHS, SECTIONS
from agblocks.studies.file.text import DATA_KEYS

GUIDE = (Path(__file__).parents[1] / "docs" / "studies.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)\n```", GUIDE, re.DOTALL)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "first.yaml").write_text(blocks("yaml")[0])
    return tmp_path


def test_the_code_runs(folder):
    for code in blocks("python"):
        exec(compile(code, "docs/studies.md", "exec"), {})
    assert len(list(folder.glob("out/cells/*/result.json"))) > 10


def test_the_error_is_as_shown(folder):
    text = (folder / "first.yaml").read_text()
    line = next(line for line in text.splitlines() if "tap:" in line)
    (folder / "first.yaml").write_text(text.replace(line, "  tap: [encoder.stage9]"))
    with pytest.raises(StudyError) as caught:
        plan(load_study("first.yaml"))
    (shown,) = re.findall(r"```\n(first\.yaml:.*?)\n```", GUIDE, re.DOTALL)
    assert shown in str(caught.value)


def test_similarity_is_planned(folder):
    assert list(plan(load_study(blocks("yaml")[0] + "\n" + blocks("yaml")[1])).similarity) == ["trained_and_drawn"]


def test_every_path_and_every_study_is_told():
    table = GUIDE.partition("| path | what it is |")[2].partition("\n\n")[0]
    told = set(re.findall(r"`([a-z_]+)[.`]", table))
    assert set(PATHS) <= told, set(PATHS) - told
    assert all(f"`{section}.<" in table for section in SECTIONS)
    assert all(re.search(rf"`{key}\b", GUIDE) for key in DATA_KEYS)
    shipped = GUIDE.partition("## Shipped studies")[2]
    assert all(f"`{name}`" in shipped for name in shipped_studies())
