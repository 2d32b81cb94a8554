"""Cuts, found while frames stream by (PySceneDetect's adaptive detector, flashes refused)."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np
from scenedetect import FrameTimecode
from scenedetect.detectors import AdaptiveDetector

from stf_depth.types import Float32Array, Shot, Uint8Array
from stf_depth.video.resize import resize_area, working_wh

__all__ = ["ShotDetector"]

DETECTION_LONG_SIDE_PX = 256
THUMBNAIL_WH = (32, 18)
WINDOW_FRAMES = 2
FLASH_FRAMES = 6
FLASH_SIMILARITY = 0.5
# PySceneDetect counts in time codes; only frame numbers matter here, so that any rate serves.
NOMINAL_RATE = 25.0


class ShotDetector:
    """Shots of a stream of frames, with at least ``min_shot_frames`` frames each unless the stream is shorter.

    A cut needs a change that exceeds ``threshold`` times the average change around it. Frames that return to what was
    seen just before the change are a flash, not a cut. ``lookahead`` is the largest number of frames by which a
    finished shot is reported late.

    >>> import numpy as np
    >>> detector = ShotDetector(threshold=3.0, min_shot_frames=2)
    >>> dark, bright = np.zeros((10, 18, 32, 3), np.uint8), np.full((10, 18, 32, 3), 200, np.uint8)
    >>> detector.push(dark) + detector.push(bright) + detector.flush()
    [Shot(start=0, stop=10), Shot(start=10, stop=20)]
    """

    def __init__(self, *, threshold: float, min_shot_frames: int) -> None:
        self._detector = AdaptiveDetector(
            adaptive_threshold=threshold, min_scene_len=0, window_width=WINDOW_FRAMES, min_content_val=15.0
        )
        self._min_shot_frames = min_shot_frames
        self.lookahead = max(FLASH_FRAMES, WINDOW_FRAMES, min_shot_frames)
        self._thumbnails: deque[Float32Array] = deque(maxlen=2 * (self.lookahead + FLASH_FRAMES))
        self._candidates: deque[int] = deque()
        self._count = 0
        self._start = 0

    def push(self, rgb: Uint8Array) -> list[Shot]:
        """Take frames (N, H, W, 3) uint8; return the shots that are now complete."""
        shots = []
        for image in rgb:
            small = resize_area(image, working_wh((image.shape[1], image.shape[0]), DETECTION_LONG_SIDE_PX))
            self._thumbnails.append(resize_area(small, THUMBNAIL_WH).astype(np.float32))
            time = FrameTimecode(self._count, NOMINAL_RATE)
            cuts = self._detector.process_frame(time, cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
            self._candidates.extend(cut.frame_num for cut in cuts)
            self._count += 1
            while self._candidates and self._candidates[0] + self.lookahead <= self._count:
                shots += self._settled(self._candidates.popleft())
        return shots

    def flush(self) -> list[Shot]:
        """Return the shots that are left."""
        shots = []
        while self._candidates:
            cut = self._candidates.popleft()
            if self._count - cut >= self._min_shot_frames:
                shots += self._settled(cut)
        if self._count > self._start:
            shots.append(Shot(self._start, self._count))
            self._start = self._count
        return shots

    def _settled(self, cut: int) -> list[Shot]:
        """The shot that ends at ``cut``, nothing when it is too short or the cut a flash."""
        if cut - self._start < self._min_shot_frames or self._is_flash(cut):
            return []
        shot = Shot(self._start, cut)
        self._start = cut
        return [shot]

    def _is_flash(self, cut: int) -> bool:
        """Whether a frame soon after the cut looks like one shortly before it."""
        first = self._count - len(self._thumbnails)
        at = [self._thumbnails[index - first] for index in range(max(first, cut - FLASH_FRAMES), cut)]
        after = [self._thumbnails[index - first] for index in range(cut, min(self._count, cut + FLASH_FRAMES))]
        change = np.abs(after[0] - at[-1]).mean()
        closest = min(np.abs(one - other).mean() for one in at for other in after)
        return bool(closest < FLASH_SIMILARITY * change)
