"""First pass: decode once, and let every network that has not seen a chunk yet look at it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.files import read_json, write_json
from stf_depth.cache.store import StageStore
from stf_depth.errors import UnreadableVideoError
from stf_depth.perception.base import BackendInfo, IndexedDepth, IndexedSegments
from stf_depth.pipeline.background import WAITING_CHUNKS, Background
from stf_depth.pipeline.batching import HalvingBatch
from stf_depth.pipeline.plan import CHUNK_FRAMES, VideoPlan
from stf_depth.pipeline.progress import Reporter
from stf_depth.pipeline.trial import survived_decoding
from stf_depth.types import DepthMaps, FrameBatch, SegmentMaps, Shot
from stf_depth.video.discover import InputItem
from stf_depth.video.prefetch import prefetched
from stf_depth.video.reader import VideoReader
from stf_depth.video.resize import resize_area, working_wh
from stf_depth.video.shots import ShotDetector

__all__ = ["Perceived", "perceive"]

# Decoded frames that may wait in memory at once, in bytes.
_BATCH_BYTES = 48 << 20

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Perceived:
    """What the first pass found out about a video."""

    frame_count: int
    failed_frames: int
    shots: list[Shot]
    pts_seconds: NDArray[np.float64]
    size_wh: tuple[int, int]


@dataclass
class _Consumer:
    """Turns frames into one stage's arrays and stores them chunk by chunk."""

    store: StageStore
    process: Callable[[FrameBatch], tuple[Arrays, list[Any]]]
    background: Background
    attributes: Mapping[str, Any] = field(default_factory=dict)
    _waiting: list[tuple[Arrays, list[Any]]] = field(default_factory=list)
    _chunk: int = -1

    def push(self, batch: FrameBatch) -> bool:
        """Take a batch that lies within one chunk; says whether there was anything to do."""
        chunk = int(batch.index[0]) // CHUNK_FRAMES
        if chunk != self._chunk:
            self.flush()
            self._chunk = chunk
        if self.store.has(chunk):
            return False
        self._waiting.append(self.process(batch))
        return True

    def flush(self) -> None:
        """Store the chunk that has been gathered."""
        if self._waiting:
            self.background.submit(partial(_store, self.store, self._chunk, self._waiting))
            self._waiting = []


def _store(store: StageStore, chunk: int, parts: list[tuple[Arrays, list[Any]]]) -> None:
    arrays = {name: np.concatenate([part[name] for part, _ in parts]) for name in parts[0][0]}
    store.write(chunk, arrays, [one for _, extra in parts for one in extra])


def perceive(plan: VideoPlan, item: InputItem, open_reader: Callable[[], VideoReader], reporter: Reporter) -> Perceived:
    """Decode a video once and fill the stages ``frames``, ``shots``, ``depth``, ``semantic`` and ``panoptic``.

    Chunks that are stored already are decoded but not looked at again; a video whose stages are all whole is not
    opened. Raises InputError, ModelError, DepthError or OutputError.
    """
    facts_path = plan.stage_folder("shots").with_suffix(".json")
    stores = {task: plan.store(task) for task in plan.keys if task in ("frames", "depth", "semantic", "panoptic")}
    facts = read_json(facts_path)
    if facts is None or not all(store.is_complete for store in stores.values()):
        extent = plan.config.video.model_dump(include={"start_seconds", "end_seconds", "max_frames"})
        with survived_decoding(plan.folders.working, item.path, **extent), open_reader() as reader:
            facts = _first_pass(plan, item, reader, stores, reporter)
        write_json(facts_path, facts)
    return Perceived(
        frame_count=facts["frame_count"],
        failed_frames=facts["failed_frames"],
        shots=[Shot(*shot) for shot in facts["shots"]],
        pts_seconds=np.array(facts["pts_seconds"], np.float64),
        size_wh=(facts["size_wh"][0], facts["size_wh"][1]),
    )


def _first_pass(
    plan: VideoPlan, item: InputItem, reader: VideoReader, stores: Mapping[str, StageStore], reporter: Reporter
) -> dict[str, Any]:
    missing = {name: store for name, store in stores.items() if not store.is_complete}
    video = plan.config.video
    detector = ShotDetector(threshold=video.cut_threshold, min_shot_frames=video.min_shot_frames)
    shots: list[Shot] = []
    pts: list[float] = []
    reporter.stage(item.name, "inference" if len(missing) > 1 else "decoding", reader.info.frame_count_from_header)
    tell = partial(reporter.message, item.name)
    with Background(WAITING_CHUNKS) as background:
        consumers = _consumers(plan, reader, missing, background, tell)
        for batch in prefetched(_batches(reader), 2):
            pts.extend(batch.pts_seconds.tolist())
            for consumer in consumers:
                consumer.push(batch)
            shots.extend(detector.push(batch.rgb))
            reporter.advance(len(batch))
        for consumer in consumers:
            consumer.flush()
    if not pts:
        raise UnreadableVideoError("no frame could be decoded", where=item.path, hint="Check the file and the range")
    _finish(plan, consumers, len(pts))
    return {
        "frame_count": len(pts),
        "failed_frames": reader.failed_frames,
        "shots": [[shot.start, shot.stop] for shot in [*shots, *detector.flush()]],
        "pts_seconds": pts,
        "size_wh": [reader.info.width_px, reader.info.height_px],
    }


