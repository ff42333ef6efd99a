"""What commands share: the recipe and its overrides."""

from __future__ import annotations

from typing import Annotated

import typer

Recipe = Annotated[str, typer.Argument(help="a recipe file, or a shipped recipe's name", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="node.argument=value, node.in=edge or node.in.port=edge", show_default=False)
]
