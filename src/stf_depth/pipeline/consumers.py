"""What looks at decoded frames in the first pass: each stage's network or reader, storing chunk by chunk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.store import StageStore
from stf_depth.perception.base import BackendInfo, IndexedDepth, IndexedSegments
from stf_depth.pipeline.background import Background
from stf_depth.pipeline.batching import HalvingBatch
from stf_depth.pipeline.plan import CHUNK_FRAMES, VideoPlan
from stf_depth.types import DepthMaps, Float64Array, FrameBatch, SegmentMaps
from stf_depth.video.reader import VideoReader
from stf_depth.video.resize import resize_area, working_wh

__all__ = ["Consumer", "batches_of_chunks", "consumers_of", "read_depth"]

# Decoded frames that may wait in memory at once, in bytes.
_BATCH_BYTES = 48 << 20

Arrays = dict[str, NDArray[Any]]


@dataclass
class Consumer:
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


def batches_of_chunks(reader: VideoReader, first: int = 0) -> Iterator[FrameBatch]:
    """Batches that divide a chunk, as large as memory allows, from frame ``first``, where a chunk begins."""
    frame_bytes = reader.info.width_px * reader.info.height_px * 3
    size = CHUNK_FRAMES
    while size > 1 and size * frame_bytes > _BATCH_BYTES:
        size //= 2
    return reader.batches(size, first=first)


def consumers_of(
    plan: VideoPlan,
    reader: VideoReader,
    stores: Mapping[str, StageStore],
    background: Background,
    tell: Callable[[str], None],
) -> list[Consumer]:
    """A consumer for each stage in ``stores``; tell receives lines for the user."""
    size_wh = working_wh((reader.info.width_px, reader.info.height_px), plan.config.video.working_long_side_px)

    def shrink(batch: FrameBatch) -> tuple[Arrays, list[Any]]:
        return {"rgb": np.stack([resize_area(image, size_wh) for image in batch.rgb])}, []

    infos = plan.backends.infos()
    consumers = []
    for task, store in stores.items():
        if task == "frames":
            consumers.append(Consumer(store, shrink, background))
        elif task == "depth":
            process = _depth_process(plan.backends.depth, reader, tell)
            consumers.append(Consumer(store, process, background, _depth_attributes(infos[task])))
        else:
            consumers.append(Consumer(store, _segment_process(getattr(plan.backends, task), reader, tell), background))
    return consumers


def _depth_attributes(info: BackendInfo) -> dict[str, Any]:
    return {"model": info.name, "weights": info.weights}


def _depth_process(
    backend: Any, reader: VideoReader, tell: Callable[[str], None]
) -> Callable[[FrameBatch], tuple[Arrays, list[Any]]]:
    indexed = isinstance(backend, IndexedDepth)
    look = _by_number(partial(read_depth, backend), reader) if indexed else _network(backend, tell)

    def process(batch: FrameBatch) -> tuple[Arrays, list[Any]]:
        parts: list[DepthMaps] = look(batch)
        arrays: Arrays = {name: _joined(parts, name) for name in ("depth", "valid")}
        if parts[0].confidence is not None:
            arrays["confidence"] = _joined(parts, "confidence")
        return arrays, [[parts[0].representation.value, parts[0].ambiguity.value]]

    return process


def _segment_process(
    backend: Any, reader: VideoReader, tell: Callable[[str], None]
) -> Callable[[FrameBatch], tuple[Arrays, list[Any]]]:
    indexed = isinstance(backend, IndexedSegments)
    look = _by_number(lambda numbers, _: backend.read(numbers), reader) if indexed else _network(backend, tell)

    def process(batch: FrameBatch) -> tuple[Arrays, list[Any]]:
        parts: list[SegmentMaps] = look(batch)
        arrays = {"ids": _joined(parts, "ids"), "roles": np.concatenate([part.roles() for part in parts])}
        return arrays, [_table_to_json(table) for part in parts for table in part.tables]

    return process


def read_depth(backend: IndexedDepth, numbers: list[int], pts_seconds: Float64Array | None) -> DepthMaps:
    """Maps of the frames with these numbers, counted from the first frame of the video.

    pts_seconds: of the frames, None where they have no times of their own. Raises ShapeError for a frame without a map,
    or maps with times that contradict those of the frames.
    """
    if pts_seconds is not None:
        backend.check_times(numbers, pts_seconds)
    return backend.read(numbers)


def _by_number(
    read: Callable[[list[int], Float64Array | None], Any], reader: VideoReader
) -> Callable[[FrameBatch], list[Any]]:
    def look(batch: FrameBatch) -> list[Any]:
        times = None if reader.info.is_sequence else batch.pts_seconds
        return [read(reader.numbers(batch).tolist(), times)]

    _ = reader.first_number  # found out here, before the pass begins
    return look


def _network(backend: Any, tell: Callable[[str], None]) -> Callable[[FrameBatch], list[Any]]:
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
