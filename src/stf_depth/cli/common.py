"""What the commands share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer
from rich.table import Table
from rich.text import Text

from stf_depth.errors import StfDepthError, UsageError

__all__ = ["EXIT_FAILED", "EXIT_INTERRUPTED", "EXIT_USAGE", "guarded", "is_given", "table_of"]

# Typer carries its own copy of click in newer releases: the base of its usage errors is found through a public one.
_CLICK_ERROR: type[Exception] = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


def guarded(command: typer.Typer, arguments: Sequence[str] | None) -> int:
    """Run a command line and return its exit code; every expected error is one line on stderr."""
    # Threads that spin while they wait make a busy machine many times slower; the numeric libraries load after this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        code = command(args=None if arguments is None else list(arguments), standalone_mode=False)
    except _CLICK_ERROR as error:
        sys.stderr.write(_usage_message(error, sys.argv[1:] if arguments is None else arguments))
        return EXIT_USAGE
    except (typer.Abort, KeyboardInterrupt):
        code = EXIT_INTERRUPTED  # newer releases of Typer return it, older ones raise
    except StfDepthError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    except OSError as error:  # the system's own words: a path that is too long, a folder that may not be listed
        sys.stderr.write(f"error: {error}\n")
        return EXIT_FAILED
    if code == EXIT_INTERRUPTED:
        sys.stderr.write("interrupted: run the same command again to resume\n")
    return code if isinstance(code, int) else 0


def _usage_message(error: Exception, arguments: Sequence[str]) -> str:
    """What was wrong with a command line, with the name of the option; nothing where the help was shown instead."""
    text = str(getattr(error, "format_message", lambda: error)())
    if not text:
        return ""
    paths = [one for one in arguments if one.startswith("-") and Path(one).suffix[1:2].isalpha()]
    if paths:
        text += f" A path that begins with a dash is written ./{paths[0]}, or after --"
    return f"error: {' '.join(text.split())}\n"


def is_given(ctx: typer.Context, name: str) -> bool:
    """Whether a parameter stands on the command line."""
    return getattr(ctx.get_parameter_source(name), "name", "") == "COMMANDLINE"


def table_of(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, header: bool = True) -> Table:
    """A table that folds what is too wide and shows every text as it is: names may look like markup."""
    table = Table(title=Text(title, style="table.title"), show_header=header)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
