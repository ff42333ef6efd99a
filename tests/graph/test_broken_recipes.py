"""Broken recipes, and what is said of each, to the letter: `broken/NAME.yaml` beside `broken/NAME.txt`."""

from pathlib import Path

import pytest

from agblocks import RecipeError, resolve
from agblocks.cli import main

FOLDER = Path(__file__).parents[1] / "recipes"
NAMES = sorted(path.stem for path in (FOLDER / "broken").glob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_of_a_broken_recipe(name, monkeypatch):
    monkeypatch.chdir(FOLDER)
    with pytest.raises(RecipeError) as caught:
        resolve(f"broken/{name}.yaml")
    assert str(caught.value) + "\n" == (FOLDER / "broken" / f"{name}.txt").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_no_problem_is_reported_twice(name, monkeypatch):
    monkeypatch.chdir(FOLDER)
    with pytest.raises(RecipeError) as caught:
        resolve(f"broken/{name}.yaml")
    places = [(p.mark, p.path) for p in caught.value.problems]
    assert len(places) == len(set(places))


def test_the_command_line_says_it_on_standard_error_with_status_2(monkeypatch, capfd):
    monkeypatch.chdir(FOLDER)
    monkeypatch.setattr("sys.argv", ["agblocks", "show", "broken/length_not_stated.yaml"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert err == (FOLDER / "broken" / "length_not_stated.txt").read_text()
