"""Flow-warp error of what stands still, with the camera's own motion taken out; no ground truth.

A camera that drives down a street changes every true depth by several percent a frame, which plain flow-warp errors
count as flicker. Where the camera is solved, each point's next depth is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stf_depth.evaluation.flow_links import FlowLink, sample
from stf_depth.evaluation.metrics import Measure
from stf_depth.export.geometry import solve_affine
from stf_depth.export.source import structure_maps
from stf_depth.frames import nearest
from stf_depth.geometry.arrays import as_float32
from stf_depth.geometry.poses import relative
from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, Float32Array, Float64Array, Intrinsics, Shot

__all__ = ["Placement", "StillScene", "still_flicker_pair"]

_FIT_FRAMES = 24
_FIT_SAMPLES = 4000
_MIN_SAMPLES = 500
_SURE = 0.3
_MIN_CORRELATION = 0.3


class Closeness(Protocol):
    """Depth as something that grows towards the camera, frame by frame; NaN where unknown."""

    @property
    def ambiguity(self) -> Ambiguity: ...

    def at(self, frame: int, size_wh: tuple[int, int]) -> Float32Array: ...


@dataclass(frozen=True)
class Placement:
    """1 / z = gain * closeness + shift, z in the unit of the camera path."""

    gain: float
    shift: float

    def disparity(self, closeness: NDArray[Any]) -> Float64Array:
        """Inverse depth, 0 at infinity and beyond; NaN stays NaN."""
        return np.asarray(np.maximum(closeness.astype(np.float64) * self.gain + self.shift, 0.0))


def still_flicker_pair(
    first: Float32Array,
    second: Float32Array,
    placement: Placement,
    motion: Float64Array,
    camera: Intrinsics,
    link: FlowLink,
) -> Measure:
    """mean over consistent pixels of min(1, |z' / (R r z + t)_z - 1|), z' the next frame's depth along the flow.

    first, second: (H, W) closeness. motion: second_from_first (4, 4), in the camera path's unit. camera: at the size
    of the maps. A pixel without a prediction in either frame counts as 1, one that stays at infinity as 0. NaN and
    the reason without consistent flow.
    """
    if not link.consistent.any():
        return Measure.without_support("no consistent flow")
    y, x = np.nonzero(link.consistent)
    rays = np.stack([(x - camera.cx_px) / camera.fx_px, (y - camera.cy_px) / camera.fy_px, np.ones(len(x))])
    here = placement.disparity(first[y, x])
    there = placement.disparity(sample(second, link.xy_px)[y, x])
    # In inverse depth: d / (R r + t d)_z is what the second frame should show.
    ahead = motion[2, :3] @ rays + motion[2, 3] * here
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(here / (ahead * there) - 1)
    error[(here == 0) & (there == 0)] = 0
    return Measure(float(np.where(np.isfinite(error), np.minimum(error, 1), 1.0).mean()))


class StillScene:
    """The solved cameras of a result at one size, and where triangulated points lie in them."""

    def __init__(self, result: DepthResult, size_wh: tuple[int, int]) -> None:
        self._maps = structure_maps(result)
        self._size_wh = size_wh
        self._shots = [
            (shot, camera) for shot, camera in zip(result.shots, result.cameras, strict=False) if camera.is_reliable
        ]

    def placements(self, closeness: Closeness) -> dict[Shot, Placement]:
        """How a stack's closeness becomes inverse depth in each shot with a reliable camera and enough structure."""
        found = {shot: self._placement(shot, closeness) for shot, _ in self._shots}
        return {shot: placement for shot, placement in found.items() if placement is not None}

    def measure(
        self,
        frame: int,
        maps: tuple[Float32Array, Float32Array],
        placements: Mapping[Shot, Placement],
        link: FlowLink,
    ) -> Measure:
        """``still_flicker_pair`` of a frame and the next.

        NaN and the reason where their shot has no placement, or one of them no solved pose.
        """
        for shot, camera in self._shots:
            if shot in placements and shot.start <= frame < shot.stop - 1:
                pair = slice(frame - shot.start, frame - shot.start + 2)
                if not camera.solved[pair].all():
                    return Measure.without_support("a pose that is not solved")
                poses = camera.world_from_cam[pair]
                motion = relative(poses[0], poses[1])
                intrinsics = camera.intrinsics.resized(*self._size_wh)
                return still_flicker_pair(*maps, placements[shot], motion, intrinsics, link)
        return Measure.without_support("no camera path with triangulated points")

    def _placement(self, shot: Shot, closeness: Closeness) -> Placement | None:
        if self._maps is None:
            return None
        frames = np.unique(np.linspace(shot.start, shot.stop - 1, _FIT_FRAMES).round().astype(int)).tolist()
        close, target, weight = (
            np.concatenate(parts) for parts in zip(*(self._samples(k, closeness) for k in frames), strict=True)
        )
        if len(close) < _MIN_SAMPLES:
            return None
        has_offset = closeness.ambiguity is Ambiguity.AFFINE
        # A free shift would make anything that has nothing to do with the scene a plane, which is very steady.
        if has_offset and np.corrcoef(close, target)[0, 1] < _MIN_CORRELATION:
            return None
        gain, shift = solve_affine(close, target, weight, with_shift=has_offset)
        return Placement(gain, shift) if gain > 0 else None

    def _samples(self, frame: int, closeness: Closeness) -> tuple[Float32Array, Float32Array, Float32Array]:
        assert self._maps is not None
        target, weight = (
            nearest(np.asarray(part[frame], np.float32), self._size_wh[::-1])
            for part in (self._maps.disparity, self._maps.confidence)
        )
        close = closeness.at(frame, self._size_wh)
        usable = np.flatnonzero(np.isfinite(close) & (weight > _SURE) & (target > 0))
        usable = usable[:: max(1, len(usable) // _FIT_SAMPLES)]
        close, target, weight = (as_float32(part.ravel()[usable]) for part in (close, target, weight))
        return close, target, weight
