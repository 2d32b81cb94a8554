"""``stf-depth run --mode causal``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from stf_depth.cli.common import EXIT_FAILED
from stf_depth.cli.reporters import JsonReporter, make_reporter
from stf_depth.cli.summary import flaw_words, flaws_of
from stf_depth.errors import StfDepthError, UsageError
from stf_depth.pipeline.progress import Reporter

__all__ = ["execute_causal"]


def execute_causal(
    inputs: Sequence[str | Path],
    output_dir: Path,
    preset: str,
    overrides: dict[str, Any],
    options: dict[str, Any],
    delivery: dict[str, Any],
    *,
    quiet: bool,
    log_json: bool,
) -> int:
    """Process sources one after the other as their frames come; returns the exit code."""
    from stf_depth.api import configure
    from stf_depth.export import parse_formats

    config = configure(preset, options, **overrides)
    formats = tuple(parse_formats(delivery["exports"]))
    failures = 0
    with make_reporter(quiet=quiet, log_json=log_json, console=Console(stderr=log_json)) as reporter:
        if config.semantic != "none" or config.panoptic != "none":
            reporter.message("causal", "semantic and panoptic segments are not used in this mode")
        for source, name in _sources(inputs):
            try:
                _run_one(source, name, config, output_dir, formats, reporter)
            except UsageError:
                raise
            except StfDepthError as error:
                failures += 1
                typer.echo(f"error: {error}", err=True)
    return EXIT_FAILED if failures else 0


def _sources(inputs: Sequence[str | Path]) -> list[tuple[str, str]]:
    """Cameras and URLs as they are, videos and the videos of folders as paths; each with the name of its result."""
    from stf_depth.live import result_name
    from stf_depth.video.discover import discover, unique_name
    from stf_depth.video.live import is_live_source

    taken: set[str] = set()
    sources = []
    for source in dict.fromkeys(map(str, inputs)):
        if is_live_source(source):
            sources.append((source, unique_name(result_name(source), None, taken)))
        else:
            sources += [(str(item.path), item.name) for item in discover([Path(source)], taken=taken)]
    return sources


def _run_one(
    source: str, name: str, config: Any, output_dir: Path, formats: tuple[str, ...], reporter: Reporter
) -> None:
    from stf_depth.export import export_result
    from stf_depth.live import run_live

    result = run_live(source, config, output_dir, name=name, reporter=reporter)
    if formats:
        export_result(result, list(formats), result.folder)
    manifest = result.manifest
    flaws = flaws_of(manifest)
    line = {**manifest["latency_ms"], "frames": len(result), "shots": len(result.shots), "output": str(result.folder)}
    if isinstance(reporter, JsonReporter):
        reporter.event("result", video=result.name, **line, **flaws)
    else:
        told = [f"{name} {value}" for name, value in line.items()]
        reporter.message(result.name, ", ".join([*told, *flaw_words(flaws)]))
