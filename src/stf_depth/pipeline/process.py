"""One video from file to result, stage by stage. This page is the pipeline."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stf_depth.cache.files import read_json, write_json
from stf_depth.cache.store import DamagedChunkError, StageStore, forget_chunk
from stf_depth.config import RunConfig
from stf_depth.errors import StfDepthError
from stf_depth.evaluation.consistency import flicker_measures
from stf_depth.export import export_result, failures_as_error
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.fuse import fuse_video
from stf_depth.pipeline.geometry import build_structure, solve_cameras
from stf_depth.pipeline.images import refuse_foreign_images, write_images
from stf_depth.pipeline.inference_cache import (
    has_inference_pickle,
    load_inference_pickle,
    save_inference_pickle,
    tell_loaded,
)
from stf_depth.pipeline.manifest import build_manifest, refuse_anothers_result
from stf_depth.pipeline.observations import Observations, observe, open_rgb, open_roles
from stf_depth.pipeline.perceive import Perceived, perceive
from stf_depth.pipeline.plan import VideoFolders, VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.views import as_disparity
from stf_depth.pipeline.windows import gather_windows, locked
from stf_depth.result import DepthResult
from stf_depth.types import CameraPath
from stf_depth.video.digest import content_digest
from stf_depth.video.discover import InputItem
from stf_depth.video.reader import VideoReader, open_video

__all__ = ["Delivery", "Outcome", "process_video"]

# What every run writes beside depth.zarr, unless asked not to.
STANDARD_EXPORTS = ("mp4", "comparison", "report")


@dataclass(frozen=True)
class Delivery:
    """What is made from the fused depth, and for whom.

    exports: names of formats. visualize: images under the working folder. standard: the videos and the report of a
    result folder. inference_pickle: the cache file of the original interface. resume: whether cached stages count.
    """

    exports: tuple[str, ...] = ()
    visualize: bool = True
    standard: bool = True
    inference_pickle: bool = False
    resume: bool = True


@dataclass(frozen=True)
class Outcome:
    """One line of the table that ends a run."""

    result: DepthResult
    frames: int
    failed_frames: int
    seconds: float
    stages_run: tuple[str, ...]
    fallbacks: tuple[str, ...] = field(default=())

    @property
    def reused(self) -> bool:
        """Whether everything was there already."""
        return not self.stages_run


class _StageClock:
    """Passes progress on and remembers how long each stage took."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._since = time.perf_counter()
        self._stage = ""
        self.seconds: dict[str, float] = {}

    def stage(self, video: str, stage: str, total: int | None) -> None:
        now = time.perf_counter()
        if self._stage:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        if stage:
            self.seconds.setdefault(stage, 0.0)
            self._reporter.stage(video, stage, total)

    def advance(self, frames: int) -> None:
        self._reporter.advance(frames)

    def message(self, video: str, text: str) -> None:
        self._reporter.message(video, text)


def process_video(
    item: InputItem,
    config: RunConfig,
    backends: Backends,
    folders: VideoFolders,
    delivery: Delivery,
    reporter: Reporter,
) -> Outcome:
    """Make, resume or reuse the result of one video.

    Raises InputError, ModelError, CacheError, OutputError or DepthError; whatever was finished before stays, and so
    does the finished result of another video.
    """
    with locked(folders):
        plan = VideoPlan(content_digest(item.path), config, backends, folders)
        refuse_anothers_result(folders.output, str(item.path.resolve()), plan.input_digest)
        if delivery.visualize:
            refuse_foreign_images(folders, item.path)
        if not delivery.resume:
            plan.discard()
        return _with_repairs(lambda: _process(plan, item, delivery, reporter), item.name, reporter)


def _with_repairs(attempt: Callable[[], Outcome], name: str, reporter: Reporter) -> Outcome:
    """Run, and run again after a damaged chunk of the cache, which then counts as missing."""
    repaired = set()
    while True:
        try:
            return attempt()
        except DamagedChunkError as error:
            if (error.folder, error.chunk) in repaired:
                raise
            repaired.add((error.folder, error.chunk))
            reporter.message(name, f"{error.what}: {error.where}. It is computed again")
            forget_chunk(error.folder, error.chunk)


def _process(plan: VideoPlan, item: InputItem, delivery: Delivery, reporter: Reporter) -> Outcome:
    clock = _StageClock(reporter)
    began = time.perf_counter()
    open_reader = _reader(plan, item)

    gather_windows(plan, item.name, clock)
    loaded = load_inference_pickle(plan)
    perceived = perceive(plan, item, open_reader, clock)
    cameras, structure = _geometry(plan, item, perceived, clock)
    seen = observe(plan, cameras, structure)
    store = fuse_video(plan, item.name, perceived, seen, open_reader, clock)
    result = _manifest(plan, item, perceived, cameras, store, seen, clock)
    _deliver(plan, item, perceived, seen, result, delivery, open_reader, clock)

    clock.stage(item.name, "", None)
    tell_loaded(plan, item.name, loaded, reporter)
    return Outcome(
        # Another one: what was decoded for the exports does not stay until the run ends.
        result=DepthResult(plan.folders.output),
        frames=perceived.frame_count,
        failed_frames=perceived.failed_frames,
        seconds=time.perf_counter() - began,
        stages_run=tuple(clock.seconds),
        fallbacks=tuple(shot["fallback"] for shot in result.manifest["shots"] if shot["fallback"]),
    )


