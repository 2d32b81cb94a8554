"""``stf-depth run --mode causal``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from stf_depth.cli.common import EXIT_FAILED
from stf_depth.cli.reporters import JsonReporter, make_reporter
from stf_depth.cli.summary import flaw_words, flaws_of
from stf_depth.errors import ConfigError, InputError, StfDepthError, UsageError
from stf_depth.pipeline.progress import Reporter

__all__ = ["execute_causal", "unused_options"]


def unused_options(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Options among those given that do no harm, as this mode does without them; raises ConfigError for the others.

    given: parameters of ``run`` that stand on the command line.
    """
    asks = {
        "--executor": given.get("executor", "local") != "local",
        "--ray-address": given.get("ray_address") is not None,
        "--resume": bool(given.get("resume")),
        "--visualize": bool(given.get("visualize")),
        "--inference-pickle": bool(given.get("inference_pickle")),
    }
    refused = [option for option, is_asked in asks.items() if is_asked]
    if refused:
        what = f"--mode causal cannot do what {', '.join(refused)} asks for"
        raise ConfigError(what, hint="Leave it out, or use --mode offline")
    return ("--working-dir",) if "working_dir" in given else ()


def execute_causal(
    inputs: Sequence[str | Path],
    output_dir: Path,
    preset: str,
    overrides: dict[str, Any],
    options: dict[str, Any],
    delivery: dict[str, Any],
    unused: Sequence[str] = (),
    *,
    quiet: bool,
    log_json: bool,
) -> int:
    """Process sources one after the other as their frames come; returns the exit code."""
    from stf_depth.api import configure
    from stf_depth.export import parse_formats

    config = configure(preset, options, **overrides)
    formats = tuple(parse_formats(delivery["exports"]))
    missing: list[InputError] = []
    sources = _sources(inputs, output_dir, missing)
    for error in missing:
        typer.echo(f"error: {error}", err=True)
    failures = len(missing)
    with make_reporter(quiet=quiet, log_json=log_json, console=Console(stderr=log_json)) as reporter:
        if config.semantic != "none" or config.panoptic != "none":
            reporter.message("causal", "semantic and panoptic segments are not used in this mode")
        for option in unused:
            reporter.message("causal", f"{option} is not used in this mode: nothing is cached")
        for source, name in sources:
            try:
                _run_one(source, name, config, output_dir, formats, reporter)
            except UsageError:
                raise
            except StfDepthError as failure:
                failures += 1
                typer.echo(f"error: {failure}", err=True)
    return EXIT_FAILED if failures else 0


def _sources(
    inputs: Sequence[str | Path], output_dir: Path, missing: list[InputError] | None = None
) -> list[tuple[str, str]]:
    """Cameras and URLs as they are, videos and the videos of folders as paths; each with the name of its result.

    missing: takes the errors of single inputs, which then do not stop the others.
    """
    from stf_depth.live import result_name
    from stf_depth.video.discover import discover, unique_name
    from stf_depth.video.live import is_live_source

    taken: set[str] = set()
    seen: set[Path] = set()
    sources: list[tuple[str, str]] = []
    for source in dict.fromkeys(map(str, inputs)):
        if is_live_source(source):
            sources.append((source, unique_name(result_name(source), None, taken)))
        else:
            items = discover([Path(source)], taken=taken, skipped=[output_dir], failures=missing)
            new = {item.path.parent.resolve() / item.path.name: (str(item.path), item.name) for item in items}
            sources += [one for place, one in new.items() if place not in seen]
            seen |= new.keys()
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
