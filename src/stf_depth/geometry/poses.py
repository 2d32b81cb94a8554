"""Rigid motions in NumPy: inverse, relative motion, projection, interpolation."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from stf_depth.types import BoolArray, Float64Array, Intrinsics

__all__ = ["fill_poses", "inverse", "project_points", "relative", "rotation_degrees"]


def inverse(pose: Float64Array) -> Float64Array:
    """(R, t) -> (R^T, -R^T t) of motions (..., 4, 4)."""
    rotation = np.swapaxes(pose[..., :3, :3], -1, -2)
    result = np.zeros_like(pose)
    result[..., :3, :3] = rotation
    result[..., :3, 3] = -np.einsum("...ij,...j->...i", rotation, pose[..., :3, 3])
    result[..., 3, 3] = 1
    return result


def relative(world_from_source: Float64Array, world_from_target: Float64Array) -> Float64Array:
    """target_from_source, (..., 4, 4)."""
    return inverse(world_from_target) @ world_from_source


def rotation_degrees(motion: Float64Array) -> Float64Array:
    """Angle of the rotation of motions (..., 4, 4)."""
    trace = np.trace(motion[..., :3, :3], axis1=-2, axis2=-1)
    angle: Float64Array = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    return angle


def project_points(
    points_world: Float64Array, world_from_cam: Float64Array, intrinsics: Intrinsics
) -> tuple[Float64Array, Float64Array]:
    """Pixel positions (n, 2) and depths (n,) of points (n, 3) in cameras (4, 4) or (n, 4, 4).

    Positions of points that do not lie before the camera are NaN.
    """
    pose = inverse(np.broadcast_to(world_from_cam, (len(points_world), 4, 4)))
    local = np.einsum("nij,nj->ni", pose[:, :3, :3], points_world) + pose[:, :3, 3]
    z = local[:, 2]
    scale = np.divide(1.0, z, out=np.full(len(z), np.nan), where=z > 0)
    u = intrinsics.fx_px * local[:, 0] * scale + intrinsics.cx_px
    v = intrinsics.fy_px * local[:, 1] * scale + intrinsics.cy_px
    return np.stack([u, v], 1), z


def fill_poses(world_from_cam: Float64Array, solved: BoolArray) -> Float64Array:
    """Copy with the poses of unsolved frames interpolated between solved neighbours, held at the ends."""
    known = np.flatnonzero(solved)
    filled = np.array(world_from_cam, np.float64)
    if len(known) == 0:
        return filled
    missing = np.flatnonzero(~solved)
    at = np.clip(missing, known[0], known[-1])
    for axis in range(3):
        filled[missing, axis, 3] = np.interp(at, known, world_from_cam[known, axis, 3])
    if len(known) == 1:
        filled[missing, :3, :3] = world_from_cam[known[0], :3, :3]
    elif len(missing):
        turn = Slerp(known, Rotation.from_matrix(world_from_cam[known, :3, :3]))
        filled[missing, :3, :3] = turn(at).as_matrix()
    return filled
