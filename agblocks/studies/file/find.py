"""Where studies are found: by path, then by name among the shipped ones; and how overrides change what is read."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import Mark, Problem, RecipeError, near, shown
from ...graph.find import shipped_folder
from ...graph.forms import Findings
from ...graph.source import Tree, from_override, from_python, read_file, read_text
from ..errors import StudyError
from .study import Study
from .text import read_study


@cache
def shipped_studies() -> dict[str, Path]:
    """Every shipped study by name."""
    return {file.stem: file for file in sorted(shipped_folder("shipped_studies", "studies").glob("*.yaml"))}


def load_study(study: str | Path | Mapping[str, Any], *overrides: str) -> Study:
    """Read a study: a path, a shipped name, YAML text with a newline, or a mapping of the same form.

    overrides: `cell.training.epochs=2`, `vary.seed=[0]`, `data.human.construct=none`, `controls=[]`, as on the command
        line; `null` takes back what the file says (an axis, a path of the cell).
    Errors: `StudyError` with everything that is wrong with its form, each with file, line and caret.
    """
    file, name = None, "study"
    try:
        if isinstance(study, Mapping):
            tree = from_python(study, "study")
        elif isinstance(study, str) and "\n" in study:
            tree = read_text(study, "study")
        else:
            file, label = _found(study)
            tree, name = read_file(file, label), file.stem
    except RecipeError as error:
        raise StudyError(error.problems) from None
    findings = Findings()
    for number, text in enumerate(overrides, 1):
        _override(tree, text, number, findings)
    made = read_study(tree, name, file, findings)
    if findings:
        raise StudyError(findings)
    words = ["agblocks", "study", "run", str(study) if file is not None else "STUDY", *overrides]
    return _with_command(made, shlex.join(words))


def _with_command(study: Study, command: str) -> Study:
    from dataclasses import replace

    return replace(study, command=command)


def _found(study: str | Path) -> tuple[Path, str]:
    path = Path(study)
    if path.is_file():
        return path.resolve(), str(study)
    if str(study) in shipped_studies():
        file = shipped_studies()[str(study)]
        return file, f"studies/{file.name}"
    kind = "file" if path.suffix in (".yaml", ".yml") or len(path.parts) > 1 else "shipped study"
    raise StudyError([Problem(f"there is no {kind} {shown(str(study))}; {near(str(study), shipped_studies())}")])


# How many names stand before the last part of an override's path, which may have dots in it.
_DEPTH = {"cell": 1, "vary": 1, "data": 2, "pretrain": 2, "similarity": 2, "report": 1, "resources": 1, "reference": 1}


def _override(tree: Tree, text: str, number: int, findings: Findings) -> None:
    path, equals, value = text.partition("=")
    shown_text = "".join(c if c.isprintable() else "?" for c in text)
    mark = Mark("command line", number, 1, shown_text)
    if not equals or not path:
        findings.find(f"an override is 'path=value', like cell.training.epochs=2, unlike {text[:60]!r}", mark)
        return
    try:
        new = from_override(value, Mark("command line", number, len(path) + 2, shown_text))
    except RecipeError as error:
        findings.extend(error.problems)
        return
    first = path.partition(".")[0]
    parts = path.split(".", _DEPTH.get(first, 0))
    here = tree
    for part in parts[:-1]:
        if not here.is_map:
            break
        if part not in here.value or here.value[part].value is None:
            here.value[part] = Tree({}, mark)
            here.keys[part] = mark
        here = here.value[part]
    if not here.is_map:
        findings.find(f"{shown(path)} goes into something that is no mapping", mark, path)
        return
    last = parts[-1]
    if first in ("cell", "data", "pretrain") and len(parts) > 1:
        _forget(here, last)
    if new.value is None and first in ("vary", "similarity", "report", "reference"):
        here.value.pop(last, None)
        return
    here.value[last] = new
    here.keys[last] = mark


def _forget(here: Tree, path: str) -> None:
    """Take out of a mapping of paths what an override says anew, however the file wrote it."""
    for key in [k for k in here.value if k == path or k.startswith(f"{path}.")]:
        del here.value[key]
    section, dot, rest = path.partition(".")
    inside = here.value.get(section)
    if dot and inside is not None and inside.is_map:
        inside.value.pop(rest, None)
