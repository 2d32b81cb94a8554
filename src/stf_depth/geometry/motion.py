"""Camera motions that show no parallax: standing still, turning, zooming.

Between two frames of such a shot all points move by one homography x' ~ H x, whatever their depth. Turning keeps
the picture's scale, zooming changes it.
"""

from __future__ import annotations

import itertools
from typing import Any

import cv2
import numpy as np

from stf_depth.geometry.tracks import Tracks
from stf_depth.types import MotionKind

__all__ = ["parallax_free_motion"]

_STATIC_SHARE = 0.003  # of the long side: less than this over the whole shot is a tripod's tremble
_HOMOGRAPHY_SHARE = 0.0016  # of the long side: 1 px at 640
_MIN_COMMON = 40
_ENOUGH_FIT = 0.93
_ZOOM_RATIO = 1.04


def parallax_free_motion(tracks: Tracks) -> tuple[MotionKind | None, str]:
    """STATIC, ROTATION, ZOOM or UNSOLVED (nothing to track) with the reason, or None where parallax may exist."""
    long_side = max(tracks.wh)
    counts = np.diff(tracks.offsets)
    if np.median(counts) < _MIN_COMMON:
        return MotionKind.UNSOLVED, f"too little texture to track: {int(np.median(counts))} points in a median frame"
    if _greatest_displacement_px(tracks) < _STATIC_SHARE * long_side:
        return MotionKind.STATIC, "the camera stands still"
    fits = [_homography_fit(tracks, first, second) for first, second in _wide_pairs(tracks)]
    usable = np.array([fit for fit in fits if fit is not None]).reshape(-1, 2)
    if len(usable) == 0:
        return MotionKind.UNSOLVED, "no two key frames share enough points"
    share, scale = np.median(usable[:, 0]), np.max(usable[:, 1])
    if share < _ENOUGH_FIT:
        return None, ""
    if scale > _ZOOM_RATIO:
        return MotionKind.ZOOM, f"one homography explains {share:.0%} of the points; the picture scales by {scale:.2f}"
    return MotionKind.ROTATION, f"one homography explains {share:.0%} of the points: the camera turns on the spot"


def _greatest_displacement_px(tracks: Tracks) -> float:
    keys = np.unique(np.r_[tracks.key_frames, np.linspace(0, len(tracks) - 1, 9).astype(int)])
    moved = [tracks.displacement_px(int(a), int(b), 50) for a, b in itertools.pairwise(keys)]
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


def _homography_fit(tracks: Tracks, first: int, second: int) -> tuple[float, float] | None:
    """Share of common points that one homography explains, and by how much the picture scales (>= 1)."""
    rows_a, rows_b = tracks.common(first, second)
    a, b = tracks.frame(first)[1][rows_a], tracks.frame(second)[1][rows_b]
    cv2.setRNGSeed(0)
    homography: Any
    homography, inliers = cv2.findHomography(a, b, cv2.RANSAC, max(1.0, _HOMOGRAPHY_SHARE * max(tracks.wh)))
    if homography is None:
        return None
    similarity: Any
    similarity, _ = cv2.estimateAffinePartial2D(a[inliers[:, 0] > 0], b[inliers[:, 0] > 0])
    if similarity is None:
        return None
    scale = float(np.hypot(similarity[0, 0], similarity[1, 0]))
    return float(inliers.mean()), max(scale, 1 / max(scale, 1e-6))
