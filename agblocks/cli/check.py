"""`agblocks check`: everything that is wrong with recipes, or one line each."""

from __future__ import annotations

from typing import Annotated

import typer


def check(
    recipes: Annotated[list[str], typer.Argument(help="recipe files or shipped names", show_default=False)],
) -> None:
    """Check recipes, and whether their adapters find their places; exit status 2 if one is wrong."""
    import sys

    from ..errors import RecipeError
    from ..graph.resolve import resolve

    wrong = 0
    for name in recipes:
        try:
            resolved = resolve(name)
            if resolved.adapters:  # only then is something built, without memory
                from ..adapters.planned import check as check_adapters

                check_adapters(resolved)
        except RecipeError as error:
            wrong += 1
            print(error, file=sys.stderr)
            continue
        adapters = f", adapters {' '.join(map(str, resolved.adapters))}" if resolved.adapters else ""
        heads = ", ".join(resolved.heads) or "none"
        print(f"{name}: {len(resolved.nodes)} nodes, heads {heads}{adapters}; {resolved.rule()}")
    if wrong:
        raise typer.Exit(2)
