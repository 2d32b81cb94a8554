"""A camera that only turns, as the rival of every solve.

Where a turn on the spot explains as much of what was tracked as a camera that also moves, the movement is made up:
things that move by themselves, or a focal length that is off, pass for parallax.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import GeometryConfig
from stf_depth.geometry.explained import explained
from stf_depth.geometry.relative_pose import relative_pose
from stf_depth.geometry.tracks import Tracks
from stf_depth.types import BoolArray, CameraPath, Float64Array, Intrinsics, MotionKind

__all__ = ["explained_by_turning"]

Int64Array = NDArray[np.int64]

_MOST_FRAMES = 24
_FOCAL_SHARES = (0.5, 0.7, 0.9, 1.15, 1.5)  # of the long side
_MIN_COMMON = 12


def explained_by_turning(
    tracks: Tracks, path: CameraPath, focal_px: float | None, config: GeometryConfig
) -> str | None:
    """How much a camera that only turns explains, in words, where ``path`` explains hardly more; else None.

    focal_px: the known focal length; where None, of some focal lengths the one that explains most. Both are compared in
    the same frames, evenly spread.
    """
    tolerance_px = config.explained_px * max(tracks.wh) / 640
    sampled = _sampled(tracks)
    moving = explained(tracks, replace(path, solved=path.solved & sampled), tolerance_px).share(tolerance_px)
    moving *= float(path.solved[sampled].mean())
    focals_px = [focal_px] if focal_px is not None else [share * max(tracks.wh) for share in _FOCAL_SHARES]
    paths = (_turning_path(tracks, focal, tolerance_px) for focal in focals_px)
    turning = max(explained(tracks, path, tolerance_px).share(tolerance_px) for path in paths)
    if turning < max(config.min_inlier_fraction, moving - config.parallax_evidence):
        return None
    return f"a camera that turns on the spot explains {turning:.0%} of the points, one that moves too {moving:.0%}"


def _sampled(tracks: Tracks) -> BoolArray:
    sampled = np.zeros(len(tracks), bool)
    sampled[np.linspace(0, len(tracks) - 1, min(len(tracks), _MOST_FRAMES)).astype(int)] = True
    return sampled


def _turning_path(tracks: Tracks, focal_px: float, tolerance_px: float) -> CameraPath:
    """Rotations of the sampled frames, each from the one before; what cannot be followed ends the path."""
    centre = (np.array(tracks.wh) - 1) / 2
    frames = np.flatnonzero(_sampled(tracks))
    poses, solved = np.tile(np.eye(4), (len(tracks), 1, 1)), np.zeros(len(tracks), bool)
    solved[frames[0]] = True
    for before, after in itertools.pairwise(frames.tolist()):
        rows = tracks.common(before, after)
        if len(rows[0]) < _MIN_COMMON:
            break
        seen = [(tracks.frame(t)[1][r] - centre) / focal_px for t, r in zip((before, after), rows, strict=True)]
        rotation = _rotation(seen[0], seen[1], tolerance_px / focal_px)
        poses[after, :3, :3], solved[after] = poses[before, :3, :3] @ rotation.T, True
    intrinsics = Intrinsics(focal_px, focal_px, float(centre[0]), float(centre[1]), *tracks.wh)
    return CameraPath(MotionKind.ROTATION, intrinsics, poses, solved, solved.astype(np.float32))


def _rotation(source: Float64Array, target: Float64Array, noise: float) -> Float64Array:
    """The turn (3, 3) that takes rays through ``source`` (n, 2) to ``target``: a motion past points without a depth."""
    rays = np.column_stack([source, np.ones(len(source))])
    found: Float64Array = relative_pose(rays, np.zeros(len(rays)), target, noise=noise).pose[:3, :3]
    return found
