"""Dense inverse depth of a shot from the camera's motion, in frame order and flat in memory.

Every frame is triangulated from a few others, then fused with what its neighbours saw, brought over along the poses.
This is done twice: on small pictures from a prior of sparse points, whose borders are blurred, and then with what that
gave as the prior, which already has them. Each stage holds only the frames that its own neighbours still need.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

import cv2
import numpy as np

from stf_depth.config import GeometryConfig
from stf_depth.geometry.arrays import as_float32, as_uint8
from stf_depth.geometry.camera_solve import CameraSolve
from stf_depth.geometry.fuse import Estimate, bring, fuse, normalised_rays
from stf_depth.geometry.poses import relative
from stf_depth.geometry.smoothing import away_from_steps, complete
from stf_depth.geometry.sources import SourceChooser
from stf_depth.geometry.triangulate import FlowMatcher, triangulate
from stf_depth.parallel import AHEAD_ITEMS, SHORT_STEP_THREADS, mapped_ahead, thread_pool
from stf_depth.types import Float32Array, Frames, Uint8Array

__all__ = ["structure_wh", "triangulate_shot"]

# A frame and the estimates of the frames around it.
Work = tuple[int, Mapping[int, Estimate]]


def structure_wh(width_px: int, height_px: int, config: GeometryConfig) -> tuple[int, int]:
    """Size of the structure maps: long side as configured, never larger than the frames, aspect kept."""
    scale = min(1.0, config.structure_long_side_px / max(width_px, height_px))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def triangulate_shot(
    rgb: Frames, solve: CameraSolve, *, config: GeometryConfig, start: int = 0
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Yield (disparity, confidence), each (1, h, w) float32, for the frames of a shot from ``start`` on, in order.

    rgb: (T, H, W, 3) uint8, the frames that ``solve`` was made from. disparity is inverse depth in the solve's unit,
    positive everywhere; confidence is in [0, 1] and ranks errors, it is not a probability. A later start gives the same
    bytes: only the frames that the stages need before it are worked on.
    """
    count, reach, early = len(rgb), max(config.fusion_offsets), max(config.coarse_offsets)
    starts = [max(0, start - stages * reach) for stages in (3, 2, 1)]  # of the stages before each fusion
    shot = _Shot(rgb, solve, config)
    coarse = _coarse(shot, config)
    with thread_pool(most=SHORT_STEP_THREADS) as pool:

        def each(work: Callable[[Work], Estimate], items: Iterable[Work]) -> Iterator[Estimate]:
            return mapped_ahead(work, items, pool, ahead=AHEAD_ITEMS)

        priors: Iterable[Work] = ((frame, {}) for frame in range(starts[0], count))
        if coarse is not None:
            first = max(0, starts[0] - early)
            maps = each(coarse.triangulated, ((frame, {}) for frame in range(first, count)))
            maps = each(coarse.fused_and_completed_with_points, _windows(maps, first, starts[0], count, early))
            priors = ((frame, {frame: estimate}) for frame, estimate in enumerate(maps, starts[0]))
        maps = each(shot.triangulated, priors)
        maps = each(shot.fused, _windows(maps, starts[0], starts[1], count, reach))
        maps = each(shot.fused_and_completed, _windows(maps, starts[1], starts[2], count, reach))
        maps = each(shot.fused, _windows(maps, starts[2], start, count, reach))
        for estimate in maps:
            yield estimate.disparity[None], estimate.confidence[None]


def _coarse(shot: _Shot, config: GeometryConfig) -> _Shot | None:
    """The same shot on smaller pictures, None where they would be too small to match.

    The lengths that edges are filtered over shrink with them. What is measured in the pictures, as errors of matches
    are, stays: it is as large in pixels on small pictures.
    """
    width, height = shot.wh
    scale = config.coarse_scale
    if min(width, height) * scale < config.coarse_min_px:
        return None
    small = {
        "structure_long_side_px": round(max(width, height) * scale),
        "edge_px": round(config.edge_px * scale),
        "smooth_px": config.smooth_px * scale,
        "complete_px": config.complete_px * scale,
        "prior_px": config.prior_px * scale,
        "fusion_offsets": config.coarse_offsets,
    }
    return _Shot(shot.pictures, shot.solve, config.model_copy(update=small))


def _windows(maps: Iterator[Estimate], first: int, start: int, count: int, reach: int) -> Iterator[Work]:
    """Frames ``start`` to ``count`` with the estimates of the frames within ``reach`` on both sides.

    maps: the estimates of the frames from ``first`` on.
    """
    window: dict[int, Estimate] = {}
    for frame in range(start, count):
        while len(window) == 0 or (max(window) < min(frame + reach, count - 1)):
            window[max(window, default=first - 1) + 1] = next(maps)
        window.pop(frame - reach - 1, None)
        yield frame, dict(window)


class _Pictures:
    """Pictures of a shot at the size of its structure, as frames for another one."""

    def __init__(self, picture: Callable[[int], Uint8Array], shape: tuple[int, ...]) -> None:
        self._picture, self.shape = picture, shape

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, frame: int) -> Uint8Array:
        return self._picture(frame)


