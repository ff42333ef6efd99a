"""`agblocks diff`: what differs between two recipes."""

from __future__ import annotations

from typing import Annotated

import typer


def diff(
    left: Annotated[str, typer.Argument(help="a recipe", show_default=False)],
    right: Annotated[str, typer.Argument(help="another", show_default=False)],
) -> None:
    """Print the changes that turn one resolved recipe into another; exit status 1 if there are any."""
    from ..graph.diff import diff as changes
    from ..graph.resolve import resolve

    found = changes(resolve(left), resolve(right))
    for change in found:
        print(change)
    if found:
        raise typer.Exit(1)
