"""``stf-depth export`` and ``stf-depth view``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from stf_depth.cli.common import EXIT_FAILED
from stf_depth.errors import ConfigError, StfDepthError

__all__ = ["export", "view"]


def export(
    result: Annotated[Path, typer.Argument(help="A result folder, or a folder of them.")],
    formats: Annotated[str, typer.Option("--format", help="Formats, separated by commas.")],
    out: Annotated[Path | None, typer.Option(help="Folder to write to; the result's own when left out.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="An option of the format.")
    ] = None,
    to_metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REFERENCE",
            help="Turn the depth into metres first: pixel:X,Y[@FRAME]=METRES or camera-height:METRES[@FRAME], once for "
            "each shot; or model:SPEC, a metric model, for all.",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite/--skip-existing", help="What to do with files there.")] = True,
) -> int:
    """Write a finished result in other formats; no network runs."""
    from stf_depth.cli.run import assignments
    from stf_depth.export import FORMATS, attempt_tree, parse_formats

    if not parse_formats(formats):
        raise ConfigError("no format was named", where="--format", expected=f"some of {', '.join(FORMATS)}")
    existing: Literal["overwrite", "skip"] = "overwrite" if overwrite else "skip"
    chosen: dict[str, Any] = {**assignments(option), **({"to_metric": to_metric} if to_metric else {})}
    failed: list[str] = []
    for folder, done in attempt_tree(result, formats, out, existing=existing, **chosen):
        for name, files in done.files.items():
            for file in files[:3]:
                typer.echo(f"{name}: {file}")
            if len(files) > 3:
                typer.echo(f"{name}: and {len(files) - 3} more")
        failed += _failure_lines(folder, done.failures)
    for line in failed:
        typer.echo(f"error: {line}", err=True)
    return EXIT_FAILED if failed else 0


def _failure_lines(folder: Path, failures: Mapping[str, StfDepthError]) -> list[str]:
    """One line for each message, with the formats that it concerns; most messages name the folder."""
    formats: dict[str, list[str]] = {}
    for name, error in failures.items():
        formats.setdefault(str(error), []).append(name)
    lines = {text: f"{', '.join(names)}: {text}" for text, names in formats.items()}
    return [line if str(folder) in text else f"{folder}: {line}" for text, line in lines.items()]


def view(
    result: Annotated[Path, typer.Argument(help="A result folder, or a saved .rrd file.")],
    save: Annotated[Path | None, typer.Option(help="Write an .rrd file instead of opening a window.")] = None,
) -> None:
    """Look at a result in rerun: frames, depth, segments, point cloud and camera, synchronised."""
    from stf_depth.viewer import view as show

    typer.echo(str(show(result, save=save)))
