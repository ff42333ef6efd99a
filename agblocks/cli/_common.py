"""What commands share: the recipe and its overrides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import typer

from ..errors import AgblocksError

Recipe = Annotated[str, typer.Argument(help="a recipe file, or a shipped recipe's name", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="node.argument=value, node.in=edge or node.in.port=edge", show_default=False)
]


def adapters_of(texts: Iterable[str] | None, option: str = "") -> list[str] | None:
    """Adapters as they were typed, none as None. A text that says nothing, of an empty variable say, is an error."""
    for text in texts or ():
        kind, colon, rest = (part.strip(", ") for part in text.partition(":"))
        if not kind or (colon and not rest):
            said = f"nothing stands {'after' if kind else 'before'} {kind + colon!r}" if colon else "the text is empty"
            wanted = "wanted a kind and what it needs, like lora:role=attn.q,rank=8"
            raise AgblocksError(f"{option} {text!r}: {said}; {wanted}".lstrip())
    return list(texts or ()) or None


def print_arguments(entry: Any) -> None:
    """The arguments of a block or of a kind of adapter, a line each."""
    from ..graph.arguments import describe
    from ..graph.registry import REQUIRED

    for argument, annotation in entry.annotations.items():
        default = entry.defaults[argument]
        print(f"  {argument}: {describe(annotation)}{'' if default is REQUIRED else f' (default {default})'}")
