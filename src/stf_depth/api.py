"""The Python interface: what the command does, as functions."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from stf_depth.cache.remote import Mirror, is_remote, mirror_of
from stf_depth.config import RunConfig, preset
from stf_depth.errors import InputError, InputNotFoundError, StfDepthError
from stf_depth.executors.base import Executor, Job, JobResult
from stf_depth.executors.local import LocalExecutor
from stf_depth.export import parse_formats
from stf_depth.pipeline.plan import VideoFolders
from stf_depth.pipeline.process import Delivery
from stf_depth.pipeline.progress import Reporter, SilentReporter
from stf_depth.result import DepthResult
from stf_depth.video.discover import discover

__all__ = ["jobs_for", "open_result", "process", "process_many"]


def process(
    video: str | PathLike[str],
    *,
    preset: str = "fast",
    output_dir: str | PathLike[str] = "data/output",
    working_dir: str | PathLike[str] = "data/working",
    exports: str | Sequence[str] = (),
    options: dict[str, Any] | None = None,
    reporter: Reporter | None = None,
    **overrides: Any,
) -> DepthResult:
    """Depth of one video or image-sequence folder.

    preset, exports, overrides: as on the command line (``exports="npz,exr"``, ``depth="dpt-large"``). options: nested
    options by dotted name (``{"fusion.mode": "flow"}``). A result that is there already is opened, an unfinished one
    is resumed.

    Raises UsageError, InputError, ModelError, CacheError or OutputError. A folder of several videos is an InputError.

    >>> result = process("clip.mp4", preset="offline")  # doctest: +SKIP
    >>> result.depth[0].shape, str(result.ambiguity)  # doctest: +SKIP
    ((360, 640), 'scale')
    """
    config = configure(preset, options, **overrides)
    delivery = Delivery(exports=tuple(parse_formats(exports)), visualize=False, standard=False)
    if not fspath(video):
        raise InputNotFoundError("no path to a video was given", hint="Name a video file or a folder of its images")
    jobs = jobs_for([Path(video)], output_dir, working_dir, delivery)
    if len(jobs) != 1:
        raise InputError(
            "one video is expected",
            where=video,
            got=f"{len(jobs)} of them",
            hint="Name one, or process all with jobs_for and process_many",
        )
    done = process_many(jobs, config, reporter=reporter)[0]
    if done.error is not None or done.outcome is None:
        raise done.error or StfDepthError("nothing was processed", where=video)
    return done.outcome.result


def configure(preset_name: str, options: dict[str, Any] | None = None, **overrides: Any) -> RunConfig:
    """A preset with top-level fields and dotted options replaced; raises ConfigError for unknown ones."""
    return preset(preset_name, **overrides).with_values(options or {})


def jobs_for(
    inputs: Sequence[Path],
    output_dir: str | PathLike[str],
    working_dir: str | PathLike[str],
    delivery: Delivery,
    *,
    failures: list[InputError] | None = None,
) -> list[Job]:
    """One job for each video or sequence under ``inputs``; what lies in the folders of the run is none.

    output_dir, working_dir: a path, or a URL of shared storage (``s3://bucket/results``), which is worked on as a local
    copy. failures: takes the errors of single inputs, which then do not stop the others.

    Raises InputNotFoundError for a path that is not there or a folder without videos, ConfigError for a bad URL.
    """
    (working, shared_working), (output, shared_output) = _place(working_dir), _place(output_dir)
    items = discover(inputs, skipped=[working, output], failures=failures)
    shared = [mirror for mirror in (shared_working, shared_output) if mirror is not None]
    return [
        Job(
            item,
            VideoFolders(working / item.name, output / item.name),
            delivery,
            tuple(mirror.of(item.name) for mirror in shared),
        )
        for item in items
    ]


def _place(folder: str | PathLike[str]) -> tuple[Path, Mirror | None]:
    if not is_remote(folder):
        return Path(folder), None
    mirror = mirror_of(fspath(folder))
    return mirror.local, mirror


def process_many(
    jobs: Sequence[Job], config: RunConfig, *, executor: Executor | None = None, reporter: Reporter | None = None
) -> list[JobResult]:
    """Process jobs; failures are in the results, not raised."""
    return (executor or LocalExecutor()).run(jobs, config, reporter or SilentReporter())


def open_result(folder: str | PathLike[str]) -> DepthResult:
    """Open a finished result folder. Raises InputNotFoundError or OutputError."""
    return DepthResult(Path(folder))
