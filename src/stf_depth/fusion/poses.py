"""Temporal filter along the camera's poses, for pixels of the static scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stf_depth.fusion.trajectory import Field, Reading, Tolerance, is_inside, look_up, tolerated
from stf_depth.geometry.fuse import normalised_rays
from stf_depth.geometry.poses import relative
from stf_depth.types import BoolArray, CameraPath, Float32Array, Float64Array, Intrinsics

__all__ = ["PoseFilter"]


class _Seen(NamedTuple):
    """Positions (1, 2, h, w), the depth ratio (R r + t d)_z and its part (R r)_z, each (1, 1, h, w)."""

    position: Tensor
    depth: Tensor
    rotated: Tensor


class PoseFilter:
    """Averages what several frames say about the same surface point.

    A pixel with disparity d and ray r is seen in frame k along R r + t d, with disparity d_k = d / (R r + t d)_z. The
    ratio of what frame k has there to d_k corrects d: u <- sum_k w_k (u + g_k) / sum_k w_k, with
    g_k = log(found / d_k) (1 + t_z d / (R r)_z) and w_k = weight_k / (1 + (g_k / tolerance)^2), so that surfaces
    that hide the point do not count.
    """

    def __init__(
        self,
        intrinsics: Intrinsics,
        world_from_cam: Float64Array,
        usable: BoolArray,
        unit: float,
        size: tuple[int, int],
    ) -> None:
        """world_from_cam: (T, 4, 4). usable: (T,), whether a pose may be used. unit: factor from the poses' inverse
        unit to exp(log disparity). size: (h, w) of the fields.
        """
        height, width = size
        self._intrinsics = intrinsics
        self._k = intrinsics.resized(width, height)
        self._rays = torch.from_numpy(normalised_rays(self._k))[None]
        self._poses, self._usable, self._unit = world_from_cam, usable, unit

    @classmethod
    def along(cls, camera: CameraPath, unit: float, size: tuple[int, int]) -> PoseFilter:
        """The filter along a solved path."""
        usable = np.asarray(camera.solved) & (np.asarray(camera.reliability) > 0)
        return cls(camera.intrinsics, np.asarray(camera.world_from_cam, np.float64), usable, unit, size)

    def resized(self, size: tuple[int, int]) -> PoseFilter:
        """The same for fields of another size (h, w)."""
        return PoseFilter(self._intrinsics, self._poses, self._usable, self._unit, size)

    def usable(self, frame: int) -> bool:
        """Whether the frame's pose may be used."""
        return bool(self._usable[frame])

    def __call__(
        self,
        field: Field,
        frame: int,
        offsets: Sequence[int],
        *,
        tolerance: Tolerance,
        reading: Reading = "bilinear",
    ) -> tuple[Tensor, Tensor]:
        """Filtered log disparity of ``frame`` and the sum of weights, each (1, 1, h, w); offsets on both sides."""
        here = field(frame)
        value, weight = here[:, :1], here[:, 1:]
        total, weights = torch.zeros_like(value), weight.clone()
        points = self._points(value)
        for offset in offsets:
            for other in (frame - offset, frame + offset):
                if 0 <= other < len(self._usable) and self._usable[other]:
                    seen = self._seen(points, frame, other)
                    gap, known = self._compare(field(other), value, seen, other, tolerance, reading)
                    total = total + known * gap
                    weights = weights + known
        return value + total / weights.clamp(min=1e-6), weights

    @staticmethod
    def _compare(
        there: Tensor, value: Tensor, seen: _Seen, other: int, tolerance: Tolerance, reading: Reading
    ) -> tuple[Tensor, Tensor]:
        position, depth, rotated = seen
        found = look_up(there, position, reading)
        expected = value - torch.log(depth.clamp(min=1e-4))
        gap = (found[:, :1] - expected) * (depth / rotated.clamp(min=0.2)).clamp(0.2, 5)
        is_seen = is_inside(position, there.shape[-2:]) & (depth > 1e-4)
        known = found[:, 1:] * is_seen / (1 + (gap / tolerated(tolerance, other, position, is_seen)) ** 2)
        return gap, known

    def step(self, frame: int, other: int) -> Float64Array:
        """(4, 4): the points of ``frame`` in ``other``'s camera, in the unit of exp(-log disparity)."""
        motion = relative(self._poses[frame], self._poses[other])
        motion[:3, 3] /= self._unit
        return motion

    def project(self, value: Tensor, frame: int, other: int) -> _Seen:
        """Where pixels of ``frame`` with log disparity ``value``, (1, 1, h, w), appear in ``other``."""
        return self._seen(self._points(value), frame, other)

    def _points(self, value: Tensor) -> Tensor:
        """Ray and disparity of each pixel, (1, 4, h, w)."""
        if self._rays.device != value.device:
            self._rays = self._rays.to(value.device)
        return torch.cat([self._rays, torch.exp(value) / self._unit], 1)

    def _seen(self, points: Tensor, frame: int, other: int) -> _Seen:
        motion = relative(self._poses[frame], self._poses[other])
        # K (R r + t d), and a fourth row for (R r)_z: one product, and one matrix to send.
        rows = np.concatenate([self._k.matrix() @ motion[:3], motion[2:3] * [1, 1, 1, 0]]).astype(np.float32)
        found = (torch.from_numpy(rows).to(points.device) @ points.flatten(2)).view(points.shape)
        depth = found[:, 2:3]
        return _Seen(found[:, :2] / depth.clamp(min=1e-4), depth, found[:, 3:])

    def expected_change(self, frame: int, other: int, xy_px: Float32Array, log_disparity: Float32Array) -> Float32Array:
        """-log((R r + t d)_z) of points (N, 2) of ``frame``: how log disparity grows on the way to ``other``.

        0 where either pose is unknown.
        """
        if not (self._usable[frame] and self._usable[other]):
            return np.zeros(len(xy_px), np.float32)
        motion = relative(self._poses[frame], self._poses[other])
        x = (xy_px[:, 0] - self._k.cx_px) / self._k.fx_px
        y = (xy_px[:, 1] - self._k.cy_px) / self._k.fy_px
        rotated = motion[2, 0] * x + motion[2, 1] * y + motion[2, 2]
        depth = rotated + motion[2, 3] * np.exp(log_disparity) / self._unit
        change: Float32Array = -np.log(np.clip(depth, 0.1, 10)).astype(np.float32)
        return change
