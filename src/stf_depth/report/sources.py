"""What a report is drawn from: the result, and those cached stages that are still there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.export.source import SegmentFrames, StageDepth, per_frame_depth, segment_frames
from stf_depth.export.stages import stage_array
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, Frames, Representation

__all__ = ["Sources", "open_sources"]


@dataclass(frozen=True)
class Sources:
    """Lazily read stacks of one clip, each at its own size; ``missing`` says in sentences what is not there.

    before: depth of each frame alone. fused: the result.
    """

    fused: StageDepth
    confidence: Frames
    rgb: Frames | None
    before: StageDepth | None
    segments: SegmentFrames | None
    missing: tuple[str, ...]


def open_sources(result: DepthResult) -> Sources:
    """Open whatever the result and the cache hold."""
    rgb = stage_array(result, "frames", "rgb")
    before = _before(result)
    segments = segment_frames(result)
    missing = []
    if rgb is None:
        missing.append("The decoded frames are not in the cache: pictures of the video and the plots are left out.")
    if before is None:
        missing.append("The depth of single frames is not in the cache: the comparison with it is left out.")
    if segments is None and any(task in _stages(result) for task in ("panoptic", "semantic")):
        missing.append("The segments are not in the cache: they are left out.")
    fused = StageDepth(result.depth, result.valid, result.representation, result.ambiguity)
    return Sources(fused, result.confidence, rgb, before, segments, tuple(missing))


def _stages(result: DepthResult) -> Mapping[str, Any]:
    stages: Mapping[str, Any] = result.manifest.get("stages", {})
    return stages


def _before(result: DepthResult) -> StageDepth | None:
    """The network's depth, or what was triangulated where no network looked."""
    network = per_frame_depth(result)
    if network is not None:
        return network
    if "depth" in _stages(result):
        return None
    triangulated = stage_array(result, "structure", "disparity")
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
