"""A transfer from YAML: what is wrong is told with line, column and a caret."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from ...errors import Mark, Problem, RecipeError
from ...graph.resolved import Resolved
from ...graph.source import Tree, read_file
from .fields import TransferError, Where, at
from .transfer import Transfer

SECTION = "transfer"


def read_transfer(
    tree: Tree, problems: list[Problem], section: str = SECTION, recipe: Resolved | None = None
) -> Transfer | None:
    """The transfer of a section, or None where something is wrong, which goes to `problems`.

    section: its path in the file. recipe: where there is one, names are checked against its model.
    """
    try:
        found = Transfer.from_dict(tree.plain())
        if recipe is not None:
            found.check(recipe)
    except TransferError as error:
        problems.extend(Problem(message, _mark(tree, path), at(path, section)) for path, message in error.wrong)
        return None
    return found


def read_transfer_file(path: str | Path, recipe: Resolved | None = None) -> Transfer:
    """The transfer of a YAML file, which holds the section's keys, or the section as `transfer:`.

    Errors: `RecipeError` with everything that is wrong.
    """
    tree = read_file(Path(path), str(path))
    if tree.is_map and set(tree.value) == {SECTION}:
        tree = tree.value[SECTION]
    problems: list[Problem] = []
    found = read_transfer(tree, problems, recipe=recipe)
    if found is None:
        raise RecipeError(problems)
    return found


def _mark(tree: Tree, path: Where) -> Mark | None:
    """Where something stands: the value of a path, or the key of one that is none."""
    if len(path) == 1 and tree.is_map:
        key = str(path[0])
        value = tree.value.get(key)
        known = key in {field.name for field in fields(Transfer)}
        return value.mark if known and value is not None and not value.is_map else tree.key_mark(key)
    return tree.find(path).mark
