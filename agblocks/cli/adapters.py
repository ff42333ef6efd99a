"""`agblocks adapters`: which kinds there are, what they do, what they cost on a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ._common import adapters_of

if TYPE_CHECKING:
    from pathlib import Path

    from ..adapters.planned import Planned
    from ..adapters.transfer_config.config import TransferConfig

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
    from ..graph.adapter_kinds import lookup
    from ._common import print_arguments

    try:
        found = lookup(kind)
    except KeyError as error:
        raise AgblocksError(error.args[0]) from None
    print(f"{found.name}\n\n{found.doc}\n\n{_aim(found.aim)}\n")
    print_arguments(found)


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
    wanted = adapters_of(specs) or resolved.adapters
    model = build(resolved, device="meta")
    if not wanted:
        roles = sorted({role for module in model.modules() if (role := module.__dict__.get("role"))})
        example = f", as in `agblocks adapters count {recipe} bitfit:role={roles[0]}`" if roles else ""
        has = f"{recipe} has no adapters of its own; name some{example}"
        raise AgblocksError(f"{has}; roles that it has: {', '.join(roles) or 'none'}")
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


@adapters.command()
def convert(
    config: Annotated[
        list[str],
        typer.Argument(help="a JSON file, or key=value like mode=lora,ia3 lora_targets=q_proj", show_default=False),
    ],
    recipe: Annotated[str, typer.Option(help="what to read the names against")] = "alphagenome",
    names: Annotated[
        str, typer.Option(help="a file with the keys of a checkpoint, one a line: adapters for that package's model")
    ] = "",
    yaml: Annotated[
        bool, typer.Option("--yaml", help="print the recipe that it becomes, with remarks as comments")
    ] = False,
) -> None:
    """What a TransferConfig of alphagenome-pytorch becomes; exit status 2 if one of its texts finds nothing."""
    from pathlib import Path

    from ..adapters.planned import plan
    from ..adapters.transfer_config.transferred import convert as converted
    from ..errors import AgblocksError
    from ..graph.build import build

    model = build(recipe, device="meta")
    keys = [line.split("\t")[0].strip() for line in _text(Path(names)).splitlines()] if names else None
    made = converted(_config(config), model, keys=keys, base=recipe)
    if made.unmatched:
        print(made)
        texts = ", ".join(repr(found.text) for found in made.unmatched)
        raise AgblocksError(f"nothing in {names or recipe} is called {texts}; no adapter was made of it")
    if yaml:
        if made.recipe is None:
            raise AgblocksError("--yaml prints a recipe, but with --names adapters are for another package's model")
        import sys

        from ruamel.yaml import YAML

        for note in made.notes:
            print(f"# {note}")
        YAML(typ="safe", pure=True).dump(made.recipe, sys.stdout)
        return
    print(made)
    if made.specs and keys is None:
        for line in counted(plan(model, made.specs), sum(p.numel() for p in model.parameters())):
            print(line)


def _config(said: list[str]) -> TransferConfig:
    """A JSON file, or keys and values."""
    import json
    from pathlib import Path

    from ..adapters.transfer_config.config import TransferConfig
    from ..errors import AgblocksError, shown

    if len(said) > 1 or "=" in said[0]:
        return TransferConfig.parse(said)

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, value in pairs:
            if name in found:
                raise AgblocksError(f"{said[0]}: {shown(name)} is said twice")
            found[name] = value
        return found

    try:
        return TransferConfig.read(json.loads(_text(Path(said[0])), object_pairs_hook=once))
    except (json.JSONDecodeError, RecursionError) as error:
        raise AgblocksError(f"{said[0]}: not JSON: {error}") from None


def _text(path: Path) -> str:
    from ..errors import AgblocksError

    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise AgblocksError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