def _reader(plan: VideoPlan, item: InputItem) -> Callable[[], VideoReader]:
    return lambda: open_video(item.path, **plan.reading)


def _geometry(
    plan: VideoPlan, item: InputItem, perceived: Perceived, reporter: Reporter
) -> tuple[list[CameraPath], StageStore | None]:
    """Cameras and triangulated depth, where this configuration uses them."""
    if not plan.uses_geometry:
        return [], None
    rgb, roles = open_rgb(plan), open_roles(plan)
    cameras = solve_cameras(plan, item.name, perceived, rgb, roles, reporter)
    return cameras, build_structure(plan, item.name, perceived, rgb, roles, reporter)


def _manifest(
    plan: VideoPlan,
    item: InputItem,
    perceived: Perceived,
    cameras: list[CameraPath],
    store: StageStore,
    seen: Observations,
    clock: _StageClock,
) -> DepthResult:
    """Declare the result whole: from here on it can be opened."""
    written = read_json(plan.folders.manifest)
    if written is None or written.get("key") != plan.keys["fusion"]:
        clock.stage(item.name, "flicker", None)
        values = _flicker(store, perceived, seen)
        clock.stage(item.name, "", None)
        manifest = build_manifest(
            plan, item, perceived, cameras, store, flicker=values, seconds_by_stage=dict(clock.seconds)
        )
        write_json(plan.folders.manifest, manifest)
    return DepthResult(plan.folders.output)


def _flicker(store: StageStore, perceived: Perceived, seen: Observations) -> dict[str, float | None]:
    """Flow-warp error of the clip before and after fusion, in percent; None where nothing can be measured."""
    fused = as_disparity(store.frames("depth"), seen.representation)
    stacks = {
        "per_frame": (as_disparity(seen.depth, seen.representation), seen.valid),
        "fused": (fused, store.frames("valid")),
    }
    measures = flicker_measures(list(stacks.values()), seen.rgb, shots=perceived.shots)
    values = {name: measure.value for name, measure in zip(stacks, measures, strict=True)}
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in values.items()}


def _deliver(
    plan: VideoPlan,
    item: InputItem,
    perceived: Perceived,
    seen: Observations,
    result: DepthResult,
    delivery: Delivery,
    open_reader: Callable[[], VideoReader],
    clock: _StageClock,
) -> None:
    """Videos, exports, images and the original interface's cache: whatever is not there yet.

    Raises ExportError at the end where a format cannot be written: the depth and the other formats stay.
    """
    if delivery.inference_pickle and not has_inference_pickle(plan):
        clock.stage(item.name, "infer_result.pkl", None)
        save_inference_pickle(plan, item.name, perceived, seen)
    if delivery.visualize:
        write_images(plan, item.name, perceived, result, open_reader, clock)
    wanted = dict.fromkeys([*(STANDARD_EXPORTS if delivery.standard else ()), *delivery.exports])
    failures: dict[str, StfDepthError] = {}
    for name in wanted:
        if _exported(result, name):
            continue
        clock.stage(item.name, name, perceived.frame_count)
        try:
            _record_export(result, name, export_result(result, [name], plan.folders.output)[name])
        except DamagedChunkError:
            raise  # it is repaired, and everything is tried again
        except StfDepthError as error:
            failures[name] = error
    if failures:
        raise failures_as_error(plan.folders.output, failures)


def _exported(result: DepthResult, name: str) -> bool:
    manifest = read_json(result.folder / "manifest.json") or {}
    files = manifest.get("exports", {}).get(name)
    return isinstance(files, dict) and all(_size(result.folder, path) == size for path, size in files.items())


def _size(folder: Path, name: str) -> int:
    """Size of a file in a folder, -1 where there is none, or for a name that leads out of the folder."""
    path = Path(name)
    is_inside = not path.is_absolute() and ".." not in path.parts
    return (folder / path).stat().st_size if is_inside and (folder / path).exists() else -1


def _record_export(result: DepthResult, name: str, written: list[Any]) -> None:
    manifest = read_json(result.folder / "manifest.json")
    files = [file for path in written for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    sizes = {str(file.relative_to(result.folder)): file.stat().st_size for file in files if file.is_file()}
    manifest["exports"][name] = sizes
    write_json(result.folder / "manifest.json", manifest)
