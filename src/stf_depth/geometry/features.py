"""SIFT features, to join frames that are too far apart to be tracked from one to the other (Lowe 2004).

Found only in the frames that they are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.geometry.pictures import GrayFrames
from stf_depth.types import Float32Array, Uint8Array

__all__ = ["Features", "FrameFeatures"]

Int64Array = NDArray[np.int64]

_COUNT = 1000  # of one frame
_DISTINCT = 0.8  # nearest over second nearest descriptor
_MIN_MATCHES = 20
_LEAP_ERROR = 0.03  # of the long side: parallax is left to the tracking that starts there
_KEPT_FRAMES, _KEPT_PAIRS = 256, 2048


Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Features:
    """xy_px: (n, 2) float32. descriptors: (n, 128) uint8."""

    xy_px: Float32Array
    descriptors: Uint8Array


class FrameFeatures:
    """Features of the frames of a shot and their matches; those found last are kept."""

    def __init__(self, frames: GrayFrames) -> None:
        self._frames = frames
        self._features: dict[int, Features] = {}
        self._rows: dict[tuple[int, int], Int64Array] = {}

    def of_frame(self, frame: int) -> Features:
        """At most a thousand, none where nothing may be tracked."""
        if frame not in self._features:
            _make_room(self._features, _KEPT_FRAMES)
            self._features[frame] = self._found(frame)
        return self._features[frame]

    def matches(self, first: int, second: int) -> Int64Array:
        """(n, 2) rows of the features of two frames that match, none in two pairs."""
        if (first, second) not in self._rows:
            _make_room(self._rows, _KEPT_PAIRS)
            self._rows[first, second] = self._matches(first, second)
        return self._rows[first, second]

    def _found(self, frame: int) -> Features:
        points, descriptors = cv2.SIFT.create(_COUNT).detectAndCompute(
            self._frames.gray(frame), self._frames.mask(frame)
        )
        if not points:
            return Features(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.uint8))
        return Features(np.array([point.pt for point in points], np.float32), descriptors.astype(np.uint8))

    def _matches(self, first: int, second: int) -> Int64Array:
        a, b = self.of_frame(first).descriptors, self.of_frame(second).descriptors
        if min(len(a), len(b)) < _MIN_MATCHES:
            return np.zeros((0, 2), np.int64)
        found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(a.astype(np.float32), b.astype(np.float32), 2)
        good = [best for best, second in found if best.distance < _DISTINCT * second.distance]
        good.sort(key=lambda match: (match.trainIdx, match.distance))
        rows = np.array([(match.queryIdx, match.trainIdx) for match in good], np.int64).reshape(-1, 2)
        return rows[np.unique(rows[:, 1], return_index=True)[1]]

    def leap(self, first: int, second: int, xy_px: Float32Array) -> Float32Array | None:
        """About where points (n, 2) of frame ``first`` are in ``second``; None where the two share too little.

        By the homography that explains most matches (RANSAC).
        """
        rows = self.matches(first, second)
        if len(rows) < _MIN_MATCHES:
            return None
        source, target = (self.of_frame(f).xy_px[rows[:, side]] for side, f in enumerate((first, second)))
        homography, inliers = cv2.findHomography(
            source, target, cv2.RANSAC, _LEAP_ERROR * max(self._frames.wh), maxIters=2000, confidence=0.995
        )
        if homography is None or int(inliers.sum()) < _MIN_MATCHES:
            return None
        moved = cv2.perspectiveTransform(xy_px[:, None].astype(np.float64), homography)[:, 0]
        return np.asarray(moved, np.float32) if np.isfinite(moved).all() else None


def _make_room(kept: dict[Key, Value], most: int) -> None:
    if len(kept) >= most:
        del kept[next(iter(kept))]
