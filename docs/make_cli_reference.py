"""Write docs/cli.md from the command line's own definitions.

python docs/make_cli_reference.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from stf_depth.cli.main import cli

TARGET = Path(__file__).with_name("cli.md")


def reference() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(cli)
    parts = ["# Command line", "", f"{group.help} `python -m stf_depth` is the same command.", ""]
    parts += ["| option | meaning | default |", "|---|---|---|"]
    parts += [*(row(parameter) for parameter in group.params if parameter.name != "help"), ""]
    for name, command in group.commands.items():
        parts += [f"## `stf-depth {name}`", "", command.help, "", "| option | meaning | default |", "|---|---|---|"]
        parts += [row(parameter) for parameter in command.params if parameter.name != "help"]
        parts.append("")
    parts += ["Exit codes: 0 all done, 1 some inputs failed (the others are done), 2 usage, 130 interrupted.", ""]
    return "\n".join(parts)


def row(parameter: Any) -> str:
    """One option or argument as a table row."""
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    text = (getattr(parameter, "help", "") or "").replace("|", "\\|")
    default = parameter.default() if callable(parameter.default) else parameter.default
    shown = "" if default is None or default == "" else f"`{default}`"
    return f"| {names} | {text} | {shown} |"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
