"""Camera motions that show no parallax: standing still, turning, zooming.

Between two frames of such a shot all points move by one homography x' ~ H x, whatever their depth. Turning keeps
the picture's scale, zooming changes it.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import cv2
import numpy as np
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from stf_depth.geometry.tracks import Tracks
from stf_depth.types import Float32Array, Float64Array, MotionKind

__all__ = ["parallax_free_motion"]

_STATIC_SHARE = 0.003  # of the long side: less than this over the whole shot is a tripod's tremble
_HOMOGRAPHY_SHARE = 0.0016  # of the long side: 1 px at 640
_MIN_COMMON = 40
_ENOUGH_FIT = 0.93
_ZOOM_RATIO = 1.04
_FOCAL_SHARES = (0.3, 0.8, 2.5, 8.0)  # of the long side: the shortest, where to start looking, the longest
_TURN_POINTS = 150
_TURN_TOLERANCE = 2.5  # of the homography's: lenses are not perfect


def parallax_free_motion(tracks: Tracks) -> tuple[MotionKind | None, str]:
    """STATIC, ROTATION, ZOOM or UNSOLVED (nothing to track) with the reason, or None where parallax may exist."""
    long_side = max(tracks.wh)
    counts = np.diff(tracks.offsets)
    if np.median(counts) < _MIN_COMMON:
        return MotionKind.UNSOLVED, f"too little texture to track: {int(np.median(counts))} points in a median frame"
    if _greatest_displacement_px(tracks) < _STATIC_SHARE * long_side:
        return MotionKind.STATIC, "the camera stands still"
    fits = [_homography_fit(tracks, first, second) for first, second in _wide_pairs(tracks)]
    usable = np.array([fit for fit in fits if fit is not None]).reshape(-1, 3)
    if len(usable) == 0:
        return None, ""
    share, turning = np.median(usable[:, 0]), np.median(usable[:, 2])
    if share < _ENOUGH_FIT or turning < _ENOUGH_FIT:
        return None, ""
    zoom = usable[usable[:, 2] >= _ENOUGH_FIT, 1].max()
    if zoom > _ZOOM_RATIO:
        return (
            MotionKind.ZOOM,
            f"one homography explains {share:.0%} of the points; the focal length changes by {zoom:.2f}",
        )
    return MotionKind.ROTATION, f"one homography explains {share:.0%} of the points: the camera turns on the spot"


def _greatest_displacement_px(tracks: Tracks) -> float:
    samples = np.unique(np.linspace(0, len(tracks) - 1, 9).astype(int)).tolist()
    keys = sorted({*tracks.key_frames.tolist(), *samples})
    # Frames far from each other too: a slow camera moves less from one to the next than a tripod trembles.
    pairs = {*itertools.pairwise(keys), *itertools.combinations(samples, 2)}
    moved = [tracks.displacement_px(first, second, 50) for first, second in sorted(pairs)]
    known = [value for value in moved if np.isfinite(value)]
    return max(known, default=float("inf"))


def _wide_pairs(tracks: Tracks) -> list[tuple[int, int]]:
    """For some key frames, the farthest later key frame that still shares enough points."""
    keys = tracks.key_frames.tolist()
    starts = np.unique(np.linspace(0, max(len(keys) - 2, 0), 8).astype(int)).tolist()
    pairs = []
    for start in starts:
        later = [key for key in keys[start + 1 :] if len(tracks.common(keys[start], key)[0]) >= 2 * _MIN_COMMON]
        pairs += [(keys[start], later[-1])] if later else []
    return pairs


def _homography_fit(tracks: Tracks, first: int, second: int) -> tuple[float, float, float] | None:
    """Share of common points that one homography explains, and of a camera that only turns and zooms, by how much the
    focal length changes (>= 1), and which share of the points explained it explains.
    """
    rows_a, rows_b = tracks.common(first, second)
    a, b = tracks.frame(first)[1][rows_a], tracks.frame(second)[1][rows_b]
    cv2.setRNGSeed(0)
    homography: Any
    tolerance_px = max(1.0, _HOMOGRAPHY_SHARE * max(tracks.wh))
    homography, inliers = cv2.findHomography(a, b, cv2.RANSAC, tolerance_px)
    if homography is None:
        return None
    share = float(inliers.mean())
    if share < _ENOUGH_FIT:  # nobody asks for the rest
        return share, 1.0, 0.0
    a, b = a[inliers[:, 0] > 0], b[inliers[:, 0] > 0]
    few = np.linspace(0, len(a) - 1, min(len(a), _TURN_POINTS)).astype(int)
    error_px, zoom = _turning_fit(a[few], b[few], tracks.wh)
    return share, max(zoom, 1 / zoom), float((error_px < _TURN_TOLERANCE * tolerance_px).mean())


def _turning_fit(a: Float32Array, b: Float32Array, wh: tuple[int, int]) -> tuple[Float64Array, float]:
    """How far a camera that only turns and zooms sends each of ``a`` (n, 2) from ``b``: K' R K^-1, in pixels; and by
    what its focal length changes.

    A plane that a moving camera films also follows a homography, but not one of this form. Objective: min over R and
    both focal lengths of sum rho(error), rho = soft L1.
    """
    side = max(wh)
    centre = (np.array(wh) - 1) / 2
    source, target = (a - centre) / side, (b - centre) / side

    def residuals(parameters: Float64Array) -> Float64Array:
        focal, focal_after = np.exp(parameters[3:])
        rays = (
            np.column_stack([source / focal, np.ones(len(source))]) @ Rotation.from_rotvec(parameters[:3]).as_matrix()
        )
        moved = focal_after * rays[:, :2] / np.maximum(rays[:, 2:], 1e-3)
        return np.asarray((moved - target).ravel() * side, np.float64)

    low, high = math.log(_FOCAL_SHARES[0]), math.log(_FOCAL_SHARES[-1])
    bounds = [-np.pi, -np.pi, -np.pi, low, low], [np.pi, np.pi, np.pi, high, high]
    starts = [[0.0, 0.0, 0.0, math.log(share), math.log(share)] for share in _FOCAL_SHARES[1:-1]]
    found = [least_squares(residuals, start, bounds=bounds, loss="soft_l1") for start in starts]
    best = min(found, key=lambda one: float(one.cost)).x
    error_px = np.linalg.norm(residuals(best).reshape(-1, 2), axis=1)
    return np.asarray(error_px, np.float64), float(np.exp(best[4] - best[3]))
