"""Meshes as GLB or PLY: the grid of pixels, cut where the depth jumps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stf_depth.export.files import aside
from stf_depth.export.geometry import GeometryOptions, ShotGeometry, shot_geometry, unproject
from stf_depth.export.scene_files import write_mesh
from stf_depth.export.source import frame_names, rgb_frames
from stf_depth.result import DepthResult
from stf_depth.types import Float32Array

__all__ = ["Options", "export", "grid_faces"]


class Options(GeometryOptions):
    """file_type: fixed by the format. every: use every n-th frame. step_px: one vertex for so many pixels.

    edge_ratio: a triangle is left out when its farthest corner is this much farther than its nearest.
    """

    file_type: Literal["ply", "glb"] = "glb"
    every: int = Field(1, ge=1)
    step_px: int = Field(2, ge=1)
    edge_ratio: float = Field(0.06, gt=0)


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write ``<frame name>.<type>``, a coloured mesh in camera axes for each frame; see the point clouds for units.

    Raises GeometryError without a focal length, AmbiguityError where the mesh would be bent, InputNotFoundError when
    the source of the colours is gone.
    """
    shots = [shot_geometry(result, number, options) for number in range(len(result.shots))]
    with aside(target, folder=True) as partial:
        names = list(_write(result, shots, partial, options))
    return [target / name for name in names]


def _write(result: DepthResult, shots: list[ShotGeometry], folder: Path, options: Options) -> Iterator[str]:
    names = frame_names(result)
    colours = rgb_frames(result)
    grid = slice(options.step_px // 2, None, options.step_px)
    for geometry in shots:
        for index, z in geometry.frames(result, options.every):
            rgb = next(image for position, image in colours if position == index)
            points = unproject(z, geometry.intrinsics)[grid, grid]
            faces = grid_faces(points[..., 2], options.edge_ratio)
            used, compact = np.unique(faces, return_inverse=True)
            name = f"{names[index]}.{options.file_type}"
            write_mesh(
                folder / name,
                points.reshape(-1, 3)[used],
                rgb[grid, grid].reshape(-1, 3)[used],
                compact.reshape(-1, 3).astype(np.int32),
                unit=geometry.unit,
                notes=geometry.notes,
            )
            yield name


def grid_faces(z: Float32Array, edge_ratio: float) -> NDArray[np.int32]:
    """Two triangles for each cell of the grid, without those that touch NaN or span a jump in z.

    z: (H, W) float32. Returns (M, 3) int32 indices ``y * W + x``, counter-clockwise as seen by the camera.
    """
    height, width = z.shape
    index = np.arange(height * width, dtype=np.int32).reshape(height, width)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])
    corners = z.ravel()[faces]
    flat = corners.max(axis=1) <= (1 + edge_ratio) * corners.min(axis=1)
    return np.asarray(faces[flat], np.int32)
