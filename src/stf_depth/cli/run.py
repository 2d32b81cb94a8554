"""``stf-depth run``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from stf_depth.cache.remote import is_remote, mirror_of
from stf_depth.cli.causal import execute_causal, unused_options
from stf_depth.cli.common import EXIT_FAILED, is_given
from stf_depth.cli.reporters import JsonReporter, make_reporter
from stf_depth.cli.summary import announce, missing_values, print_summary, summary_values
from stf_depth.errors import ConfigError, InputError, StfDepthError

if TYPE_CHECKING:
    from stf_depth.executors.base import JobResult
    from stf_depth.pipeline.progress import Reporter

__all__ = ["assignments", "execute", "parse_size", "run"]


def run(
    ctx: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Videos, image-sequence folders, folders of videos; with --mode causal also camera numbers and URLs.",
        ),
    ],
    output_dir: Annotated[str, typer.Option(help="Results, one folder a video; a path or s3://...")] = "data/output",
    working_dir: Annotated[
        str, typer.Option(help="Cache and images, one folder a video; a path or s3://...")
    ] = "data/working",
    preset: Annotated[str, typer.Option(help="seed, offline, fast or best.")] = "fast",
    depth: Annotated[str | None, typer.Option(help="Depth: a name, hf:, onnx:, precomputed: or motion.")] = None,
    semantic: Annotated[str | None, typer.Option(help="Semantic segmentation, or none.")] = None,
    panoptic: Annotated[str | None, typer.Option(help="Panoptic segmentation, or none.")] = None,
    flow: Annotated[str | None, typer.Option(help="Optical flow: dis, raft-small or raft-large.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16, for the networks.")] = None,
    export: Annotated[str, typer.Option(help="Further formats, separated by commas.")] = "",
    fusion: Annotated[str | None, typer.Option(help="full, flow (no camera geometry) or none.")] = None,
    mode: Annotated[str, typer.Option(help="offline, or causal: frame by frame as they come.")] = "offline",
    visualize: Annotated[bool, typer.Option(help="Images under the working folder.")] = True,
    inference_pickle: Annotated[
        bool, typer.Option("--inference-pickle", help="Also write infer_result.pkl, as run.py does.")
    ] = False,
    max_frames: Annotated[int | None, typer.Option(help="At most this many frames.")] = None,
    start: Annotated[float | None, typer.Option(help="Start, in seconds.")] = None,
    end: Annotated[float | None, typer.Option(help="End, in seconds.")] = None,
    size: Annotated[str | None, typer.Option(help="Output size WxH, or the long side in pixels.")] = None,
    resume: Annotated[bool, typer.Option(help="Use what an earlier run has finished.")] = True,
    commercial: Annotated[
        bool, typer.Option("--commercial", help="Refuse weights not free for commercial use.")
    ] = False,
    executor: Annotated[str, typer.Option(help="local or ray.")] = "local",
    ray_address: Annotated[str | None, typer.Option(help="Address of a Ray cluster.")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any option, e.g. fusion.mode=flow, alignment.spans=1,2,4; null for none.",
        ),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print errors only.")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="One JSON object a line on stdout.")] = False,
) -> int:
    """Turn videos into fused depth."""
    unused: tuple[str, ...] = ()
    if mode == "causal":
        unused = unused_options({name: value for name, value in ctx.params.items() if is_given(ctx, name)})
    specs = {"depth": depth, "semantic": semantic, "panoptic": panoptic, "flow": flow}
    chosen = {**specs, "device": device, "precision": precision, "commercial": commercial or None}
    dotted = {
        "video.max_frames": max_frames,
        "video.start_seconds": start,
        "video.end_seconds": end,
        "fusion.mode": fusion,
    }
    return execute(
        inputs,
        mode=mode,
        output_dir=output_dir,
        working_dir=working_dir,
        preset=preset,
        overrides={name: value for name, value in chosen.items() if value is not None},
        options={**{k: v for k, v in dotted.items() if v is not None}, **_size_option(size), **assignments(option)},
        delivery={"exports": export, "visualize": visualize, "resume": resume, "inference_pickle": inference_pickle},
        executor=executor,
        ray_address=ray_address,
        unused=unused,
        quiet=quiet,
        log_json=log_json,
    )


def _write_index(output_dir: str | Path, reporter: Reporter) -> None:
    """A page that leads to the reports, where there is more than one."""
    from stf_depth.report import INDEX_PAGE, finished_results, is_foreign_page, write_index

    mirror = mirror_of(str(output_dir)) if is_remote(output_dir) else None
    folder = mirror.local if mirror else Path(output_dir)
    finished = finished_results(folder) if folder.is_dir() else []
    if len(finished) < 2:
        return
    if mirror:
        mirror.pull_file(INDEX_PAGE)
    if is_foreign_page(folder / INDEX_PAGE):
        reporter.message(INDEX_PAGE, f"warning: {output_dir} has a page of this name that no run has written; it stays")
        return
    write_index(finished, folder / INDEX_PAGE)
    if mirror:
        mirror.push_file(INDEX_PAGE)


def assignments(pairs: Sequence[str] | None) -> dict[str, Any]:
    """``KEY=VALUE`` pairs as a dictionary; raises ConfigError for anything else.

    Lists may be written as in JSON, ``null`` is None, and everything else stays text, for its option to understand.

    >>> assignments(["fusion.pose_offsets=[[1, 2], [3]]", "video.output_wh=null", "depth=1e3"])
    {'fusion.pose_offsets': [[1, 2], [3]], 'video.output_wh': None, 'depth': '1e3'}
    """
    values: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError("--set needs KEY=VALUE", got=pair)
        values[key.strip()] = _parsed(value.strip())
    return values


def _parsed(text: str) -> Any:
    if text != "null" and not text.startswith("["):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _size_option(size: str | None) -> dict[str, Any]:
    return {} if size is None else parse_size(size)


def parse_size(text: str) -> dict[str, Any]:
    """``"640x360"`` or ``"640"`` as video options; raises ConfigError for anything else.

    >>> parse_size("640x360")
    {'video.output_wh': (640, 360)}
    >>> parse_size("640")
    {'video.output_long_side_px': 640}
    """
    numbers = text.lower().split("x")
    if len(numbers) > 2 or not all(number.isdecimal() and int(number) > 0 for number in numbers):
        raise ConfigError("bad --size", expected="WxH or the long side, in pixels", got=text)
    values = [int(number) for number in numbers]
    if len(values) == 1:
        return {"video.output_long_side_px": values[0]}
    return {"video.output_wh": (values[0], values[1])}


def execute(
    inputs: Sequence[str | Path],
    *,
    output_dir: str | Path,
    working_dir: str | Path,
    preset: str,
    overrides: dict[str, Any],
    options: dict[str, Any],
    delivery: dict[str, Any],
    mode: str = "offline",
    executor: str = "local",
    ray_address: str | None = None,
    unused: Sequence[str] = (),
    quiet: bool = False,
    log_json: bool = False,
) -> int:
    """Process inputs and print the table; returns the exit code.

    unused: options that the mode has no use for, which is said.
    """
    if mode == "causal":
        if is_remote(output_dir):
            raise ConfigError("--mode causal writes to a folder of this machine", where="--output-dir", got=output_dir)
        return execute_causal(
            inputs, Path(output_dir), preset, overrides, options, delivery, unused, quiet=quiet, log_json=log_json
        )
    if mode != "offline":
        raise ConfigError("unknown --mode", expected="offline or causal", got=mode)
    from stf_depth.api import configure, jobs_for, process_many
    from stf_depth.executors import make_executor
    from stf_depth.export import parse_formats
    from stf_depth.pipeline.process import Delivery

    config = configure(preset, options, **overrides)
    runner = make_executor(executor, ray_address)
    wanted = Delivery(**{**delivery, "exports": tuple(parse_formats(delivery["exports"]))})
    missing: list[InputError] = []
    jobs = jobs_for([Path(path) for path in inputs], output_dir, working_dir, wanted, failures=missing)
    results: list[JobResult] = []
    console = Console(stderr=log_json)
    with make_reporter(quiet=quiet, log_json=log_json, console=console) as reporter:
        if jobs:
            announce(config, jobs, reporter)
            results = process_many(jobs, config, executor=runner, reporter=reporter)
        if any(result.outcome for result in results):
            _write_index(output_dir, reporter)
        if isinstance(reporter, JsonReporter):
            for values in [*map(missing_values, missing), *map(summary_values, results)]:
                reporter.event("result", **values)
    if results and not (quiet or log_json):
        print_summary(results, config, console)
    return _exit_code([*missing, *(result.error for result in results if result.error is not None)])


def _exit_code(errors: Sequence[StfDepthError]) -> int:
    """Say what failed, one line each."""
    for error in errors:
        typer.echo(f"error: {error}", err=True)
    return EXIT_FAILED if errors else 0
