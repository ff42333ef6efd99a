"""`agblocks blocks`: what is registered, and what a block takes."""

from __future__ import annotations

from typing import Annotated

import typer


def blocks(
    name: Annotated[str | None, typer.Argument(help="a block to describe", show_default=False)] = None,
) -> None:
    """List the registered blocks, heads and composites, or describe one."""
    from ..errors import AgblocksError
    from ..graph.registry import entries, lookup
    from ._common import print_arguments

    if name is None:
        width = max(map(len, entries()))
        for entry in sorted(entries().values(), key=lambda e: e.name):
            print(f"{entry.name:{width}}  {entry.summary}")
        return
    try:
        entry = lookup(name)
    except KeyError as error:
        raise AgblocksError(error.args[0]) from None
    print(f"{entry.name} ({entry.kind})\n{entry.signature}\n\n{entry.doc}\n")
    print_arguments(entry)
