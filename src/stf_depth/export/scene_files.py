"""Points and triangles as PLY and GLB files that state their unit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import MissingExtraError
from stf_depth.types import Float32Array, Uint8Array

__all__ = ["write_mesh", "write_points"]

# glTF: x right, y up, z backward.
_GLTF_FROM_CAMERA = np.array([1, -1, -1], np.float32)


def write_points(
    path: Path, points: Float32Array, colours: Uint8Array, *, unit: str, notes: Sequence[str] = ()
) -> None:
    """Write points (N, 3) in camera axes with colours (N, 3) uint8 as PLY or GLB, by the suffix of ``path``."""
    if path.suffix == ".ply":
        _write_ply(path, points, colours, None, unit, notes)
    else:
        cloud = _trimesh().PointCloud(points * _GLTF_FROM_CAMERA, colors=_rgba(colours))
        _write_glb(path, cloud, unit, notes)


def write_mesh(
    path: Path,
    points: Float32Array,
    colours: Uint8Array,
    faces: NDArray[np.int32],
    *,
    unit: str,
    notes: Sequence[str] = (),
) -> None:
    """Write a mesh, faces (M, 3) int32 counter-clockwise as seen by the camera, as PLY or GLB by the suffix."""
    if path.suffix == ".ply":
        _write_ply(path, points, colours, faces, unit, notes)
    else:
        vertices = points * _GLTF_FROM_CAMERA
        mesh = _trimesh().Trimesh(vertices, faces, vertex_colors=_rgba(colours), process=False)
        _write_glb(path, mesh, unit, notes)


def _write_ply(
    path: Path,
    points: Float32Array,
    colours: Uint8Array,
    faces: NDArray[np.int32] | None,
    unit: str,
    notes: Sequence[str],
) -> None:
    layout = [("xyz", "<f4", 3), ("rgb", "u1", 3)]
    vertices = np.zeros(len(points), np.dtype(layout))
    vertices["xyz"], vertices["rgb"] = points, colours
    with path.open("wb") as file:
        file.write(_ply_header(len(points), None if faces is None else len(faces), unit, notes).encode())
        file.write(vertices.tobytes())
        if faces is not None:
            triangles = np.zeros(len(faces), np.dtype([("count", "u1"), ("index", "<i4", (3,))]))
            triangles["count"], triangles["index"] = 3, faces
            file.write(triangles.tobytes())


def _ply_header(vertices: int, faces: int | None, unit: str, notes: Sequence[str]) -> str:
    lines = ["ply", "format binary_little_endian 1.0", f"comment unit: {unit}"]
    lines += ["comment axes: x right, y down, z forward", *(f"comment {note}" for note in notes)]
    lines += [f"element vertex {vertices}", *(f"property float {axis}" for axis in "xyz")]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    if faces is not None:
        lines += [f"element face {faces}", "property list uchar int vertex_indices"]
    return "\n".join([*lines, "end_header", ""])


def _write_glb(path: Path, geometry: Any, unit: str, notes: Sequence[str]) -> None:
    scene = _trimesh().Scene(geometry)
    scene.metadata.update({"unit": unit, "notes": list(notes)})
    path.write_bytes(scene.export(file_type="glb"))


def _rgba(colours: Uint8Array) -> Uint8Array:
    return np.concatenate([colours, np.full((len(colours), 1), 255, np.uint8)], axis=1)


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError as error:
        raise MissingExtraError.of("trimesh", "export") from error
    return trimesh
