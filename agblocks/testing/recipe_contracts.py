"""What holds for every recipe: `check_recipe` tries it on one of yours."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import RecipeError
from ..graph.resolve import Resolved, resolve
from .contract import Broken
from .mutations import Mutant
from .recipe_promises import (
    Recipe,
    cut,
    economy,
    idempotent,
    key_order,
    length_rule,
    names,
    pruning,
    shapes,
)

PATIENCE = 2.0  # seconds of processor time for any recipe


@dataclass(frozen=True)
class RecipeContract:
    """A promise that holds for every recipe that resolves."""

    name: str
    check: Callable[[Recipe], None]


RECIPE_CONTRACTS: tuple[RecipeContract, ...] = tuple(
    RecipeContract(check.__name__, check)
    for check in (idempotent, key_order, names, pruning, shapes, length_rule, cut, economy)
)


def check_recipe(recipe: Recipe) -> None:
    """Try every contract of recipes on a dict that resolves. Raises one AssertionError that lists all broken."""
    broken = []
    for contract in RECIPE_CONTRACTS:
        try:
            contract.check(recipe)
        except Exception as error:
            broken.append(f"{contract.name}: {error if isinstance(error, Broken) else repr(error)}")
    if broken:
        raise Broken("\n".join([*broken, f"recipe: {dict(recipe)!r}"]))


def survives(mutant: Mutant, patience: float = PATIENCE) -> Resolved | RecipeError:
    """Whatever is written, resolving gives a recipe or a located `RecipeError`, in time."""
    start = time.process_time()
    result: Resolved | RecipeError
    try:
        result = resolve(mutant)
    except RecipeError as error:
        result = error
        for problem in error.problems:
            # A dict has no lines, and the empty path is the recipe as a whole.
            if problem.mark is None and not problem.path and isinstance(mutant, str):
                raise Broken(f"a problem without a place: {problem.message!r}") from None
        if not error.problems:
            raise Broken("a RecipeError without problems") from None
        if bad := [c for c in str(error) if not c.isprintable() and c != "\n"]:
            raise Broken(f"an unprintable character in the message: {bad[0]!r}") from None
    except Exception as error:
        raise Broken(f"{type(error).__name__} instead of a RecipeError: {error}") from error
    if time.process_time() - start > patience:
        raise Broken(f"it took {time.process_time() - start:.1f} seconds")
    return result
