"""A camera that only turns, as the rival of every solve.

Where a turn on the spot explains nearly as much of what was tracked as a camera that also moves, the movement is made
up: things that move by themselves, or a focal length that is off, pass for parallax.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import GeometryConfig
from stf_depth.geometry.explained import explained
from stf_depth.geometry.relative_pose import masked_medians, relative_rotations
from stf_depth.geometry.tracks import Tracks
from stf_depth.types import BoolArray, CameraPath, Float64Array, Intrinsics, MotionKind

__all__ = ["Turn", "turn_instead"]

Int64Array = NDArray[np.int64]

_MOST_FRAMES = 24
_MOST_POINTS = 250  # that one turn is fitted to
_FOCAL_SHARES = (*(0.3 * 1.25**step for step in range(11)), 4.0, 8.0)  # of the long side
_FOCAL_RATIOS = (1.12, 1.06, 1.03, 1.015)
_HOPEFUL = 0.3
_MIN_COMMON = 12


class Turn(NamedTuple):
    """Shares of what was tracked that a camera explains which only turns, and one that moves."""

    turning: float
    moving: float


class _Pairs(NamedTuple):
    """Points of P pairs of frames, (P, N, 2) pixels in either frame, and which of them there are, (P, N)."""

    source_px: Float64Array
    target_px: Float64Array
    known: BoolArray


def turn_instead(tracks: Tracks, path: CameraPath, focal_px: float | None, config: GeometryConfig) -> Turn | None:
    """A turn on the spot that explains nearly as much as ``path``, or None.

    Nearly as much: 1 - turning <= turning_misfits (1 - moving) + 0.01 and turning >= min_turning_fraction. Both are
    compared in the same frames, spread over the way that the picture goes. focal_px: the known focal length; where
    None, it is searched for, until one explains enough.
    """
    tolerance_px = config.explained_px * max(tracks.wh) / 640
    frames = _sampled_frames(tracks)
    sampled = np.isin(np.arange(len(tracks)), frames)
    moving = _share(tracks, frames, replace(path, solved=path.solved & sampled), tolerance_px)
    enough = max(config.min_turning_fraction, 0.99 - config.turning_misfits * (1 - moving))
    pairs = _pairs(tracks, frames)
    turning = _share_of_turning(tracks, frames, pairs, focal_px, tolerance_px, enough)
    return Turn(turning, moving) if turning >= enough else None


def _share(tracks: Tracks, frames: Int64Array, path: CameraPath, tolerance_px: float) -> float:
    """Of what was tracked in ``frames``, how much a path that has poses in no others explains."""
    return explained(tracks, path, tolerance_px).share(tolerance_px) * float(path.solved[frames].mean())


def _sampled_frames(tracks: Tracks) -> Int64Array:
    """Frames (n,), increasing; as many between two key frames as between any others, the picture moves as far."""
    keys = tracks.key_frames
    places = np.linspace(0, len(keys) - 1, min(len(tracks), _MOST_FRAMES))
    return np.unique(np.rint(np.interp(places, np.arange(len(keys)), keys)).astype(np.int64))


def _share_of_turning(
    tracks: Tracks, frames: Int64Array, pairs: _Pairs, focal_px: float | None, tolerance_px: float, enough: float
) -> float:
    """What is explained at the known focal length, or at the best that is found: first of some that lie far apart,
    then ever closer around the best, until it is enough. Where it is far from that, none between makes up for it.
    """

    def share(focal: float) -> float:
        return _share(tracks, frames, _turning_path(tracks, frames, pairs, focal), tolerance_px)

    if focal_px is not None:
        return share(focal_px)
    best, best_px = max((share(part * max(tracks.wh)), part * max(tracks.wh)) for part in _FOCAL_SHARES)
    for ratio in _FOCAL_RATIOS if best > _HOPEFUL * enough else ():
        if best >= enough:
            break
        around = [(share(focal), focal) for focal in (best_px / ratio, best_px * ratio)]
        best, best_px = max([(best, best_px), *around])
    return best


def _pairs(tracks: Tracks, frames: Int64Array) -> _Pairs:
    """Points that neighbouring ``frames`` share; up to where one cannot be followed, there the path ends."""
    found = []
    for before, after in itertools.pairwise(frames.tolist()):
        rows = np.stack(tracks.common(before, after))
        if rows.shape[1] < _MIN_COMMON:
            break
        rows = rows[:, np.linspace(0, rows.shape[1] - 1, min(rows.shape[1], _MOST_POINTS)).astype(int)]
        found.append(np.stack([tracks.frame(t)[1][r] for t, r in zip((before, after), rows, strict=True)]))
    xy_px = np.zeros((2, len(found), max((one.shape[1] for one in found), default=0), 2))
    known = np.zeros(xy_px.shape[1:3], bool)
    for number, one in enumerate(found):
        xy_px[:, number, : one.shape[1]], known[number, : one.shape[1]] = one, True
    return _Pairs(xy_px[0], xy_px[1], known)


def _turning_path(tracks: Tracks, frames: Int64Array, pairs: _Pairs, focal_px: float) -> CameraPath:
    """Rotations of ``frames``, each from the one before."""
    centre = (np.array(tracks.wh) - 1) / 2
    poses, solved = np.tile(np.eye(4), (len(tracks), 1, 1)), np.zeros(len(tracks), bool)
    turns = _rotations((pairs.source_px - centre) / focal_px, (pairs.target_px - centre) / focal_px, pairs, focal_px)
    solved[frames[: len(turns) + 1]] = True
    for before, after, turn in zip(frames, frames[1:], turns, strict=False):
        poses[after, :3, :3] = poses[before, :3, :3] @ turn.T
    intrinsics = Intrinsics(focal_px, focal_px, float(centre[0]), float(centre[1]), *tracks.wh)
    return CameraPath(MotionKind.ROTATION, intrinsics, poses, solved, solved.astype(np.float32))


def _rotations(source: Float64Array, target: Float64Array, pairs: _Pairs, focal_px: float) -> Float64Array:
    """The turns (P, 3, 3) that take rays through ``source`` (P, N, 2) to ``target``.

    Fitted twice, the second time to what fits: many things that move alike pull even a robust fit a little, and over
    many frames it adds up.
    """
    noise = 1 / focal_px
    errors = relative_rotations(source, target, pairs.known, noise=noise).errors
    usual = masked_medians(errors, pairs.known)
    fits = pairs.known & (errors <= np.maximum(noise, usual)[:, None])
    return relative_rotations(source, target, fits, noise=noise).rotations
