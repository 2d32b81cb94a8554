"""Sequence folders: ``color/``, ``depth/``, ``poses.txt``, ``intrinsics.txt``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stf_depth.errors import InputNotFoundError, SequenceError
from stf_depth.evaluation.clips import GroundTruthClip, intrinsics_for_depth, numbered, orthonormal_poses, png_reader
from stf_depth.types import Float64Array
from stf_depth.video.sequence import IMAGE_SUFFIXES

__all__ = ["read_frame_map", "read_matrix", "read_sequence"]

MILLIMETRES_PER_M = 1000.0


def read_sequence(folder: Path, *, d_max_m: float = 10.0) -> GroundTruthClip:
    """Open a sequence folder.

    ``color/%06d.jpg``; ``depth/%06d.png``: uint16 millimetres in the colour camera, 0 = none; ``poses.txt``:
    camera-to-world, 16 numbers a line, metres, made orthonormal here; ``intrinsics.txt``: 3x3, pixels at the colour
    size. Poses and intrinsics may both be absent; then metrics that need them say so.

    Raises InputNotFoundError and SequenceError.
    """
    if not folder.is_dir():
        raise InputNotFoundError("no sequence folder", where=folder)
    color, depth = numbered(folder / "color", "*.*", IMAGE_SUFFIXES), numbered(folder / "depth", "*.png")
    if [path.stem for path in color] != [path.stem for path in depth]:
        missing = sorted({p.stem for p in color} ^ {p.stem for p in depth})
        raise SequenceError("colour and depth frames differ", where=folder, got=missing[:5])
    clip = GroundTruthClip(folder.name, depth, color, png_reader(MILLIMETRES_PER_M), d_max_m)
    if not (folder / "poses.txt").is_file() and not (folder / "intrinsics.txt").is_file():
        return clip
    poses = orthonormal_poses(read_matrix(folder / "poses.txt", (-1, 4, 4)), where=folder / "poses.txt")
    K = _depth_intrinsics(clip, read_matrix(folder / "intrinsics.txt", (3, 3)))
    return GroundTruthClip(folder.name, depth, color, clip.read_depth_m, d_max_m, K=K, world_from_cam=poses)


def _depth_intrinsics(clip: GroundTruthClip, K: Float64Array) -> Float64Array:
    color_h, color_w = clip.rgb(0).shape[:2]
    depth_h, depth_w = clip.full_truth_m(0).shape
    return intrinsics_for_depth(K, (color_w, color_h), (depth_w, depth_h))


def read_matrix(path: Path, shape: tuple[int, ...]) -> Float64Array:
    """Numbers of a text file in a given shape; raises InputNotFoundError, or SequenceError for anything else."""
    if not path.is_file():
        raise InputNotFoundError("no such file", where=path)
    try:
        return np.loadtxt(path, dtype=np.float64).reshape(shape)
    except ValueError as error:
        raise SequenceError("not a table of numbers", where=path, expected=shape, got=error) from error


def read_frame_map(path: Path) -> list[int]:
    """Whole numbers of a text file, one for each frame of a sequence: the predicted frame, -1 for none.

    Raises InputNotFoundError, or SequenceError for anything but whole numbers.
    """
    numbers = read_matrix(path, (-1,))
    if not np.array_equal(numbers, numbers.round()):
        raise SequenceError("a frame map holds whole numbers", where=path)
    return [int(number) for number in numbers]
