"""What the solve of a shot's camera gives, and the file that keeps it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.geometry.points import FramePoints
from stf_depth.types import CameraPath, Float32Array, Intrinsics, MotionKind

__all__ = ["CameraSolve", "load_solve", "save_solve"]

Array = NDArray[Any]

_BLOCK_FRAMES = 256  # whose points are in memory at once while a file is written or read


@dataclass(frozen=True)
class CameraSolve:
    """The camera path of a shot with the sparse points that each frame sees.

    points: positions at the path's image size and inverse depths in its unit. sharpness: (T,) float32, mean absolute
    Laplacian of each frame, to compare frames of the shot.
    """

    path: CameraPath
    points: FramePoints
    sharpness: Float32Array

    @classmethod
    def without_poses(
        cls, kind: MotionKind, intrinsics: Intrinsics, sharpness: Float32Array, *, reason: str
    ) -> CameraSolve:
        """A solve that says only what is wrong: no pose, no points."""
        count = len(sharpness)
        path = CameraPath(
            kind=kind,
            intrinsics=intrinsics,
            world_from_cam=np.tile(np.eye(4), (count, 1, 1)),
            solved=np.zeros(count, bool),
            reliability=np.zeros(count, np.float32),
            reason=reason,
        )
        return cls(path, FramePoints([()] * count), sharpness)

    def sparse_disparity(self, frame: int) -> tuple[Float32Array, Float32Array]:
        """Positions (n, 2) in pixels and inverse depths (n,) of the points that frame ``frame`` sees."""
        rows = self.points[frame]
        return rows[:, :2], rows[:, 2]


def save_solve(path: Path, solve: CameraSolve) -> None:
    """Write a solve as an npz file, block by block."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in _members(solve):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _members(solve: CameraSolve) -> Iterator[tuple[str, Array]]:
    path, k = solve.path, solve.path.intrinsics
    yield "kind", np.array(path.kind.value)
    yield "reason", np.array(path.reason)
    yield "intrinsics", np.array([k.fx_px, k.fy_px, k.cx_px, k.cy_px, k.width_px, k.height_px], np.float64)
    yield "quality", np.array([path.inlier_fraction, path.triangulation_angle_degrees, path.reprojection_error_px])
    yield "world_from_cam", path.world_from_cam
    yield "solved", path.solved
    yield "reliability", path.reliability
    yield "sharpness", solve.sharpness
    for start in range(0, len(path), _BLOCK_FRAMES):
        block = [solve.points[frame] for frame in range(start, min(start + _BLOCK_FRAMES, len(path)))]
        yield f"counts_{start}", np.array([len(rows) for rows in block])
        yield f"points_{start}", np.concatenate(block)


def load_solve(path: Path) -> CameraSolve:
    """Inverse of ``save_solve``; every byte is checked. Raises what NumPy and zipfile do for damaged files."""
    with np.load(path, allow_pickle=False) as content:
        points = FramePoints()
        for start in range(0, len(content["solved"]), _BLOCK_FRAMES):
            for rows in np.split(content[f"points_{start}"], np.cumsum(content[f"counts_{start}"])[:-1]):
                points.append(rows)
        return CameraSolve(_path_of(content), points, content["sharpness"])


def _path_of(content: Any) -> CameraPath:
    fx, fy, cx, cy, width, height = content["intrinsics"].tolist()
    inliers, angle, error = content["quality"].tolist()
    return CameraPath(
        kind=MotionKind(str(content["kind"])),
        intrinsics=Intrinsics(fx, fy, cx, cy, int(width), int(height)),
        world_from_cam=content["world_from_cam"],
        solved=content["solved"],
        reliability=content["reliability"],
        inlier_fraction=inliers,
        triangulation_angle_degrees=angle,
        reprojection_error_px=error,
        reason=str(content["reason"]),
    )
