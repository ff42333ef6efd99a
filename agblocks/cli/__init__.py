"""The command line: one file a command, each a function of the file's name.

Bad input ends with its message on standard error, unwrapped, and exit status 2.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


def app() -> Any:
    """The typer application with every command of this folder."""
    import typer

    made = typer.Typer(
        name="agblocks",
        help="Assemble, check and train sequence-to-function models of regulatory DNA from recipes.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    for module in iter_modules(__path__):
        if not module.name.startswith("_"):
            command = getattr(import_module(f"{__name__}.{module.name}"), module.name)
            if isinstance(command, typer.Typer):  # a command with commands of its own
                made.add_typer(command, name=module.name)
            else:
                made.command(module.name)(command)
    return made


def main() -> None:
    """Run the command line."""
    from ..errors import AgblocksError

    try:
        app()(standalone_mode=True)
    except AgblocksError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
