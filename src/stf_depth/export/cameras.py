"""The camera path as COLMAP text and as ``transforms.json`` for NeRF and Gaussian splatting tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from stf_depth.errors import GeometryError
from stf_depth.export.files import aside
from stf_depth.export.geometry import ShotGeometry, shot_geometry
from stf_depth.export.pointcloud import Options as CloudOptions
from stf_depth.export.pointcloud import fused_points
from stf_depth.export.scene_files import write_points
from stf_depth.export.source import frame_names, rgb_frames
from stf_depth.result import DepthResult
from stf_depth.types import Float32Array, Float64Array, Intrinsics, Uint8Array
from stf_depth.visualization.images import write_image

__all__ = ["Options", "export", "quaternion_wxyz"]

# Camera axes of OpenGL (x right, y up, z backward) seen from those of OpenCV.
_OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


class Options(CloudOptions):
    """images: write the frames beside the cameras. max_points: upper bound for the initial points of a shot."""

    images: bool = True
    max_points: int = Field(100_000, ge=0)


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write ``shot_<n>/`` for every shot with solved poses: ``sparse/0/*.txt``, ``transforms.json``, ``images/``.

    COLMAP: world to camera, x right, y down, z forward, the top-left pixel's centre at (0.5, 0.5). transforms.json:
    camera to world with OpenGL camera axes (x right, y up, z backward) in the same world, intrinsics as in COLMAP,
    ``ply_file_path`` to the initial points. Both are in the unit stated in transforms.json.

    Raises GeometryError where no shot has solved poses.
    """
    shots = [shot_geometry(result, number, options) for number in _posed_shots(result)]
    with aside(target, folder=True) as partial:
        names = frame_names(result)
        points = {number: (cloud, rgb) for number, cloud, rgb in fused_points(result, shots, options)}
        for position, geometry in enumerate(shots):
            folder = partial / f"shot_{result.shots.index(geometry.shot):03d}"
            cloud, colours = _thinned(*points[position], options.max_points)
            _write_colmap(folder / "sparse" / "0", geometry, names, cloud, colours)
            _write_transforms(folder, geometry, names, cloud, colours)
        if options.images:
            _write_images(result, shots, partial, names)
        files = sorted(path.relative_to(partial) for path in partial.rglob("*") if path.is_file())
    return [target / path for path in files]


def _posed_shots(result: DepthResult) -> list[int]:
    numbers = [number for number, camera in enumerate(result.cameras) if camera.is_reliable]
    if not numbers:
        reasons = "; ".join(camera.reason or camera.kind.value for camera in result.cameras)
        raise GeometryError("no shot of this result has solved poses", where=result.folder, got=reasons)
    return numbers


def _thinned(points: Float32Array, colours: Uint8Array, limit: int) -> tuple[Float32Array, Uint8Array]:
    if len(points) <= limit:
        return points, colours
    picked = np.linspace(0, len(points) - 1, limit).astype(int)
    return points[picked], colours[picked]


def _poses(geometry: ShotGeometry) -> Iterator[tuple[int, Float64Array]]:
    """Frame index and world_from_cam of every solved frame."""
    for local in np.flatnonzero(geometry.posed):
        yield geometry.shot.start + int(local), geometry.world_from_cam[local]


def _write_colmap(
    folder: Path, geometry: ShotGeometry, names: list[str], points: Float32Array, colours: Uint8Array
) -> None:
    folder.mkdir(parents=True)
    fx, fy, cx, cy = _corner_based(geometry.intrinsics)
    size = f"{geometry.intrinsics.width_px} {geometry.intrinsics.height_px}"
    (folder / "cameras.txt").write_text(f"# id model width height fx fy cx cy\n1 PINHOLE {size} {fx} {fy} {cx} {cy}\n")
    lines = ["# id qw qx qy qz tx ty tz camera name, then a line of observations"]
    for number, (index, pose) in enumerate(_poses(geometry), 1):
        cam_from_world = np.asarray(np.linalg.inv(pose), np.float64)
        values = [*quaternion_wxyz(cam_from_world[:3, :3]), *cam_from_world[:3, 3]]
        lines += [f"{number} {' '.join(f'{value:.9g}' for value in values)} 1 {names[index]}.png", ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [
        f"{number} {x:.6g} {y:.6g} {z:.6g} {r} {g} {b} 0"
        for number, ((x, y, z), (r, g, b)) in enumerate(zip(points.tolist(), colours.tolist(), strict=True), 1)
    ]
    (folder / "points3D.txt").write_text("\n".join(["# id x y z r g b error, then the track", *rows]) + "\n")


def _write_transforms(
    folder: Path, geometry: ShotGeometry, names: list[str], points: Float32Array, colours: Uint8Array
) -> None:
    fx, fy, cx, cy = _corner_based(geometry.intrinsics)
    write_points(folder / "points.ply", points, colours, unit=geometry.unit, notes=geometry.notes)
    content: dict[str, Any] = {
        "camera_model": "OPENCV",
        "w": geometry.intrinsics.width_px,
        "h": geometry.intrinsics.height_px,
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "unit": geometry.unit,
        "ply_file_path": "points.ply",
        "frames": [
            {
                "file_path": f"images/{names[index]}.png",
                "transform_matrix": (pose @ _OPENGL_FROM_OPENCV).round(9).tolist(),
            }
            for index, pose in _poses(geometry)
        ],
    }
    (folder / "transforms.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _corner_based(camera: Intrinsics) -> tuple[float, float, float, float]:
    # These tools put the origin at the corner of the top-left pixel, half a pixel from its centre.
    return camera.fx_px, camera.fy_px, camera.cx_px + 0.5, camera.cy_px + 0.5


def _write_images(result: DepthResult, shots: list[ShotGeometry], folder: Path, names: list[str]) -> None:
    folders = {
        index: folder / f"shot_{result.shots.index(geometry.shot):03d}" / "images"
        for geometry in shots
        for index, _ in _poses(geometry)
    }
    for index, rgb in rgb_frames(result):
        if index in folders:
            write_image(folders[index] / f"{names[index]}.png", rgb)


def quaternion_wxyz(rotation: Float64Array) -> Float64Array:
    """Unit quaternion (w, x, y, z), w >= 0, of a rotation matrix (3, 3)."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    sign = 1.0 if w >= 0 else -1.0
    return np.array([w, x, y, z], np.float64) * sign
