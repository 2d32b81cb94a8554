"""The camera's motion from frame to frame where its path was not solved, from flow and the network's own depth.

Such poses are too rough to triangulate or to warp with, and drift. But they tell by how much distances change on the
way from one frame to the next few, which would be taken for flicker otherwise.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from stf_depth.alignment.links import bilinear, led_by_flow
from stf_depth.fusion.poses import PoseFilter
from stf_depth.fusion.trajectory import pixel_grid
from stf_depth.geometry.poses import inverse
from stf_depth.geometry.relative_pose import relative_pose
from stf_depth.types import Float32Array, Float64Array, Intrinsics

__all__ = ["Egomotion", "agreement", "between_two", "camera_step", "change_along"]

_FOCAL = 0.9  # of the long side: what cameras usually have
_COLUMNS = 40
_MIN_POINTS = 50
_MIN_SHARE = 0.5
_MAX_RELATIVE_ERROR = 0.15  # of the flow, about what a network's depth is wrong by
_CLEARLY = 0.9


class Egomotion:
    """Poses in the unit of exp(log disparity), frame by frame as they are pushed. ``poses``: a filter along them."""

    def __init__(
        self, frame_count: int, size: tuple[int, int], tolerance_px: float, k: Intrinsics | None = None
    ) -> None:
        """size: (h, w) of the maps. tolerance_px: by which forward and backward flow may disagree. k: usual if None."""
        self._tolerance_px = tolerance_px
        self._k = k.resized(size[1], size[0]) if k is not None else _usual(size)
        self._poses = np.tile(np.eye(4), (frame_count, 1, 1))
        self.poses = PoseFilter(self._k, self._poses, np.ones(frame_count, bool), 1.0, size)

    def push(
        self,
        frame: int,
        log_disparity: Float32Array,
        weight: Float32Array,
        forward_px: Float32Array,
        backward_px: Float32Array,
    ) -> None:
        """Take the step to ``frame`` from the one before, whose maps these are: see ``camera_step``."""
        tolerance_px, k = self._tolerance_px, self._k
        self.take(frame, camera_step(log_disparity, weight, forward_px, backward_px, tolerance_px=tolerance_px, k=k))

    def take(self, frame: int, step: Float64Array) -> None:
        """Take a step that is known, (4, 4), the same as ``camera_step``'s."""
        self._poses[frame] = self._poses[frame - 1] @ inverse(step)


def change_along(
    motion: PoseFilter, log_disparity: Tensor, frame: int, other: int, position: Tensor, least_px: float
) -> Tensor:
    """By how much each pixel's log disparity grows on the way to ``other``, less where ``agreement`` is less.

    log_disparity: the network's, (1, 1, h, w). position: where flow has each pixel in ``other``, (1, 2, h, w).
    """
    expected, depth, _ = motion.project(log_disparity, frame, other)
    return -torch.log(depth.clamp(0.1, 10)) * agreement(expected, position, least_px)


def between_two(step: Float64Array, size: tuple[int, int]) -> PoseFilter:
    """Poses of frame 0 and frame 1, ``step`` of ``camera_step`` apart."""
    poses = np.stack([np.eye(4), inverse(step)])
    return PoseFilter(_usual(size), poses, np.ones(2, bool), 1.0, size)


def agreement(expected: Tensor, position: Tensor, least_px: float) -> Tensor:
    """1 where flow leads where the pose has a pixel, less the farther from it: what moves by itself is no guide.

    expected, position: (1, 2, h, w). least_px: a gap that halves it, on pixels that stand still.
    """
    gap = ((expected - position) ** 2).sum(1, keepdim=True)
    moved = ((position - pixel_grid(position)) ** 2).sum(1, keepdim=True)
    return 1 / (1 + (gap / (least_px**2 + _MAX_RELATIVE_ERROR**2 * moved)) ** 2)


def camera_step(
    log_disparity: Float32Array,
    weight: Float32Array,
    forward_px: Float32Array,
    backward_px: Float32Array,
    *,
    tolerance_px: float,
    k: Intrinsics | None = None,
) -> Float64Array:
    """(4, 4) float64: the points of a frame in the next one's camera, in the unit of exp(-log_disparity).

    The identity where depth does not explain most of the flow, or no better than a frontal plane: turning, zooming and
    a flat scene look like one, and nothing tells how far anything moved. log_disparity, weight: (h, w), of the first
    frame; weight 0 where nothing is known, or what is seen moves. forward_px, backward_px: (h, w, 2), flow and back.
    """
    height, width = weight.shape
    start, end = _matches(weight, forward_px, backward_px, tolerance_px)
    if len(start) < _MIN_POINTS:
        return np.eye(4)
    k = k or _usual((height, width))
    focal, centre = np.array([k.fx_px, k.fy_px]), np.array([k.cx_px, k.cy_px])
    rays = np.column_stack([(start - centre) / focal, np.ones(len(start))])
    seen, noise = (end - centre) / focal, 1 / k.fx_px
    log_values = bilinear(log_disparity, start).astype(np.float64)
    level = np.median(log_values)
    found = relative_pose(rays, np.exp(log_values - level), seen, noise=noise)
    plane = relative_pose(rays, np.ones(len(rays)), seen, noise=noise)
    moved = float(np.median(np.linalg.norm(seen - rays[:, :2], axis=1)))
    explained = found.errors < 2 * noise + _MAX_RELATIVE_ERROR * moved
    if explained.mean() <= _MIN_SHARE or np.median(found.errors) >= _CLEARLY * np.median(plane.errors):
        return np.eye(4)
    found.pose[:3, 3] /= np.exp(level)
    return found.pose


def _usual(size: tuple[int, int]) -> Intrinsics:
    height, width = size
    focal = _FOCAL * max(size)
    return Intrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


def _matches(
    weight: Float32Array, forward_px: Float32Array, backward_px: Float32Array, tolerance_px: float
) -> tuple[Float32Array, Float32Array]:
    """Grid points (N, 2) whose flow is checked, and where it leads."""
    height, width = weight.shape
    rows = max(2, round(_COLUMNS * height / width))
    x, y = (np.arange(_COLUMNS) + 0.5) * (width / _COLUMNS) - 0.5, (np.arange(rows) + 0.5) * (height / rows) - 0.5
    start = np.stack([part.ravel() for part in np.meshgrid(x, y)], 1).astype(np.float32)
    end, good = led_by_flow(start, forward_px, backward_px, tolerance_px)
    good &= bilinear(weight, start) > 0.5
    return start[good], end[good]
