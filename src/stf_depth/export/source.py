"""What a result was made from: its frames, their names, its sound, and the depth of each frame alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from stf_depth.config import VideoConfig
from stf_depth.errors import InputNotFoundError, OutputError
from stf_depth.export.stages import (
    depth_meaning,
    finished_stage,
    reading,
    segment_table,
    stage_array,
    stage_extras,
)
from stf_depth.fusion.inputs import StructureMaps
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, Frames, Representation, SegmentInfo, Uint8Array
from stf_depth.video.digest import content_digest
from stf_depth.video.sequence import DEFAULT_SEQUENCE_RATE, sequence_images

__all__ = [
    "SegmentFrames",
    "StageDepth",
    "audio_source",
    "frame_names",
    "per_frame_depth",
    "rgb_frames",
    "segment_frames",
    "segment_stages",
    "structure_maps",
]


@dataclass(frozen=True)
class StageDepth:
    """Depth of every frame before fusion, (T, h, w) at the network's own size, read lazily."""

    depth: Frames
    valid: Frames
    representation: Representation
    ambiguity: Ambiguity


def rgb_frames(result: DepthResult, *, wh: tuple[int, int] | None = None) -> Iterator[tuple[int, Uint8Array]]:
    """Yield (index, (H, W, 3) uint8) of every frame of the result, at the size of its depth or at ``wh``.

    Raises InputNotFoundError when the source is gone, OutputError when it is no longer what the result was made from.
    """
    from stf_depth.video.reader import open_video

    _, height, width = result.depth.shape
    size = wh or (width, height)
    count = 0
    video = VideoConfig.of(result.manifest["config"]["video"])
    with open_video(
        _existing_source(result),
        start_seconds=video.start_seconds,
        end_seconds=video.end_seconds,
        max_frames=video.max_frames,
        allow_gaps=video.allow_gaps,
    ) as reader:
        for batch in reader.batches(1):
            if count == len(result):
                raise _changed(result, f"{count} frames", "more")
            yield count, _resized(batch.rgb[0], size)
            count += 1
    if count != len(result):
        raise _changed(result, f"{len(result)} frames", count)


def frame_names(result: DepthResult) -> list[str]:
    """A file name without suffix for each frame: that of its image, or its number.

    Frames of a video are numbered, and so are those of an image sequence whose folder is gone.
    """
    if not result.source.is_dir():
        return [f"{index:06d}" for index in range(len(result))]
    images = sequence_images(result.source)
    positions = np.rint(np.asarray(result.pts_seconds) * float(DEFAULT_SEQUENCE_RATE)).astype(int)
    if len(positions) and positions.max() >= len(images):
        raise _changed(result, got=f"{len(images)} images")
    stems, full = [images[i].stem for i in positions], [images[i].name for i in positions]
    return stems if len(set(stems)) == len(stems) else full


def audio_source(result: DepthResult) -> Path | None:
    """The source where it is a video file, None for an image sequence; raises as ``rgb_frames`` does."""
    source = _existing_source(result)
    return source if source.is_file() else None


def per_frame_depth(result: DepthResult) -> StageDepth | None:
    """The network's own depth of each frame, None where it was never computed or is no longer cached."""
    folder = finished_stage(result, "depth")
    depth, valid = stage_array(result, "depth", "depth"), stage_array(result, "depth", "valid")
    if folder is None or depth is None or valid is None:
        return None
    return StageDepth(depth, valid, *depth_meaning(folder))


def _existing_source(result: DepthResult) -> Path:
    if not result.source.exists():
        hint = "Put the source back, or choose a format that needs depth alone"
        raise InputNotFoundError("the source of this result is gone", where=result.source, hint=hint)
    digest = result.manifest["input"].get("sha256")  # older causal results have none
    if digest is not None and digest != _digest(result.source, _state(result.source)):
        raise _changed(result)
    return result.source


def _changed(result: DepthResult, expected: object = None, got: object = None) -> OutputError:
    hint = "Run it again, put the old source back, or choose a format that needs depth alone"
    what = "the source changed since the run"
    return OutputError(what, where=result.source, expected=expected, got=got, hint=hint)


@lru_cache(maxsize=64)
def _digest(path: Path, state: object) -> str:  # noqa: ARG001
    """Digest of a source, read once for each of its states."""
    return content_digest(path)


def _state(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of a file, or of the images of a sequence."""
    files = sequence_images(path) if path.is_dir() else [path]
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _resized(rgb: Uint8Array, wh: tuple[int, int]) -> Uint8Array:
    if (rgb.shape[1], rgb.shape[0]) == wh:
        return rgb
    shrinks = wh[0] < rgb.shape[1]
    return np.asarray(cv2.resize(rgb, wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC), np.uint8)


def structure_maps(result: DepthResult) -> StructureMaps | None:
    """Triangulated inverse depth in the camera path's unit, None where there is none or it is no longer cached."""
    maps = [stage_array(result, "structure", name) for name in ("disparity", "confidence")]
    return None if maps[0] is None or maps[1] is None else StructureMaps(maps[0], maps[1])


class SegmentFrames:
    """Segment ids of every frame and what they mean, read lazily from the cached stage of a task."""

    def __init__(self, task: str, folder: Path, ids: Frames) -> None:
        self.task, self.ids = task, ids
        self._folder = folder
        self._entries: tuple[int, list[Any]] = (-1, [])  # of the chunk that was asked for last
        with reading(folder):
            identity = json.loads((folder / "identity.json").read_text(encoding="utf-8"))
            self._chunk_frames = int(identity["chunk_frames"])

    def table(self, index: int) -> dict[int, SegmentInfo]:
        """Meaning of the ids of one frame. Raises CacheError."""
        chunk, position = divmod(index, self._chunk_frames)
        with reading(self._folder):
            if self._entries[0] != chunk:
                self._entries = chunk, stage_extras(self._folder, chunk)
            return segment_table(self._entries[1][position])


def segment_stages(result: DepthResult) -> tuple[str, str]:
    """The two kinds of segments, those to show first: panoptic, unless they are colour regions without names."""
    model = result.manifest["models"].get("panoptic") or {}
    return ("semantic", "panoptic") if str(model.get("name", "")).startswith("regions") else ("panoptic", "semantic")


def segment_frames(result: DepthResult) -> SegmentFrames | None:
    """The first of ``segment_stages`` that is cached, None where neither is."""
    for stage in segment_stages(result):
        folder, ids = finished_stage(result, stage), stage_array(result, stage, "ids")
        if folder is not None and ids is not None:
            return SegmentFrames(stage, folder, ids)
    return None
