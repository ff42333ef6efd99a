"""`agblocks convert`: published weights as a file of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ._common import Overrides


def convert(
    source: Annotated[str, typer.Argument(help="a file, a folder, or a hub repository owner/name", show_default=False)],
    to: Annotated[Path, typer.Option("--to", help="the .safetensors file to write", show_default=False)],
    recipe: Annotated[str, typer.Option(help="what to load it into", show_default=False)],
    overrides: Overrides = None,
    format: Annotated[str, typer.Option(help="the source's format; default: found out from its keys")] = "",
    into: Annotated[list[str] | None, typer.Option(help="load these nodes only: encoder, 'tower.layer*'")] = None,
    node: Annotated[list[str] | None, typer.Option(help="standard=mine, where nodes are called otherwise")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="missing | unexpected | shape: report it, go on")] = None,
    revision: Annotated[str, typer.Option(help="of a hub repository; a commit pins it")] = "",
    file: Annotated[str, typer.Option(help="which file of a folder or hub repository")] = "",
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
) -> None:
    """Load weights into a recipe and write them under our names; says what became of every tensor."""
    from ..weights import WeightsError
    from ..weights.convert import convert as convert_weights

    pairs = [said.partition("=") for said in node or ()]
    if odd := [start for start, equals, _ in pairs if not equals]:
        raise WeightsError(f"--node {odd[0]}: wanted standard=mine")
    report = convert_weights(
        source, to, recipe, *(overrides or ()), format=format or None, into=into or None,
        nodes={standard: mine for standard, _, mine in pairs}, allow=allow or (),  # type: ignore[arg-type]
        revision=revision or None, file=file or None, force=force,
    )  # fmt: skip
    print(report)
    print(f"written: {to}")