def _finish(plan: VideoPlan, consumers: list[_Consumer], frame_count: int) -> None:
    for backend in (plan.backends.depth, plan.backends.semantic, plan.backends.panoptic):
        if isinstance(backend, IndexedDepth | IndexedSegments) and plan.config.video == type(plan.config.video)():
            backend.check_length(frame_count)
    for consumer in consumers:
        consumer.store.finish(frame_count, consumer.attributes)


def _batches(reader: VideoReader) -> Iterator[FrameBatch]:
    """Batches that divide a chunk, as large as memory allows."""
    frame_bytes = reader.info.width_px * reader.info.height_px * 3
    size = CHUNK_FRAMES
    while size > 1 and size * frame_bytes > _BATCH_BYTES:
        size //= 2
    return reader.batches(size)


def _consumers(
    plan: VideoPlan,
    reader: VideoReader,
    stores: Mapping[str, StageStore],
    background: Background,
    tell: Callable[[str], None],
) -> list[_Consumer]:
    size_wh = working_wh((reader.info.width_px, reader.info.height_px), plan.config.video.working_long_side_px)

    def shrink(batch: FrameBatch) -> tuple[Arrays, list[Any]]:
        return {"rgb": np.stack([resize_area(image, size_wh) for image in batch.rgb])}, []

    infos = plan.backends.infos()
    consumers = []
    for task, store in stores.items():
        if task == "frames":
            consumers.append(_Consumer(store, shrink, background))
        elif task == "depth":
            process = _depth_process(plan.backends.depth, tell)
            consumers.append(_Consumer(store, process, background, _depth_attributes(infos[task])))
        else:
            consumers.append(_Consumer(store, _segment_process(getattr(plan.backends, task), tell), background))
    return consumers


def _depth_attributes(info: BackendInfo) -> dict[str, Any]:
    return {"model": info.name, "weights": info.weights}


def _depth_process(backend: Any, tell: Callable[[str], None]) -> Callable[[FrameBatch], tuple[Arrays, list[Any]]]:
    look = _reader_or_network(backend, IndexedDepth, tell)

    def process(batch: FrameBatch) -> tuple[Arrays, list[Any]]:
        parts: list[DepthMaps] = look(batch)
        arrays: Arrays = {name: _joined(parts, name) for name in ("depth", "valid")}
        if parts[0].confidence is not None:
            arrays["confidence"] = _joined(parts, "confidence")
        return arrays, [[parts[0].representation.value, parts[0].ambiguity.value]]

    return process


def _segment_process(backend: Any, tell: Callable[[str], None]) -> Callable[[FrameBatch], tuple[Arrays, list[Any]]]:
    look = _reader_or_network(backend, IndexedSegments, tell)

    def process(batch: FrameBatch) -> tuple[Arrays, list[Any]]:
        parts: list[SegmentMaps] = look(batch)
        arrays = {"ids": _joined(parts, "ids"), "roles": np.concatenate([part.roles() for part in parts])}
        return arrays, [_table_to_json(table) for part in parts for table in part.tables]

    return process


def _reader_or_network(
    backend: Any, indexed: type[Any], tell: Callable[[str], None]
) -> Callable[[FrameBatch], list[Any]]:
    if isinstance(backend, indexed):
        return lambda batch: [backend.read(batch.index.tolist())]
    network: HalvingBatch[Any] = HalvingBatch(backend.infer, tell)
    return lambda batch: network(batch.rgb)


def _joined(parts: Sequence[Any], name: str) -> NDArray[Any]:
    return np.concatenate([getattr(part, name) for part in parts]) if len(parts) > 1 else getattr(parts[0], name)


def _table_to_json(table: Mapping[int, Any]) -> dict[str, Any]:
    entries = {
        str(segment_id): [info.name, int(info.role), info.is_thing, round(float(info.score), 4)]
        for segment_id, info in table.items()
    }
    return dict(json.loads(json.dumps(entries)))
