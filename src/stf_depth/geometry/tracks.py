"""Point tracks through a shot by KLT, and the key frames that they define.

Corners are followed from frame to frame (Shi-Tomasi, pyramidal Lucas-Kanade) and kept where tracking them back
returns to the start. A frame becomes a key frame when the picture has moved on enough since the last one, so a slow
camera gives few and a fast one many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.config import GeometryConfig
from stf_depth.geometry.features import FrameFeatures
from stf_depth.geometry.pictures import GrayFrames
from stf_depth.types import BoolArray, Float32Array, Frames, Uint8Array

__all__ = ["KeptTracks", "Tracks", "track_parts"]

Int64Array = NDArray[np.int64]

_MIN_LINKS = 12  # fewer common points say nothing about a frame's displacement
_MIN_OVERLAP = 3  # key frames
_REMEMBERED_FRAMES = 24
_PART_FRAMES = 4096  # at most in one part, however few key frames a camera gives that stands still


@dataclass(frozen=True)
class Tracks:
    """Where each tracked point is seen, frame by frame, from frame ``start`` of the shot on.

    offsets: (T + 1,) int64; the points of frame t are rows ``offsets[t]:offsets[t + 1]`` of ``ids`` (M,) int64 and
    ``xy_px`` (M, 2) float32. key_frames: (K,) int64, increasing. sharpness: (T,) float32, mean absolute Laplacian,
    to compare frames of one shot. wh: image size in pixels.
    """

    offsets: Int64Array
    ids: Int64Array
    xy_px: Float32Array
    key_frames: Int64Array
    sharpness: Float32Array
    wh: tuple[int, int]
    start: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def frame(self, index: int) -> tuple[Int64Array, Float32Array]:
        """Ids (n,), increasing, and positions (n, 2) in frame ``index``."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.ids[rows], self.xy_px[rows]

    def common(self, first: int, second: int) -> tuple[Int64Array, Int64Array]:
        """Row numbers within frames ``first`` and ``second`` of the points that both see."""
        _, rows_first, rows_second = np.intersect1d(
            self.frame(first)[0], self.frame(second)[0], assume_unique=True, return_indices=True
        )
        return rows_first, rows_second

    def displacement_px(self, first: int, second: int, percentile: float) -> float:
        """Percentile of how far common points moved, NaN with too few of them."""
        a, b = self.common(first, second)
        if len(a) < _MIN_LINKS:
            return float("nan")
        moved = self.frame(second)[1][b] - self.frame(first)[1][a]
        return float(np.percentile(np.hypot(moved[:, 0], moved[:, 1]), percentile))

    def save(self, path: Path) -> None:
        """Write them as an npz file."""
        np.savez(path, **vars(self))

    @classmethod
    def load(cls, path: Path) -> Tracks:
        """What ``save`` wrote."""
        with np.load(path, allow_pickle=False) as content:
            wh = (int(content["wh"][0]), int(content["wh"][1]))
            return cls(**{**content, "wh": wh, "start": int(content["start"])})


class KeptTracks:
    """Parts of a shot's tracks, kept on disk as they come the first time, to be gone through again."""

    def __init__(self, parts: Iterator[Tracks], folder: Path) -> None:
        self._parts, self._folder, self._count = parts, folder, 0

    def __iter__(self) -> Iterator[Tracks]:
        for number in range(self._count):
            yield Tracks.load(self._file(number))
        for tracks in self._parts:
            tracks.save(self._file(self._count))
            self._count += 1
            yield tracks

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:05d}.npz"


def track_parts(
    rgb: Frames, roles: Frames | None, config: GeometryConfig, features: FrameFeatures | None = None
) -> Iterator[Tracks]:
    """Track points through all frames, and hand them out in parts that overlap by some key frames.

    A point keeps its id from part to part. A part begins and ends with a key frame; a shot with fewer than twice
    ``part_key_frames`` is one part. Reads each frame once, and a second time where the picture leaps; keeps the tracks
    of one part.

    rgb: (T, H, W, 3) uint8. roles: (T, h, w) uint8 of ``Role`` at any size, or None. features: of the same frames and
    roles, made where None. Raises ShapeError for other shapes; a picture without corners gives frames without points.
    """
    frames = GrayFrames(rgb, roles)
    tracker = _Tracker(frames, features or FrameFeatures(frames), config)
    for _ in range(len(frames)):
        tracker.push()
        if tracker.key_count >= 2 * config.part_key_frames:
            yield tracker.part(config.part_key_frames)
        elif tracker.frame_count >= _PART_FRAMES:
            yield tracker.part(None)
    yield tracker.rest()


@dataclass(frozen=True)
class _Lost:
    """Points that a frame of the shot still saw and the next one did not."""

    frame: int
    gray: Uint8Array
    ids: Int64Array
    xy_px: Float32Array


