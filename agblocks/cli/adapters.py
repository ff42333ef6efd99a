"""`agblocks adapters`: which kinds there are, what they do, what they cost on a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..adapters.planned import Planned

adapters = typer.Typer(
    help="Kinds of adapters: list, describe, count what they come to on a recipe, convert a TransferConfig.",
    rich_markup_mode=None,
)


@adapters.callback(invoke_without_command=True)
def overview(context: typer.Context) -> None:
    """Kinds of adapters: list, describe, count what they come to on a recipe, convert a TransferConfig."""
    if context.invoked_subcommand is None:
        list_kinds()


@adapters.command("list")
def list_kinds() -> None:
    """Every registered kind, what it does, and where it sits unless told."""
    from ..graph.adapter_kinds import kinds

    width = max(map(len, kinds()))
    for name, kind in sorted(kinds().items()):
        print(f"{name:{width}}  {kind.summary}")
        print(f"{'':{width}}  {_aim(kind.aim)}")


@adapters.command()
def describe(kind: Annotated[str, typer.Argument(help="a kind of adapter", show_default=False)]) -> None:
    """One kind: formula, sites, parameters, when to use it, and its arguments."""
    from ..errors import AgblocksError
    from ..graph.adapter_kinds import REQUIRED, lookup
    from ..graph.arguments import describe as words

    try:
        found = lookup(kind)
    except KeyError as error:
        raise AgblocksError(error.args[0]) from None
    print(f"{found.name}\n\n{found.doc}\n\n{_aim(found.aim)}\n")
    for argument, annotation in found.annotations.items():
        default = found.defaults[argument]
        print(f"  {argument}: {words(annotation)}{'' if default is REQUIRED else f' (default {default})'}")


@adapters.command()
def count(
    recipe: Annotated[str, typer.Argument(help="a recipe file, or a shipped recipe's name", show_default=False)],
    specs: Annotated[
        list[str] | None,
        typer.Argument(help="like lora:role=attn.q+attn.v,rank=8; default: the recipe's own", show_default=False),
    ] = None,
    override: Annotated[list[str] | None, typer.Option("--set", help="of the recipe: node.argument=value")] = None,
    sites: Annotated[bool, typer.Option("--sites", help="every site by itself")] = False,
) -> None:
    """Parameters and memory of adapters on a recipe, before anything is built."""
    from ..adapters.planned import plan
    from ..errors import AgblocksError
    from ..graph.build import build
    from ..graph.resolve import resolve

    resolved = resolve(recipe, *(override or ()))
    wanted = specs or resolved.adapters
    if not wanted:
        raise AgblocksError(f"{recipe} has no adapters of its own; name some, like lora:role=attn.q,rank=8")
    model = build(resolved, device="meta")
    for line in counted(plan(model, wanted), sum(p.numel() for p in model.parameters()), sites):
        print(line)


def counted(planned: list[Planned], parameters: int, sites: bool = False) -> list[str]:
    """The lines of `count`, for a model of so many parameters."""
    from ..adapters.planned import ADAM

    lines = []
    for part in planned:
        many = f"{len(part.sites)} site{'s' * (len(part.sites) != 1)}"
        lines.append(f"{part.spec}: {many}, {part.parameters:,} parameters")
        rows = [(s.path, s.module, 1, s.parameters) for s in part.sites] if sites else part.rows
        wide = max((len(path) for path, *_ in rows), default=0)
        for path, module, number, each in rows:
            lines.append(f"  {path:{wide}}  {f'{number} x ' * (not sites)}{module}, {each:,}{' each' * (number > 1)}")
        if part.shared:
            lines.append(f"  shared by all sites, {part.shared:,}")
    total, size = sum(part.parameters for part in planned), sum(part.bytes for part in planned)
    lines.append(
        f"together {total:,} parameters, {100 * total / max(1, parameters):.3g} % of the model's {parameters:,}"
    )
    lines.append(f"parameters {_size(size)}, gradients {_size(size)}, Adam's state {_size(ADAM * size)}")
    return lines


def _aim(aim: object) -> str:
    assert hasattr(aim, "items")
    said = ", ".join(f"{field} {' '.join(values)}" for field, values in aim.items())
    return f"sits on {said}" if said else "sits where a spec says, by role, glob, regex or type"


def _size(octets: int) -> str:
    return f"{octets / 1e6:,.2f} MB" if octets >= 1e5 else f"{octets:,} bytes"
