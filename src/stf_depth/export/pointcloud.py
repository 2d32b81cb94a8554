"""Point clouds as PLY or GLB: each frame in its camera, or a shot fused along its poses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stf_depth.errors import GeometryError
from stf_depth.export.files import aside
from stf_depth.export.geometry import GeometryOptions, ShotGeometry, cut_edges, shot_geometry, unproject
from stf_depth.export.scene_files import write_points
from stf_depth.export.source import frame_names, rgb_frames, structure_maps
from stf_depth.result import DepthResult
from stf_depth.types import Float32Array, Float64Array, Uint8Array

__all__ = ["Options", "VoxelGrid", "export", "fused_points"]

_MAX_VOXELS = 4_000_000
_REACH = 2**20  # voxels from the origin in every direction


class Options(GeometryOptions):
    """file_type: fixed by the format. layout: a cloud for each frame or each shot. every: use every n-th frame.

    voxel_share: edge of a voxel of the fused cloud, as a share of the shot's median z. edge_ratio: pixels whose z
    differs by more than this from a neighbour's are left out. min_confidence: pixels below are left out.
    """

    file_type: Literal["ply", "glb"] = "ply"
    layout: Literal["frames", "fused"] = "frames"
    every: int = Field(1, ge=1)
    voxel_share: float = Field(0.004, gt=0)
    edge_ratio: float = Field(0.06, gt=0)
    min_confidence: float = Field(0.0, ge=0, le=1)


@dataclass
class VoxelGrid:
    """One point, the mean of all that fell in, for each occupied cube of edge ``size``.

    Memory follows the surface seen, not the number of points; beyond four million voxels, or where points lie a
    million voxels away, the edge doubles.
    """

    size: float
    _keys: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    _sums: Float64Array = field(default_factory=lambda: np.zeros((0, 7), np.float64))
    _waiting: list[tuple[NDArray[np.int64], Float64Array]] = field(default_factory=list)

    def push(self, points: Float32Array, colours: Uint8Array) -> None:
        """Add points (N, 3) with their colours (N, 3) uint8."""
        if not len(points):
            return
        while np.abs(points).max() / self.size >= _REACH - 1:
            self._double()
        cells = np.floor(points.astype(np.float64) / self.size).astype(np.int64)
        values = np.concatenate([points, colours, np.ones((len(points), 1))], axis=1, dtype=np.float64)
        self._waiting.append(_summed(_packed(cells), values))
        # Sorting everything for every frame would cost more than all the rest.
        if sum(len(keys) for keys, _ in self._waiting) > max(_MAX_VOXELS // 4, len(self._keys) // 2):
            self._merge()

    def _merge(self) -> None:
        waiting = [(self._keys, self._sums), *self._waiting]
        self._waiting = []
        keys, values = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        self._keys, self._sums = _summed(keys, values)
        while len(self._keys) > _MAX_VOXELS:
            self._double()

    def _double(self) -> None:
        self.size *= 2
        parts = [(self._keys, self._sums), *self._waiting]
        self._waiting = []
        keys = np.concatenate([_packed(_unpacked(keys) // 2) for keys, _ in parts])
        self._keys, self._sums = _summed(keys, np.concatenate([values for _, values in parts]))

    def points(self) -> tuple[Float32Array, Uint8Array]:
        """Mean position (M, 3) float32 and mean colour (M, 3) uint8 of every occupied voxel."""
        self._merge()
        count = self._sums[:, 6:]
        means = self._sums[:, :6] / count
        return means[:, :3].astype(np.float32), np.rint(means[:, 3:]).astype(np.uint8)


def _packed(cells: NDArray[np.int64]) -> NDArray[np.int64]:
    """Cells (N, 3) within 2^20 of the origin as one number each, 21 bits an axis."""
    x, y, z = (cells[:, axis] + _REACH for axis in range(3))
    return np.asarray((z << 42) | (y << 21) | x)


def _unpacked(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    mask = 2 * _REACH - 1
    return np.stack([keys & mask, (keys >> 21) & mask, keys >> 42], axis=1) - _REACH


def _summed(keys: NDArray[np.int64], values: Float64Array) -> tuple[NDArray[np.int64], Float64Array]:
    """Each key once, in order, with the sum of its rows of values (N, 7)."""
    if not len(keys):
        return keys, values
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return ordered[starts], np.add.reduceat(values[order], starts, axis=0)


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write ``<frame name>.<type>`` in camera axes, or ``shot_<n>.<type>`` in the axes of the shot's camera path.

    PLY: x right, y down, z forward. GLB: x right, y up, z backward, as glTF wants. The unit and every assumption are
    in the file. Raises GeometryError without a focal length, or for ``fused`` without solved poses; AmbiguityError
    where the cloud would be bent; InputNotFoundError when the source of the colours is gone.
    """
    shots = [shot_geometry(result, number, options) for number in range(len(result.shots))]
    with aside(target, folder=True) as partial:
        if options.layout == "fused":
            names = list(_write_fused(result, shots, partial, options))
        else:
            names = list(_write_frames(result, shots, partial, options))
    return [target / name for name in names]