class _Tracker:
    """Takes frames in order and remembers where each point was."""

    def __init__(self, frames: GrayFrames, features: FrameFeatures, config: GeometryConfig) -> None:
        self._pictures, self._features, self._wh, self._config = frames, features, frames.wh, config
        self._previous: Uint8Array | None = None
        self._lost: _Lost | None = None
        self._ids: Int64Array = np.zeros(0, np.int64)
        self._xy: Float32Array = np.zeros((0, 2), np.float32)
        self._key_xy: Float32Array = self._xy  # where the live points were at the last key frame
        self._next_id, self._key_point_count, self._full_count, self._start = 0, 0, 0, 0
        self._frames: list[tuple[Int64Array, Float32Array]] = []
        self._key_frames: list[int] = []
        self._sharpness: list[float] = []

    @property
    def key_count(self) -> int:
        return len(self._key_frames)

    @property
    def frame_count(self) -> int:
        return len(self._frames)

    def push(self) -> None:
        """The next frame."""
        shot_frame = self._start + len(self._frames)
        gray, mask = self._pictures.gray(shot_frame), self._pictures.mask(shot_frame)
        is_back = False
        if self._previous is not None and len(self._ids):
            self._follow(self._previous, gray, mask)
        elif self._lost is not None:
            is_back = self._find_again(self._lost, gray, mask)
        if is_back or self._is_key_frame(gray, mask):
            self._begin_key_frame(gray, mask)
        self._previous = gray
        self._sharpness.append(float(np.abs(cv2.Laplacian(gray, cv2.CV_16S)).mean()))
        self._frames.append((self._ids.copy(), self._xy.copy()))

    def _follow(self, previous: Uint8Array, gray: Uint8Array, mask: Uint8Array | None) -> None:
        shot_frame = self._start + len(self._frames)
        ahead, kept = self._there_and_back(previous, gray, self._xy[:, None])
        if kept.mean() < self._config.track_survival:
            self._follow_leap(shot_frame - 1, previous, gray, (self._xy, ahead, kept))
        kept &= self._is_inside(ahead[:, 0], mask)
        if len(kept) >= _MIN_LINKS > kept.sum():
            self._lost = _Lost(shot_frame - 1, previous, self._ids, self._xy)
            kept[:] = False
        self._ids, self._xy, self._key_xy = self._ids[kept], ahead[kept, 0], self._key_xy[kept]

    def _follow_leap(
        self, first: int, source: Uint8Array, target: Uint8Array, points: tuple[Float32Array, Float32Array, BoolArray]
    ) -> None:
        """From the picture ``source`` of frame ``first`` of the shot to this one, which lies far from it.

        points: where they were (n, 2), where they are (n, 1, 2), and which are found (n,). Those that are not are
        looked for once more, from where the features of the two frames say that they went; in place.
        """
        before, ahead, kept = points
        lost = ~kept
        start = self._features.leap(first, self._start + len(self._frames), before[lost])
        if start is not None:
            ahead[lost], kept[lost] = self._there_and_back(source, target, before[lost][:, None], start[:, None])

    def _find_again(self, lost: _Lost, gray: Uint8Array, mask: Uint8Array | None) -> bool:
        """The points that were followed until a picture showed none of them: a flash, a hand before the lens."""
        ahead, kept = lost.xy_px[:, None].copy(), np.zeros(len(lost.ids), bool)
        self._follow_leap(lost.frame, lost.gray, gray, (lost.xy_px, ahead, kept))
        kept &= self._is_inside(ahead[:, 0], mask)
        if kept.sum() >= _MIN_LINKS:
            self._ids, self._xy, self._key_xy = lost.ids[kept], ahead[kept, 0], lost.xy_px[kept]
            self._lost = None
            return True
        if self._start + len(self._frames) - lost.frame >= _REMEMBERED_FRAMES:
            self._lost = None
        return False

    def _there_and_back(
        self, source: Uint8Array, target: Uint8Array, points: Float32Array, start: Float32Array | None = None
    ) -> tuple[Float32Array, BoolArray]:
        """Where the points (n, 1, 2) are in ``target``, and whether tracking them back returns to them."""
        ahead, found = self._track(source, target, points, start)
        back, returned = self._track(target, source, ahead, None if start is None else ahead - start + points)
        error = np.linalg.norm((back - points)[:, 0], axis=1)
        kept = (found[:, 0] > 0) & (returned[:, 0] > 0) & (error < self._config.track_forward_backward_px)
        return ahead, kept

    def _track(
        self, source: Uint8Array, target: Uint8Array, points: Float32Array, start: Float32Array | None
    ) -> tuple[Any, Any]:
        size = self._config.track_window_px
        levels, flags = (self._config.track_levels, 0) if start is None else (1, cv2.OPTFLOW_USE_INITIAL_FLOW)
        ahead = np.empty_like(points) if start is None else start.copy()
        moved, found, _ = cv2.calcOpticalFlowPyrLK(
            source, target, points, ahead, winSize=(size, size), maxLevel=levels, flags=flags
        )
        return moved, found

    def _is_inside(self, xy: Float32Array, mask: Uint8Array | None) -> BoolArray:
        width, height = self._wh
        inside: BoolArray = (xy >= 0).all(1) & (xy[:, 0] <= width - 1) & (xy[:, 1] <= height - 1)
        if mask is not None:
            column, row = np.clip(np.rint(xy), 0, (width - 1, height - 1)).astype(int).T
            inside &= mask[row, column] > 0
        return inside

    def _is_key_frame(self, gray: Uint8Array, mask: Uint8Array | None) -> bool:
        if not self._frames or len(self._ids) < self._config.keyframe_survival * self._key_point_count:
            return True
        if len(self._ids) < _MIN_LINKS:  # after a blank picture there may be something to see again
            return len(self._corners(gray, mask, _MIN_LINKS)) == _MIN_LINKS
        moved = np.linalg.norm(self._xy - self._key_xy, axis=1)
        return bool(np.percentile(moved, 60) > self._config.keyframe_motion * self._wh[0])

    def _begin_key_frame(self, gray: Uint8Array, mask: Uint8Array | None) -> None:
        self._key_frames.append(len(self._frames))
        if len(self._ids) < max(self._config.track_top_up * self._full_count, _MIN_LINKS):
            self._add_corners(gray, mask)
        self._key_xy, self._key_point_count = self._xy.copy(), len(self._ids)

    def _add_corners(self, gray: Uint8Array, mask: Uint8Array | None) -> None:
        new = self._corners(gray, mask, self._config.track_corners - len(self._ids))
        self._ids = np.concatenate([self._ids, self._next_id + np.arange(len(new))])
        self._xy = np.concatenate([self._xy, new])
        self._next_id += len(new)
        self._full_count = len(self._ids)

    def _corners(self, gray: Uint8Array, mask: Uint8Array | None, most: int) -> Float32Array:
        """(n, 2) float32, the best that keep their distance from each other and from what is followed."""
        distance = max(3.0, self._config.track_spacing * max(self._wh))
        free = np.full(gray.shape, 255, np.uint8) if mask is None else mask.copy()
        for x, y in self._xy:
            cv2.circle(free, (round(float(x)), round(float(y))), round(distance), 0, -1)
        corners = (
            None if most < 1 else cv2.goodFeaturesToTrack(gray, most, self._config.track_quality, distance, mask=free)
        )
        return np.zeros((0, 2), np.float32) if corners is None else corners[:, 0].astype(np.float32)

    def part(self, key_frames: int | None) -> Tracks:
        """The first so many key frames, or everything, and the frames between; all but what overlaps is forgotten."""
        overlap = max(_MIN_OVERLAP, round(self._config.part_overlap * self._config.part_key_frames))
        count = self.key_count if key_frames is None else key_frames
        stop = self.frame_count if key_frames is None else self._key_frames[count - 1] + 1
        part = self._tracks(stop)
        self._end_tracks(part.frame(0)[0])
        # Without key frames nothing moved, and a few frames tell as much as many.
        self._forget(max(self._key_frames[max(count - overlap, 0)], stop - _PART_FRAMES // 2))
        return part

    def _end_tracks(self, ids: Int64Array) -> None:
        """Follow these points no further: a point that is seen for long drifts a little in every frame."""
        kept = ~np.isin(self._ids, ids)
        self._ids, self._xy, self._key_xy = self._ids[kept], self._xy[kept], self._key_xy[kept]

    def rest(self) -> Tracks:
        """All frames that are left."""
        return self._tracks(self.frame_count)

    def _tracks(self, stop: int) -> Tracks:
        """Frames before ``stop``. The last one ends as a key frame, so that no pose is extrapolated."""
        frames = self._frames[:stop]
        counts = [len(ids) for ids, _ in frames]
        keys = [key for key in self._key_frames if key < stop - 1]
        return Tracks(
            offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            ids=np.concatenate([ids for ids, _ in frames] or [self._ids]),
            xy_px=np.concatenate([xy for _, xy in frames] or [self._xy]),
            key_frames=np.array([*keys, stop - 1] if stop else [], np.int64),
            sharpness=np.array(self._sharpness[:stop], np.float32),
            wh=self._wh,
            start=self._start,
        )

    def _forget(self, count: int) -> None:
        """Drop the first ``count`` frames; the next one is a key frame."""
        self._frames, self._sharpness = self._frames[count:], self._sharpness[count:]
        self._key_frames = [0, *(key - count for key in self._key_frames if key > count)]
        self._start += count