class _Shot:
    """Frames, cameras and the work on one frame at the structure's resolution."""

    def __init__(self, rgb: Frames, solve: CameraSolve, config: GeometryConfig) -> None:
        self._rgb, self.solve, self._config = rgb, solve, config
        self.wh = structure_wh(int(rgb.shape[2]), int(rgb.shape[1]), config)
        self._k = solve.path.intrinsics.resized(*self.wh)
        self._matcher, self._chooser = FlowMatcher(config), SourceChooser(solve, config)
        self._rays = normalised_rays(self._k)
        self._pictures: OrderedDict[int, Uint8Array] = OrderedDict()
        self._reading = threading.Lock()  # frames come from a store that one thread at a time may read

    @property
    def pictures(self) -> _Pictures:
        return _Pictures(self._picture, (len(self._rgb), *self.wh[::-1], 3))

    def _picture(self, frame: int) -> Uint8Array:
        """RGB at the structure's size; a bounded number is kept."""
        with self._reading:
            if frame not in self._pictures:
                self._pictures[frame] = as_uint8(
                    cv2.resize(np.asarray(self._rgb[frame]), self.wh, interpolation=cv2.INTER_AREA)
                )
                if len(self._pictures) > 4 * self._config.source_reach_frames:
                    self._pictures.popitem(last=False)
            return self._pictures[frame]

    def _gray(self, frame: int) -> Uint8Array:
        return as_uint8(cv2.cvtColor(self._picture(frame), cv2.COLOR_RGB2GRAY))

    def prior_disparity(self, frame: int) -> Float32Array:
        mean, weight = self._points(frame)
        if not weight.any():
            return np.full(self.wh[::-1], 1 / self._chooser.depths[frame], np.float32)
        return complete(self._picture(frame), mean, weight, self._config, near_px=self._config.prior_px)

    def _points(self, frame: int) -> tuple[Float32Array, Float32Array]:
        """Mean inverse depth of the sparse points in each pixel, and how many there are, both (H, W)."""
        xy, disparity = self.solve.sparse_disparity(frame)
        value, weight = np.zeros((2, *self.wh[::-1]), np.float32)
        if len(disparity) == 0:
            return value, weight
        k = self.solve.path.intrinsics
        scale = np.array(self.wh) / (k.width_px, k.height_px)
        at = np.clip(np.rint((xy + 0.5) * scale - 0.5), 0, np.array(self.wh) - 1).astype(int)
        np.add.at(value, (at[:, 1], at[:, 0]), np.clip(disparity, *np.percentile(disparity, (2, 98))))
        np.add.at(weight, (at[:, 1], at[:, 0]), 1)
        return np.divide(value, weight, out=np.zeros_like(value), where=weight > 0), weight

    def triangulated(self, work: Work) -> Estimate:
        """The frame's own measurement; the prior is the estimate that comes with the frame, if one does."""
        frame, given = work
        if frame in given:
            prior = as_float32(cv2.resize(given[frame].disparity, self.wh, interpolation=cv2.INTER_LINEAR))
        else:
            prior = self.prior_disparity(frame)
        poses = self.solve.path.world_from_cam
        sources = [
            (self._gray(source), relative(poses[frame], poses[source]))
            for source in self._chooser.choose(frame).tolist()
            if self.solve.path.solved[frame]
        ]
        return triangulate(self._gray(frame), sources, prior, self._k, self._matcher, self._config)

    def fused(self, work: Work) -> Estimate:
        """Mean of the frame's own estimate and its neighbours', weighted by confidence and agreement."""
        frame, window = work
        path, own = self.solve.path, window[frame]
        offsets = [sign * offset for offset in self._config.fusion_offsets for sign in (-1, 1)]
        near = [frame + o for o in offsets if frame + o in window and path.solved[frame + o] and path.solved[frame]]
        if not near:
            return own
        poses = path.world_from_cam
        miss, floor = self._config.fusion_miss_px, self._config.fusion_floor
        others = []
        for other in near:
            motion = relative(poses[frame], poses[other])
            others.append(bring(window[other], own.disparity, motion, self._rays, self._k, miss_px=miss, floor=floor))
        return fuse(own, others, self._config)

    def fused_and_completed(self, work: Work) -> Estimate:
        """``fused``, and continued by the planes of the surroundings where little is known."""
        estimate = self.fused(work)
        return Estimate(self._completed(work[0], estimate.disparity, self._weight(estimate)), estimate.confidence)

    def fused_and_completed_with_points(self, work: Work) -> Estimate:
        """``fused_and_completed`` with the sparse points as measurements: small pictures lose what is thin."""
        estimate = self.fused(work)
        mean, count = self._points(work[0])
        weight, points = self._weight(estimate), count * np.float32(self._config.coarse_point_weight)
        both = weight + points
        mixed = as_float32((weight * estimate.disparity + points * mean) / both)
        return Estimate(self._completed(work[0], mixed, both), estimate.confidence)

    def _weight(self, estimate: Estimate) -> Float32Array:
        return np.square(estimate.confidence) * away_from_steps(estimate.disparity, self._config) + np.float32(1e-6)

    def _completed(self, frame: int, disparity: Float32Array, weight: Float32Array) -> Float32Array:
        return complete(self._picture(frame), disparity, weight, self._config, near_px=self._config.smooth_px)
