"""Splitting one long video: which windows are worth it, and how one is filled. Knows nothing of who runs them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from stf_depth.cache.lock import folder_lock
from stf_depth.config import RunConfig
from stf_depth.perception.base import IndexedDepth, IndexedSegments
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.background import WAITING_CHUNKS, Background
from stf_depth.pipeline.consumers import batches_of_chunks, consumers_of
from stf_depth.pipeline.geometry import fill_structure, solve_cameras
from stf_depth.pipeline.inference_cache import load_inference_pickle, tell_loaded
from stf_depth.pipeline.observations import open_rgb, open_roles
from stf_depth.pipeline.perceive import Perceived, perceive
from stf_depth.pipeline.plan import CHUNK_FRAMES, VideoFolders, VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.trial import survived_decoding
from stf_depth.pipeline.windows import Window, cut_windows, gather_windows, locked
from stf_depth.video.digest import content_digest
from stf_depth.video.discover import InputItem
from stf_depth.video.prefetch import prefetched
from stf_depth.video.reader import open_video

__all__ = ["LEAST_CHUNKS", "PARTS", "Part", "Splitting", "fill_window", "plan_windows"]

# Chunks that a window must hold at least. Workers start anew before and after the windows, some ten seconds in all, and
# each loads the networks: with fewer frames a GPU would be done sooner on its own.
LEAST_CHUNKS = 16

# In the order in which they can be done.
Part = Literal["inference", "structure"]
PARTS: tuple[Part, ...] = ("inference", "structure")


@dataclass(frozen=True)
class Splitting:
    """What is to be split among how many workers.

    part: ``inference`` for the networks, which needs nothing; ``structure``, for which everything before it is done
    while planning. least_chunks: a video is left whole where windows would be smaller.
    """

    part: Part
    workers: int
    least_chunks: int = LEAST_CHUNKS

    def pieces(self, chunks: int) -> int:
        """Into how many windows so many chunks are cut."""
        return min(self.workers, chunks // self.least_chunks)

    def __str__(self) -> str:
        return f"windows for {self.part}"


def plan_windows(
    item: InputItem,
    config: RunConfig,
    backends: Backends,
    folders: VideoFolders,
    splitting: Splitting,
    reporter: Reporter,
    *,
    resume: bool,
) -> list[Window]:
    """The windows in which a part of a video is best done; none where it is there, or better done by one worker.

    A cache that is not to be resumed is discarded. Raises as ``process_video`` does.
    """
    with locked(folders):
        plan = VideoPlan(content_digest(item.path), config, backends, folders)
        if not resume:
            plan.discard()
        gather_windows(plan, item.name, reporter)
        stages = _stages(plan, splitting.part)
        frame_count = _expected_frames(plan, item) if stages else 0
        if splitting.pieces(_chunks(frame_count)) < 2:
            return []
        tell_loaded(plan, item.name, load_inference_pickle(plan), reporter)
        costly = set(range(_chunks(frame_count)))
        if splitting.part == "structure":
            perceived = _perceived(plan, item, reporter)
            frame_count, costly = perceived.frame_count, _triangulated_chunks(plan, item, perceived, reporter)
        return _windows(plan, stages, frame_count, costly, splitting)


def _stages(plan: VideoPlan, part: Part) -> tuple[str, ...]:
    """The stages of a part that cost something in each frame: maps that are only read gain nothing."""
    if part == "structure":
        return ("structure",) if plan.uses_geometry else ()
    backends = {task: getattr(plan.backends, task) for task in ("depth", "semantic", "panoptic") if task in plan.keys}
    return tuple(task for task, one in backends.items() if not isinstance(one, IndexedDepth | IndexedSegments))


def _expected_frames(plan: VideoPlan, item: InputItem) -> int:
    """About how many frames there are, by the header; 0 where it does not say."""
    allow_gaps = plan.config.video.allow_gaps
    with (
        survived_decoding(plan.folders.working, item.path, **plan.reading),
        open_video(item.path, allow_gaps=allow_gaps) as reader,
    ):
        info = reader.info
    count, seconds = info.frame_count_from_header, info.duration_seconds_from_header
    if count is None and seconds is not None:
        count = round(seconds * info.frame_rate)
    if count is None:
        return 0
    video = plan.config.video
    stop = count if video.end_seconds is None else min(count, round(video.end_seconds * info.frame_rate))
    within = max(0, stop - round(video.start_seconds * info.frame_rate))
    return within if video.max_frames is None else min(within, video.max_frames)


def _chunks(frames: int) -> int:
    return -(-frames // CHUNK_FRAMES)


def _perceived(plan: VideoPlan, item: InputItem, reporter: Reporter) -> Perceived:
    return perceive(plan, item, partial(open_video, item.path, **plan.reading), reporter)


def _triangulated_chunks(plan: VideoPlan, item: InputItem, perceived: Perceived, reporter: Reporter) -> set[int]:
    """Chunks of shots with a reliable camera, which is solved first: the stand-in for the others costs little."""
    cameras = solve_cameras(plan, item.name, perceived, open_rgb(plan), open_roles(plan), reporter)
    shots = [shot for shot, camera in zip(perceived.shots, cameras, strict=True) if camera.is_reliable]
    return {chunk for shot in shots for chunk in range(shot.start // CHUNK_FRAMES, _chunks(shot.stop))}


def _windows(
    plan: VideoPlan, stages: tuple[str, ...], frame_count: int, costly: Collection[int], splitting: Splitting
) -> list[Window]:
    """Windows that hold the chunks that a stage lacks, if enough of these are ``costly``."""
    stores = {stage: plan.store(stage) for stage in stages}
    lacking = {stage: store for stage, store in stores.items() if not store.is_complete}
    end, digest = _chunks(frame_count), plan.input_digest
    missing = [chunk for chunk in range(end) if not all(store.has(chunk) for store in lacking.values())]
    pieces = splitting.pieces(len(set(missing).intersection(costly)))
    if pieces < 2:
        return []
    return [
        Window(first * CHUNK_FRAMES, None if stop == end else stop * CHUNK_FRAMES, tuple(lacking), digest)
        for first, stop in cut_windows(missing, pieces)
    ]


def fill_window(
    item: InputItem, window: Window, config: RunConfig, backends: Backends, folders: VideoFolders, reporter: Reporter
) -> None:
    """Do the chunks of a window that are not there yet, in its own folder; the reporter sees its frames pass.

    folders: of the whole video. Raises as ``process_video`` does; chunks that were finished stay.
    """
    whole = VideoPlan(window.input_digest, config, backends, folders)
    part = replace(whole, folders=window.folders(folders))
    with folder_lock(part.folders.working):
        if "structure" in window.stages:
            _triangulate(whole, part, item, window, reporter)
        else:
            _infer(part, item, window, reporter)


def _infer(part: VideoPlan, item: InputItem, window: Window, reporter: Reporter) -> None:
    stores = {stage: part.store(stage) for stage in window.stages}
    first = window.start // CHUNK_FRAMES
    while all(store.has(first) for store in stores.values()):
        first += 1
    reporter.advance(first * CHUNK_FRAMES - window.start)
    if window.stop is not None and first * CHUNK_FRAMES >= window.stop:
        return
    limits = [limit for limit in (window.stop, part.reading["max_frames"]) if limit is not None]
    reading = {**part.reading, "max_frames": min(limits, default=None)}
    with (
        survived_decoding(part.folders.working, item.path, **reading),
        open_video(item.path, **reading) as reader,
        Background(WAITING_CHUNKS) as background,
    ):
        consumers = consumers_of(part, reader, stores, background, partial(reporter.message, item.name))
        for batch in prefetched(batches_of_chunks(reader, first * CHUNK_FRAMES), 2):
            for consumer in consumers:
                consumer.push(batch)
            reporter.advance(len(batch))
        for consumer in consumers:
            consumer.flush()


def _triangulate(whole: VideoPlan, part: VideoPlan, item: InputItem, window: Window, reporter: Reporter) -> None:
    perceived = _perceived(whole, item, reporter)  # it is there, and only read
    rgb, roles = open_rgb(whole), open_roles(whole)
    stop = perceived.frame_count if window.stop is None else window.stop
    store = part.store("structure")
    fill_structure(store, whole, perceived, rgb, roles, reporter, first=window.start, stop=stop)
