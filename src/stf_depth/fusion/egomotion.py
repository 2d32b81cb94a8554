"""The camera's motion from frame to frame where its path was not solved, from flow and the network's own depth.

Such poses are too rough to triangulate or to warp with, and drift. But they tell by how much distances change on the
way from one frame to the next few, which would be taken for flicker otherwise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stf_depth.alignment.links import bilinear
from stf_depth.fusion.poses import PoseFilter
from stf_depth.fusion.trajectory import pixel_grid
from stf_depth.geometry.relative_pose import relative_pose
from stf_depth.types import Float32Array, Float64Array, Intrinsics

__all__ = ["Egomotion"]

_FOCAL = 0.9  # of the long side: what cameras usually have
_COLUMNS = 40
_MIN_POINTS = 50
_MIN_SHARE = 0.5
_MAX_RELATIVE_ERROR = 0.15  # of the flow, about what a network's depth is wrong by
_CLEARLY = 0.9


class Egomotion:
    """Poses in the unit of exp(log disparity), frame by frame as they are pushed."""

    def __init__(self, frame_count: int, size: tuple[int, int], tolerance_px: float) -> None:
        """size: (h, w) of the maps. tolerance_px: by which forward and backward flow may disagree."""
        height, width = size
        self._tolerance_px = tolerance_px
        self._focal_px = _FOCAL * max(size)
        k = Intrinsics(self._focal_px, self._focal_px, (width - 1) / 2, (height - 1) / 2, width, height)
        self._centre = np.array([k.cx_px, k.cy_px])
        self._poses = np.tile(np.eye(4), (frame_count, 1, 1))
        self._filter = PoseFilter(k, self._poses, np.ones(frame_count, bool), 1.0, size)

    def push(
        self,
        frame: int,
        log_disparity: Float32Array,
        weight: Float32Array,
        forward_px: Float32Array,
        backward_px: Float32Array,
    ) -> None:
        """Take the step to ``frame`` from the one before.

        log_disparity, weight: (h, w), of the one before; weight 0 where nothing is known, or what is seen moves.
        forward_px, backward_px: (h, w, 2), flow from there to ``frame`` and back.
        """
        self._poses[frame] = self._poses[frame - 1]
        start, end = self._matches(weight, forward_px, backward_px)
        if len(start) < _MIN_POINTS:
            return
        log_values = bilinear(log_disparity, start).astype(np.float64)
        step = self._step(start, end, log_values - np.median(log_values))
        step[:3, 3] /= np.exp(np.median(log_values))
        self._poses[frame] = self._poses[frame - 1] @ np.linalg.inv(step)

    def _matches(
        self, weight: Float32Array, forward_px: Float32Array, backward_px: Float32Array
    ) -> tuple[Float32Array, Float32Array]:
        height, width = weight.shape
        rows = max(2, round(_COLUMNS * height / width))
        x, y = (np.arange(_COLUMNS) + 0.5) * (width / _COLUMNS) - 0.5, (np.arange(rows) + 0.5) * (height / rows) - 0.5
        start = np.stack([part.ravel() for part in np.meshgrid(x, y)], 1).astype(np.float32)
        step = bilinear(forward_px, start)
        end = start + step
        gap = np.linalg.norm(step + bilinear(backward_px, end), axis=1)
        good = gap < self._tolerance_px + 0.05 * np.linalg.norm(step, axis=1)
        good &= ((end >= 0) & (end <= [width - 1, height - 1])).all(1) & (bilinear(weight, start) > 0.5)
        return start[good], end[good]

    def _step(self, start: Float32Array, end: Float32Array, log_disparity: Float64Array) -> Float64Array:
        """Pose of the later camera in the earlier one's points, the identity where depth does not explain the flow."""
        rays = np.column_stack([(start - self._centre) / self._focal_px, np.ones(len(start))])
        seen = (end - self._centre) / self._focal_px
        noise = 1 / self._focal_px
        found = relative_pose(rays, np.exp(log_disparity), seen, noise=noise)
        # Turning, zooming and a flat scene look the same as a frontal plane: then nothing tells how far anything moved.
        plane = relative_pose(rays, np.ones(len(rays)), seen, noise=noise)
        moved = float(np.median(np.linalg.norm(seen - rays[:, :2], axis=1)))
        explained = found.errors < 2 * noise + _MAX_RELATIVE_ERROR * moved
        is_clear = np.median(found.errors) < _CLEARLY * np.median(plane.errors)
        return found.pose if is_clear and explained.mean() > _MIN_SHARE else np.eye(4)

    def expected_change(self, frame: int, other: int, xy_px: Float32Array, log_disparity: Float32Array) -> Float32Array:
        """By how much log disparity of points of ``frame`` grows on the way to ``other``: see ``PoseFilter``."""
        return self._filter.expected_change(frame, other, xy_px, log_disparity)

    def change_along(self, log_disparity: Tensor, frame: int, other: int, position: Tensor, least_px: float) -> Tensor:
        """The expected change of each pixel, the less the farther flow's ``position`` is from where the pose has it.

        log_disparity: the network's, (1, 1, h, w). position: (1, 2, h, w). What moves by itself changes its distance in
        ways of its own. least_px: a gap that halves it, on pixels that stand still.
        """
        expected, depth, _ = self._filter.project(log_disparity, frame, other)
        gap = ((expected - position) ** 2).sum(1, keepdim=True)
        moved = ((position - pixel_grid(position)) ** 2).sum(1, keepdim=True)
        limit = least_px**2 + (_MAX_RELATIVE_ERROR**2) * moved
        return -torch.log(depth.clamp(0.1, 10)) / (1 + (gap / limit) ** 2)
