"""Where the scale of a map is carried on, and where it starts anew.

Two stretches of a path that share too few points are free to grow against each other: every point fits, and depth on
one side is off by any factor.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.types import BoolArray, Float64Array

__all__ = ["longest_piece", "scale_carriers"]

Int64Array = NDArray[np.int64]


def scale_carriers(map_: Any, count: int, least_degrees: float, least: int) -> Int64Array:
    """How many points carry the scale from each of ``count`` key frames to the next, (count - 1,) int64.

    A point carries it from key frame k to k + 1 where frames up to k see it under at least an angle between them, so
    that they know its depth, and a later one sees it too; or the other way round. Where fewer than ``least`` points are
    known to one of the sides alone, that side has no scale of its own that could differ: then it is the most that a map
    can have.
    """
    before, after, own_before, own_after = np.zeros((4, count - 1), np.int64)
    centres = {image_id: np.asarray(map_.images[image_id].projection_center()) for image_id in map_.reg_image_ids()}
    for point in map_.points3D.values():
        seen = sorted({element.image_id for element in point.track.elements})
        rays = point.xyz - np.array([centres[image_id] for image_id in seen])
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        keys = np.array(seen) - 1  # key frame k is image k + 1
        for known in keys[_is_wide(rays, least_degrees)][:1]:
            before[known : keys[-1]] += 1
            own_before[known:] += 1
        for known in keys[::-1][_is_wide(rays[::-1], least_degrees)][:1]:
            after[keys[0] : known] += 1
            own_after[:known] += 1
    return np.where(np.minimum(own_before, own_after) < least, map_.num_points3D(), np.maximum(before, after))


def longest_piece(key_frames: Int64Array, carriers: Int64Array, least: int, solved: BoolArray) -> BoolArray:
    """(T,) bool, of the runs of frames between whose key frames ``least`` points or more carry the scale the one with
    the most ``solved`` (T,) frames.
    """
    broken = np.flatnonzero(carriers < least)
    starts = [0, *(int(key_frames[split + 1]) for split in broken)]
    stops = [*(int(key_frames[split]) + 1 for split in broken), len(solved)]
    start, stop = max(zip(starts, stops, strict=True), key=lambda run: int(solved[run[0] : run[1]].sum()))
    frames = np.arange(len(solved))
    piece: BoolArray = (frames >= start) & (frames < stop)
    return piece


def _is_wide(rays: Float64Array, least_degrees: float) -> BoolArray:
    """Which unit rays (n, 3) differ from the first by at least an angle."""
    is_wide: BoolArray = rays @ rays[0] <= np.cos(np.radians(least_degrees))
    return is_wide
