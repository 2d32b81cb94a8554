"""First pass: decode once, and let every network that has not seen a chunk yet look at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.files import read_json, write_json
from stf_depth.cache.store import StageStore
from stf_depth.errors import ShapeError, UnreadableVideoError
from stf_depth.perception.base import IndexedDepth, IndexedSegments
from stf_depth.pipeline.background import WAITING_CHUNKS, Background
from stf_depth.pipeline.consumers import Consumer, batches_of_chunks, consumers_of
from stf_depth.pipeline.plan import VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.trial import survived_decoding
from stf_depth.types import Shot
from stf_depth.video.discover import InputItem
from stf_depth.video.prefetch import prefetched
from stf_depth.video.reader import VideoReader
from stf_depth.video.shots import ShotDetector

__all__ = ["Perceived", "perceive", "unusable_maps"]

_COUNTERS = ("failed_frames", "damaged_frames", "corrected_times")


@dataclass(frozen=True)
class Perceived:
    """What the first pass found out about a video. The three counters are those of its ``VideoReader``.

    numbers: (T,) of the frames, counted from the first frame of the video, where maps are read by number.
    """

    frame_count: int
    failed_frames: int
    damaged_frames: int
    corrected_times: int
    shots: list[Shot]
    numbers: NDArray[np.int64] | None
    pts_seconds: NDArray[np.float64]
    size_wh: tuple[int, int]


def perceive(plan: VideoPlan, item: InputItem, open_reader: Callable[[], VideoReader], reporter: Reporter) -> Perceived:
    """Decode a video once and fill the stages ``frames``, ``shots``, ``depth``, ``semantic`` and ``panoptic``.

    Chunks that are stored already are decoded but not looked at again; a video whose stages are all whole is not
    opened. Raises InputError, ModelError, DepthError or OutputError.
    """
    facts_path = plan.stage_folder("shots").with_suffix(".json")
    stores = {task: plan.store(task) for task in plan.keys if task in ("frames", "depth", "semantic", "panoptic")}
    facts = read_json(facts_path)
    if not _is_whole(facts, plan) or not all(store.is_complete for store in stores.values()):
        with survived_decoding(plan.folders.working, item.path, **plan.reading), open_reader() as reader:
            facts = _first_pass(plan, item, reader, stores, reporter)
        write_json(facts_path, facts)
    return Perceived(
        frame_count=facts["frame_count"],
        **{name: facts[name] for name in _COUNTERS},
        shots=[Shot(*shot) for shot in facts["shots"]],
        numbers=np.array(facts["numbers"], np.int64) if facts.get("numbers") else None,
        pts_seconds=np.array(facts["pts_seconds"], np.float64),
        size_wh=(facts["size_wh"][0], facts["size_wh"][1]),
    )


def _is_whole(facts: Any, plan: VideoPlan) -> bool:
    """Whether an earlier run left all facts: one without maps did not need the numbers of its frames."""
    if not isinstance(facts, dict) or not all(name in facts for name in _COUNTERS):
        return False
    return not _reads_maps(plan) or facts.get("numbers") is not None


def _reads_maps(plan: VideoPlan) -> bool:
    backends = plan.backends
    return any(
        isinstance(one, IndexedDepth | IndexedSegments)
        for one in (backends.depth, backends.semantic, backends.panoptic)
    )


def unusable_maps(plan: VideoPlan, perceived: Perceived) -> dict[str, int]:
    """Task -> number of frames whose precomputed segments are missing or damaged, for tasks that have such frames.

    The stages must be whole. Only frames without any segment are looked at again: some may be from an earlier run.
    """
    backends = {task: getattr(plan.backends, task) for task in ("semantic", "panoptic")}
    counts = {task: _unusable(plan.store(task), one, perceived) for task, one in backends.items() if _is_indexed(one)}
    return {task: count for task, count in counts.items() if count}


def _is_indexed(backend: Any) -> TypeGuard[IndexedSegments]:
    return isinstance(backend, IndexedSegments)


def _unusable(store: StageStore, backend: IndexedSegments, perceived: Perceived) -> int:
    if perceived.numbers is None:
        raise ValueError("frames whose maps were read have numbers")
    tables = [table for chunk in store.chunks() for table in store.extra(chunk)]
    empty = [number for number, table in zip(perceived.numbers.tolist(), tables, strict=True) if not table]
    for number in empty:
        backend.read([number])
    return sum(number in backend.unusable for number in empty)


def _first_pass(
    plan: VideoPlan, item: InputItem, reader: VideoReader, stores: Mapping[str, StageStore], reporter: Reporter
) -> dict[str, Any]:
    plan.output_wh((reader.info.width_px, reader.info.height_px))  # an impossible one is said before any work
    missing = {name: store for name, store in stores.items() if not store.is_complete}
    video = plan.config.video
    detector = ShotDetector(threshold=video.cut_threshold, min_shot_frames=video.min_shot_frames)
    shots: list[Shot] = []
    pts: list[float] = []
    numbers: list[int] = []
    reporter.stage(item.name, "inference" if len(missing) > 1 else "decoding", reader.info.frame_count_from_header)
    tell = partial(reporter.message, item.name)
    if reader.gaps:
        tell(f"images are missing in the sequence ({reader.gaps}); the others follow each other")
    with Background(WAITING_CHUNKS) as background:
        consumers = consumers_of(plan, reader, missing, background, tell)
        for batch in prefetched(batches_of_chunks(reader), 2):
            pts.extend(batch.pts_seconds.tolist())
            numbers.extend(reader.numbers(batch).tolist() if _reads_maps(plan) else ())
            for consumer in consumers:
                consumer.push(batch)
            shots.extend(detector.push(batch.rgb))
            reporter.advance(len(batch))
        for consumer in consumers:
            consumer.flush()
    if not pts:
        raise UnreadableVideoError("no frame could be decoded", where=item.path, hint="Check the file and the range")
    _finish(plan, consumers, len(pts), reader)
    return {
        "frame_count": len(pts),
        **{name: getattr(reader, name) for name in _COUNTERS},
        "shots": [[shot.start, shot.stop] for shot in [*shots, *detector.flush()]],
        "numbers": numbers or None,
        "pts_seconds": pts,
        "size_wh": [reader.info.width_px, reader.info.height_px],
    }


def _finish(plan: VideoPlan, consumers: list[Consumer], frame_count: int, reader: VideoReader) -> None:
    video = plan.config.video
    is_whole = video.start_seconds == 0 and video.end_seconds is None and video.max_frames is None
    # Images are counted whether they can be decoded or not, and so are their maps.
    images = reader.info.frame_count_from_header if reader.info.is_sequence else None
    for backend in (plan.backends.depth, plan.backends.semantic, plan.backends.panoptic):
        if isinstance(backend, IndexedDepth | IndexedSegments) and is_whole:
            backend.check_length(frame_count if images is None else images)
        if isinstance(backend, IndexedDepth) and (images or not is_whole):
            backend.check_numbering(reader.places)
        if isinstance(backend, IndexedSegments) and reader.gaps and len(backend) != images:
            what = "segments do not match a sequence with gaps"
            hint = "Add ?numbered=false for maps in the order of images"
            raise ShapeError(what, where=backend.info.name, expected=f"{images} maps", got=len(backend), hint=hint)
    for consumer in consumers:
        consumer.store.finish(frame_count, consumer.attributes)
