"""Dense inverse depth of a shot from the camera's motion, in frame order and flat in memory.

Every frame is triangulated from a few others, then fused with what its neighbours saw, brought over along the poses.
Each stage holds only the frames that its own neighbours still need.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping

import cv2
import numpy as np

from stf_depth.config import GeometryConfig
from stf_depth.geometry.arrays import as_float32, as_uint8
from stf_depth.geometry.fuse import Estimate, bring, fuse, normalised_rays
from stf_depth.geometry.poses import relative
from stf_depth.geometry.smoothing import away_from_steps, complete
from stf_depth.geometry.solve import CameraSolve
from stf_depth.geometry.sources import SourceChooser
from stf_depth.geometry.triangulate import FlowMatcher, triangulate
from stf_depth.parallel import mapped_ahead, thread_pool
from stf_depth.types import Float32Array, Frames, Role, Uint8Array

__all__ = ["AHEAD_FRAMES", "structure_wh", "triangulate_shot"]

# A frame and the estimates of the frames around it.
Work = tuple[int, Mapping[int, Estimate]]
# Frames of each stage in work beyond the one that is waited for: enough to keep every thread busy.
AHEAD_FRAMES = 2


def structure_wh(width_px: int, height_px: int, config: GeometryConfig) -> tuple[int, int]:
    """Size of the structure maps: long side as configured, never larger than the frames, aspect kept."""
    scale = min(1.0, config.structure_long_side_px / max(width_px, height_px))
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def triangulate_shot(
    rgb: Frames,
    solve: CameraSolve,
    *,
    config: GeometryConfig,
    roles: Frames | None = None,
    prior: Frames | None = None,
    start: int = 0,
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Yield (disparity, confidence), each (1, h, w) float32, for the frames of a shot from ``start`` on, in order.

    rgb: (T, H, W, 3) uint8, the frames that ``solve`` was made from. roles: (T, h', w') uint8 of ``Role``; confidence
    is 0 on movers and sky. prior: (T, h', w') float32 inverse depth in the solve's unit (a network's, aligned), used
    instead of the sparse points where positive. disparity is inverse depth in the solve's unit, positive everywhere;
    confidence is in [0, 1] and ranks errors, it is not a probability. A later start gives the same bytes: only the
    frames that the stages need before it are worked on.
    """
    shot = _Shot(rgb, solve, config, roles, prior)
    count, reach = len(rgb), max(config.fusion_offsets)
    starts = [max(0, start - stages * reach) for stages in (3, 2, 1)]  # of the stages before each fusion
    with thread_pool() as pool:

        def each(work: Callable[[Work], Estimate], items: Iterable[Work]) -> Iterator[Estimate]:
            return mapped_ahead(work, items, pool, ahead=AHEAD_FRAMES)

        maps = each(shot.triangulated, ((frame, {}) for frame in range(starts[0], count)))
        maps = each(shot.fused, _windows(maps, starts[0], starts[1], count, reach))
        maps = each(shot.fused_and_completed, _windows(maps, starts[1], starts[2], count, reach))
        maps = each(shot.fused, _windows(maps, starts[2], start, count, reach))
        for frame, estimate in enumerate(maps, start):
            final = shot.finished(frame, estimate)
            yield final.disparity[None], final.confidence[None]


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


class _Shot:
    """Frames, cameras and the work on one frame at the structure's resolution."""

    def __init__(
        self, rgb: Frames, solve: CameraSolve, config: GeometryConfig, roles: Frames | None, prior: Frames | None
    ) -> None:
        self._rgb, self._solve, self._config, self._roles, self._prior = rgb, solve, config, roles, prior
        self._wh = structure_wh(int(rgb.shape[2]), int(rgb.shape[1]), config)
        self._k = solve.path.intrinsics.resized(*self._wh)
        self._matcher, self._chooser = FlowMatcher(config), SourceChooser(solve, config)
        self._rays = normalised_rays(self._k)
        self._pictures: OrderedDict[int, Uint8Array] = OrderedDict()
        self._reading = threading.Lock()  # frames come from a store that one thread at a time may read

    def _picture(self, frame: int) -> Uint8Array:
        """RGB at the structure's size; a bounded number is kept."""
        with self._reading:
            if frame not in self._pictures:
                self._pictures[frame] = as_uint8(
                    cv2.resize(np.asarray(self._rgb[frame]), self._wh, interpolation=cv2.INTER_AREA)
                )
                if len(self._pictures) > 4 * self._config.source_reach_frames:
                    self._pictures.popitem(last=False)
            return self._pictures[frame]

    def _gray(self, frame: int) -> Uint8Array:
        return as_uint8(cv2.cvtColor(self._picture(frame), cv2.COLOR_RGB2GRAY))

    def prior_disparity(self, frame: int) -> Float32Array:
        if self._prior is not None:
            with self._reading:
                prior = np.asarray(self._prior[frame], np.float32)
            return as_float32(cv2.resize(prior, self._wh, interpolation=cv2.INTER_AREA))
        xy, disparity = self._solve.sparse_disparity(frame)
        if len(disparity) == 0:
            return np.full(self._wh[::-1], 1 / self._chooser.depths[frame], np.float32)
        value, weight = np.zeros((2, *self._wh[::-1]), np.float32)
        scale = np.array(self._wh) / (self._rgb.shape[2], self._rgb.shape[1])
        at = np.clip(np.rint((xy + 0.5) * scale - 0.5), 0, np.array(self._wh) - 1).astype(int)
        np.add.at(value, (at[:, 1], at[:, 0]), np.clip(disparity, *np.percentile(disparity, (2, 98))))
        np.add.at(weight, (at[:, 1], at[:, 0]), 1)
        mean = np.divide(value, weight, out=np.zeros_like(value), where=weight > 0)
        return complete(self._picture(frame), mean, weight, self._config, near_px=self._config.prior_px)

    def triangulated(self, work: Work) -> Estimate:
        frame, prior = work[0], self.prior_disparity(work[0])
        poses = self._solve.path.world_from_cam
        sources = [
            (self._gray(source), relative(poses[frame], poses[source]))
            for source in self._chooser.choose(frame).tolist()
            if self._solve.path.solved[frame]
        ]
        return triangulate(self._gray(frame), sources, prior, self._k, self._matcher, self._config)

    def fused(self, work: Work) -> Estimate:
        """Mean of the frame's own estimate and its neighbours', weighted by confidence and agreement."""
        frame, window = work
        path, own = self._solve.path, window[frame]
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
        frame, estimate = work[0], self.fused(work)
        weight = np.square(estimate.confidence) * away_from_steps(estimate.disparity, self._config) + np.float32(1e-6)
        picture = self._picture(frame)
        disparity = complete(picture, estimate.disparity, weight, self._config, near_px=self._config.smooth_px)
        return Estimate(disparity, estimate.confidence)

    def finished(self, frame: int, estimate: Estimate) -> Estimate:
        if self._roles is None:
            return estimate
        roles = cv2.resize(np.asarray(self._roles[frame]), self._wh, interpolation=cv2.INTER_NEAREST)
        trusted = ~np.isin(roles, (Role.SKY, Role.MOVER))
        return Estimate(estimate.disparity, estimate.confidence * trusted)
