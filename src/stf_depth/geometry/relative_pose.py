"""The motion between two frames from flow and one frame's depth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.spatial.transform import Rotation

from stf_depth.types import BoolArray, Float64Array

__all__ = ["RelativePose", "RelativeRotations", "masked_medians", "relative_pose", "relative_rotations"]

_STEPS = 12
_ENOUGH = 1e-6
_LEAST_SCALE = 0.3  # of the noise
_BEHIND = 1e-2
_RIDGE = 1e-9


class RelativePose(NamedTuple):
    """pose: (4, 4) float64, from the first camera to the second. errors: (N,) float64, in the unit of ``seen``."""

    pose: Float64Array
    errors: Float64Array


class RelativeRotations(NamedTuple):
    """rotations: (P, 3, 3) float64, from the first to the second camera of each pair. errors: (P, N) float64."""

    rotations: Float64Array
    errors: Float64Array


def relative_pose(rays: Float64Array, disparity: Float64Array, seen: Float64Array, *, noise: float) -> RelativePose:
    """argmin over R, t of sum_n rho(|pi(R r_n + t d_n) - x_n|), pi((x, y, z)) = (x, y) / z, Cauchy rho.

    By Gauss-Newton steps from no motion, the scale of rho 1.48 times the median error and at least a part of ``noise``.
    rays: (N, 3), third component 1. disparity: (N,), positive; t comes in the unit of its inverse. seen: (N, 2), where
    the points are in the second frame, as x / z and y / z.
    """
    rotation, shift = np.eye(3), np.zeros(3)
    errors = np.linalg.norm(seen - rays[:, :2], axis=1)
    for _ in range(_STEPS):
        turned = rays @ rotation.T
        points = turned + disparity[:, None] * shift
        z = np.maximum(points[:, 2], _BEHIND)
        left = seen - points[:, :2] / z[:, None]
        errors = np.linalg.norm(left, axis=1)
        scale = max(1.48 * float(np.median(errors)), _LEAST_SCALE * noise)
        step = _step(turned, points[:, :2] / z[:, None], z, disparity, left, 1 / (1 + (errors / scale) ** 2))
        rotation = Rotation.from_rotvec(step[:3]).as_matrix() @ rotation
        shift = shift + step[3:]
        if np.abs(step).max() < _ENOUGH:
            break
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, shift
    return RelativePose(pose, errors)


def _step(
    turned: Float64Array,
    projected: Float64Array,
    z: Float64Array,
    disparity: Float64Array,
    left: Float64Array,
    weight: Float64Array,
) -> Float64Array:
    """Least squares for a small rotation vector and a change of t."""
    nothing = np.zeros_like(z)
    # d projected / d point, (N, 2, 3)
    by_point = np.stack(
        [np.stack([1 / z, nothing, -projected[:, 0] / z], 1), np.stack([nothing, 1 / z, -projected[:, 1] / z], 1)], 1
    )
    x, y, far = turned.T
    # d (w x turned) / d w, (N, 3, 3)
    by_turn = np.stack(
        [np.stack([nothing, far, -y], 1), np.stack([-far, nothing, x], 1), np.stack([y, -x, nothing], 1)], 1
    )
    design = np.concatenate([by_point @ by_turn, by_point * disparity[:, None, None]], 2)
    weighted = design * weight[:, None, None]
    normal = np.einsum("nij,nik->jk", weighted, design)
    normal += _RIDGE * np.trace(normal) * np.eye(6)
    step: Float64Array = np.linalg.solve(normal, np.einsum("nij,ni->j", weighted, left))
    return step


def relative_rotations(
    source: Float64Array, target: Float64Array, known: BoolArray, *, noise: float
) -> RelativeRotations:
    """``relative_pose`` of many pairs at once for a camera that only turns, or points without a depth.

    source, target: (P, N, 2), where the points are in either frame, as x / z and y / z. known: (P, N), which are there.
    """
    rays = np.concatenate([source, np.ones((*source.shape[:2], 1))], 2)
    rotations = np.tile(np.eye(3), (len(source), 1, 1))
    errors = np.linalg.norm(target - source, axis=2)
    for _ in range(_STEPS if len(source) else 0):
        turned = rays @ rotations.transpose(0, 2, 1)
        x, y = np.moveaxis(turned[..., :2] / np.maximum(turned[..., 2:], _BEHIND), 2, 0)
        left_x, left_y = target[..., 0] - x, target[..., 1] - y
        errors = np.hypot(left_x, left_y)
        scale = np.maximum(1.48 * masked_medians(errors, known), _LEAST_SCALE * noise)
        weight = known / (1 + (errors / scale[:, None]) ** 2)
        # d (x, y) / d w of a small turn w.
        by_turn = np.stack([[-x * y, 1 + x * x, -y], [-1 - y * y, x * y, x]])
        weighted = by_turn * weight
        normal = np.einsum("icpn,idpn->pcd", weighted, by_turn, optimize=True)
        normal += _RIDGE * np.trace(normal, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        moment = np.einsum("icpn,ipn->pc", weighted, np.stack([left_x, left_y]), optimize=True)
        step = np.linalg.solve(normal, moment[..., None])[..., 0]
        rotations = Rotation.from_rotvec(step).as_matrix() @ rotations
        if np.abs(step).max() < _ENOUGH:
            break
    return RelativeRotations(rotations, errors)


def masked_medians(values: Float64Array, known: BoolArray) -> Float64Array:
    """Median of the known ones of each row of (P, N), one at least: (P,)."""
    ordered, count = np.sort(np.where(known, values, np.inf), axis=1), known.sum(1, keepdims=True)
    middle: Float64Array = np.take_along_axis(ordered, np.concatenate([(count - 1) // 2, count // 2], 1), 1).mean(1)
    return middle
