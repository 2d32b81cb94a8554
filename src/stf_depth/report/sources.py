"""What a report is drawn from: the result, and those cached stages that are still there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.cache.store import ChunkedFrames
from stf_depth.export.source import StageDepth, segment_stages
from stf_depth.result import DEPTH_STORE, DepthResult
from stf_depth.types import Ambiguity, Frames, Representation, Role, SegmentInfo

__all__ = ["Segments", "Sources", "open_sources"]

# Markers of the result's own chunks; a chunk that is found damaged is forgotten there.
_RESULT_MARKERS = ".progress"


@dataclass(frozen=True)
class Segments:
    """ids: (T, h, w) int32, lazily read. tables: one mapping from id to meaning for each frame."""

    task: str
    ids: Frames
    tables: tuple[Mapping[int, SegmentInfo], ...]


@dataclass(frozen=True)
class Sources:
    """Lazily read stacks of one clip, each at its own size; ``missing`` says in sentences what is not there.

    before: depth of each frame alone. fused: the result.
    """

    fused: StageDepth
    confidence: Frames
    rgb: Frames | None
    before: StageDepth | None
    segments: Segments | None
    missing: tuple[str, ...]


def open_sources(result: DepthResult) -> Sources:
    """Open whatever the result and the cache hold."""
    rgb = _stage_array(result, "frames", "rgb")
    before = _before(result)
    segments = _segments(result)
    missing = []
    if rgb is None:
        missing.append("The decoded frames are not in the cache: pictures of the video and the plots are left out.")
    if before is None:
        missing.append("The depth of single frames is not in the cache: the comparison with it is left out.")
    if segments is None and any(task in _stages(result) for task in ("panoptic", "semantic")):
        missing.append("The segments are not in the cache: they are left out.")
    fused = StageDepth(
        _fused_array(result, "depth"), _fused_array(result, "valid"), result.representation, result.ambiguity
    )
    return Sources(fused, _fused_array(result, "confidence"), rgb, before, segments, tuple(missing))


def _fused_array(result: DepthResult, name: str) -> Frames:
    import zarr

    array: Any = zarr.open_group(result.folder / DEPTH_STORE, mode="r")[name]
    return ChunkedFrames(array, len(result), result.folder / _RESULT_MARKERS, kept_chunks=2)


def _stage_array(result: DepthResult, stage: str, name: str) -> Frames | None:
    folder = _finished_stage(result, stage)
    if folder is None:
        return None
    import zarr

    array: Any = zarr.open_group(folder / "data.zarr", mode="r")[name]
    return ChunkedFrames(array, len(result), folder, kept_chunks=2)


def _stages(result: DepthResult) -> Mapping[str, Any]:
    stages: Mapping[str, Any] = result.manifest.get("stages", {})
    return stages


def _finished_stage(result: DepthResult, stage: str) -> Path | None:
    folder = result.stage(stage)
    return folder if folder is not None and (folder / "complete.json").is_file() else None


def _before(result: DepthResult) -> StageDepth | None:
    """The network's depth, or what was triangulated where no network looked."""
    depth, valid = _stage_array(result, "depth", "depth"), _stage_array(result, "depth", "valid")
    if depth is not None and valid is not None:
        representation, ambiguity = _extras(result, "depth")[0]
        return StageDepth(depth, valid, Representation(representation), Ambiguity(ambiguity))
    if "depth" in _stages(result):
        return None
    triangulated = _stage_array(result, "structure", "disparity")
    if triangulated is None:
        return None
    return StageDepth(triangulated, _Known(triangulated), Representation.DISPARITY, Ambiguity.SCALE)


@dataclass(frozen=True)
class _Known:
    """Where triangulated disparity is known: finite and positive."""

    disparity: Frames

    @property
    def shape(self) -> tuple[int, ...]:
        return self.disparity.shape

    def __len__(self) -> int:
        return len(self.disparity)

    def __getitem__(self, index: Any, /) -> NDArray[np.bool_]:
        values = np.asarray(self.disparity[index])
        return np.asarray(np.isfinite(values) & (values > 0))


def _segments(result: DepthResult) -> Segments | None:
    for task in segment_stages(result):
        ids = _stage_array(result, task, "ids")
        if ids is not None:
            return Segments(task, ids, tuple(_table(entries) for entries in _extras(result, task)))
    return None


def _extras(result: DepthResult, stage: str) -> list[Any]:
    """What the stage stored beside each frame, or beside each batch of frames."""
    folder = _finished_stage(result, stage)
    markers = sorted((folder / "done").glob("[0-9]*.json")) if folder is not None else []
    return [extra for marker in markers for extra in json.loads(marker.read_text(encoding="utf-8"))["extra"]]


def _table(entries: Mapping[str, Any]) -> dict[int, SegmentInfo]:
    return {
        int(segment_id): SegmentInfo(name, Role(role), is_thing, score)
        for segment_id, (name, role, is_thing, score) in entries.items()
    }
