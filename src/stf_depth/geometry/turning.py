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
_FOCAL_SHARES = (0.5, 0.65, 0.85, 1.1, 1.4)  # of the long side
_FOCAL_RATIOS = (1.14, 1.07, 1.035, 1.017)
_HOPEFUL = 0.35
_MIN_COMMON = 12


def explained_by_turning(
    tracks: Tracks, path: CameraPath, focal_px: float | None, config: GeometryConfig
) -> str | None:
    """How much a camera that only turns explains, in words, where ``path`` explains hardly more; else None.

    focal_px: the known focal length; where None, the one that explains most. Both are compared in the same frames.
    """
    tolerance_px = config.explained_px * max(tracks.wh) / 640
    sampled = _sampled(tracks)
    moving = explained(tracks, replace(path, solved=path.solved & sampled), tolerance_px).share(tolerance_px)
    moving *= float(path.solved[sampled].mean())
    enough = max(config.min_inlier_fraction, moving - config.parallax_evidence)
    turning = _share_of_turning(tracks, focal_px, tolerance_px, enough)
    if turning < enough:
        return None
    return f"a camera that turns on the spot explains {turning:.0%} of the points, one that moves too {moving:.0%}"


def _sampled(tracks: Tracks) -> BoolArray:
    """Frames spread evenly over the way that the picture goes: where it goes far, over the key frames."""
    frames = tracks.key_frames if len(tracks.key_frames) > _MOST_FRAMES else np.arange(len(tracks))
    sampled = np.zeros(len(tracks), bool)
    sampled[frames[np.linspace(0, len(frames) - 1, min(len(frames), _MOST_FRAMES)).astype(int)]] = True
    return sampled


def _share_of_turning(tracks: Tracks, focal_px: float | None, tolerance_px: float, enough: float) -> float:
    """The most at any focal length: first at some that lie far apart, then ever closer around the best, until it is
    enough. Where it is far from that, no focal length between makes up for it.
    """

    sampled = _sampled(tracks)

    def share(focal: float) -> float:
        path = _turning_path(tracks, focal, tolerance_px)
        return explained(tracks, path, tolerance_px).share(tolerance_px) * float(path.solved[sampled].mean())

    if focal_px is not None:
        return share(focal_px)
    best, best_px = max((share(part * max(tracks.wh)), part * max(tracks.wh)) for part in _FOCAL_SHARES)
    for ratio in _FOCAL_RATIOS if best > _HOPEFUL * enough else ():
        if best >= enough:
            break
        around = [(share(focal), focal) for focal in (best_px / ratio, best_px * ratio)]
        best, best_px = max([(best, best_px), *around])
    return best


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
    """The turn (3, 3) that takes rays through ``source`` (n, 2) to ``target``: a motion past points without a depth.

    Fitted twice, the second time to what fits: many things that move alike pull even a robust fit a little, and over
    many frames it adds up.
    """
    rays = np.column_stack([source, np.ones(len(source))])
    errors = relative_pose(rays, np.zeros(len(rays)), target, noise=noise).errors
    fits = errors <= max(noise, float(np.median(errors)))
    found: Float64Array = relative_pose(rays[fits], np.zeros(int(fits.sum())), target[fits], noise=noise).pose[:3, :3]
    return found