def _write_frames(result: DepthResult, shots: list[ShotGeometry], folder: Path, options: Options) -> Iterator[str]:
    names = frame_names(result)
    for number, index, points, colours in _clouds(result, shots, options):
        geometry = shots[number]
        name = f"{names[index]}.{options.file_type}"
        write_points(folder / name, points, colours, unit=geometry.unit, notes=geometry.notes)
        yield name


def _write_fused(result: DepthResult, shots: list[ShotGeometry], folder: Path, options: Options) -> Iterator[str]:
    for number, points, colours in fused_points(result, shots, options):
        geometry = shots[number]
        name = f"shot_{number:03d}.{options.file_type}"
        write_points(folder / name, points, colours, unit=geometry.unit, notes=geometry.notes)
        yield name


def fused_points(
    result: DepthResult, shots: list[ShotGeometry], options: Options
) -> Iterator[tuple[int, Float32Array, Uint8Array]]:
    """Yield (shot number, points (N, 3), colours (N, 3)) of every shot, in the axes of its camera path.

    Raises GeometryError for a shot without solved poses.
    """
    for geometry in shots:
        if not geometry.posed.any():
            raise _unposed(result, geometry)
    grids: dict[int, VoxelGrid] = {}
    for number, index, points, colours in _clouds(result, shots, options):
        geometry = shots[number]
        local = index - geometry.shot.start
        if not geometry.posed[local]:
            continue
        grid = grids.setdefault(number, VoxelGrid(options.voxel_share * geometry.max_z / options.max_z_over_median))
        pose = geometry.world_from_cam[local]
        grid.push((points @ pose[:3, :3].T + pose[:3, 3]).astype(np.float32), colours)
    for number, grid in sorted(grids.items()):
        yield number, *grid.points()


def _unposed(result: DepthResult, geometry: ShotGeometry) -> GeometryError:
    camera = result.cameras[result.shots.index(geometry.shot)]
    where = f"{result.folder} frames {geometry.shot.start} to {geometry.shot.stop - 1}"
    if camera.is_reliable and structure_maps(result) is None:
        return GeometryError(
            "the triangulated depth that ties the camera path to the depth is no longer cached",
            where=where,
            hint="Repeat the run of this video: it makes that again, and the cameras can be exported then",
        )
    return GeometryError(
        "the shot has no poses in the unit of its depth",
        where=where,
        got="depth and camera path contradict each other" if camera.is_reliable else camera.reason or camera.kind.value,
        hint="Point clouds can be had frame by frame (layout=frames); poses need a shot in which the camera moves",
    )


def _clouds(
    result: DepthResult, shots: list[ShotGeometry], options: Options
) -> Iterator[tuple[int, int, Float32Array, Uint8Array]]:
    """(shot, frame, points, colours) of every n-th frame of every shot, in the camera of that frame."""
    colours = rgb_frames(result)
    for number, geometry in enumerate(shots):
        for index, z in geometry.frames(result, options.every):
            rgb = next(image for position, image in colours if position == index)
            kept = cut_edges(z, options.edge_ratio)
            if options.min_confidence > 0:
                kept = np.where(
                    np.asarray(result.confidence[index]) >= options.min_confidence, kept, np.float32(np.nan)
                )
            solid = np.isfinite(kept)
            yield number, index, unproject(kept, geometry.intrinsics)[solid], rgb[solid]
