"""The command ``stf-depth``: a thin translation into the Python interface.

Exit codes: 0 all done, 1 some inputs failed, 2 usage, 130 interrupted (run again to resume).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from stf_depth import __version__
from stf_depth.cli.common import guarded
from stf_depth.cli.demo import demo
from stf_depth.cli.evaluate import evaluate
from stf_depth.cli.export import export, view
from stf_depth.cli.info import cache, doctor, models
from stf_depth.cli.run import run
from stf_depth.cli.serve import app

__all__ = ["cli", "main"]

cli = typer.Typer(
    name="stf-depth",
    help="Stable, sharp depth for ordinary videos.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (run, evaluate, export, view, app, models, cache, doctor, demo):
    cli.command()(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stf-depth {__version__}")
        raise typer.Exit


@cli.callback()
def shared(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """What stands before the name of a command."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return guarded(cli, arguments)


if __name__ == "__main__":
    sys.exit(main())
