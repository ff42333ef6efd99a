"""`agblocks show`: a resolved recipe, with every edge's shape."""

from __future__ import annotations

from typing import Annotated

import typer

from ._common import Overrides, Recipe


def show(
    recipe: Recipe,
    overrides: Overrides = None,
    keep: Annotated[list[str] | None, typer.Option(help="keep these edges though no head reads them")] = None,
    mermaid: Annotated[bool, typer.Option(help="draw the graph as a Mermaid flowchart")] = False,
    inner: Annotated[bool, typer.Option(help="draw the nodes inside composites too")] = False,
    yaml: Annotated[bool, typer.Option(help="print the recipe with its bases and overrides applied")] = False,
) -> None:
    """Print what a recipe resolves to: nodes, shapes, parameters, receptive fields, length rules."""
    from ..graph import describe
    from ..graph.resolve import resolve

    resolved = resolve(recipe, *(overrides or ()), keep=keep or ())
    if mermaid:
        print(describe.mermaid(resolved, inner))
    elif yaml:
        import sys

        from ruamel.yaml import YAML

        YAML(typ="safe", pure=True).dump(resolved.recipe, sys.stdout)
    else:
        print(describe.summary(resolved))
