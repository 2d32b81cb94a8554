"""Which other frames a frame is triangulated from."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import GeometryConfig
from stf_depth.geometry.camera_solve import CameraSolve
from stf_depth.geometry.poses import relative, rotation_degrees
from stf_depth.types import Float64Array

__all__ = ["SourceChooser"]

Int64Array = NDArray[np.int64]


class SourceChooser:
    """Frames seen from a useful distance: far enough to triangulate, near enough to match.

    For each wanted baseline (a share of the reference's median depth) and each side in time, the solved frame that
    minimises |log(baseline / wanted)| + blur penalty, among those that turn less than the limit.
    """

    def __init__(self, solve: CameraSolve, config: GeometryConfig) -> None:
        self._solve, self._config = solve, config

    @cached_property
    def depths(self) -> Float64Array:
        """Median depth of the sparse points of each frame, interpolated where a frame sees none."""
        medians = np.full(len(self._solve.path), np.nan)
        for frame in range(len(medians)):
            _, disparity = self._solve.sparse_disparity(frame)
            if len(disparity):
                medians[frame] = 1 / np.median(disparity)
        known = np.flatnonzero(np.isfinite(medians))
        if len(known) == 0:
            return np.ones(len(medians))
        return np.asarray(np.interp(np.arange(len(medians)), known, medians[known]), np.float64)

    def choose(self, frame: int) -> Int64Array:
        """Frame numbers of the sources, increasing; empty where no frame will do."""
        path = self._solve.path
        reach = self._config.source_reach_frames
        near = np.arange(max(0, frame - reach), min(len(path), frame + reach + 1))
        motion = relative(np.broadcast_to(path.world_from_cam[frame], (len(near), 4, 4)), path.world_from_cam[near])
        baseline = np.linalg.norm(motion[:, :3, 3], axis=1) / self.depths[frame]
        usable = path.solved[near] & (near != frame) & (baseline > self._config.min_baseline)
        usable &= rotation_degrees(motion) < self._config.max_source_rotation_degrees
        blur = self._blur_penalty(near, frame)
        chosen: set[int] = set()
        for side in (near < frame, near > frame):
            for wanted in self._config.source_baselines:
                self._add_best(chosen, near, usable & side, np.abs(np.log(np.maximum(baseline, 1e-9) / wanted)) + blur)
        return np.array(sorted(chosen), np.int64)

    def _blur_penalty(self, near: Int64Array, frame: int) -> Float64Array:
        sharpness = np.maximum(self._solve.sharpness.astype(np.float64), 1e-6)
        return np.asarray(self._config.blur_penalty * np.maximum(0, np.log(sharpness[frame] / sharpness[near])))

    def _add_best(self, chosen: set[int], near: Int64Array, usable: NDArray[np.bool_], cost: Float64Array) -> None:
        free = usable & ~np.isin(near, list(chosen))
        if free.any():
            best = int(np.argmin(np.where(free, cost, np.inf)))
            if cost[best] < self._config.max_source_cost:
                chosen.add(int(near[best]))
