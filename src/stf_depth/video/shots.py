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
# Grey levels by which a picture encoded again differs from itself on average: at least this much is allowed for, and
# in strong motion, where compression is coarse and key frames renew the picture, this share of the change, up to most.
REPEAT_DIFFERENCE = 0.8
REPEAT_SHARE = 0.25
MOST_REPEAT_DIFFERENCE = 4.0
# A picture that stays for longer is a still, no repeated frame.
LONGEST_REPEAT_FRAMES = 8
FLASH_FRAMES = 6
FLASH_SIMILARITY = 0.5
# PySceneDetect counts in time codes; only frame numbers matter here, so that any rate serves.
NOMINAL_RATE = 25.0


class ShotDetector:
    """Shots of a stream of frames, with at least ``min_shot_frames`` frames each unless the stream is shorter.

    A cut needs a change that exceeds ``threshold`` times the average change around it, frames that repeat the one
    before them (24 frames a second shown at 60) left out. Frames that return to what was seen just before the change
    are a flash, not a cut. ``lookahead`` is the largest number of frames by which a finished shot is reported late.

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
        self.lookahead = max(FLASH_FRAMES, WINDOW_FRAMES * LONGEST_REPEAT_FRAMES, min_shot_frames)
        self._thumbnails: deque[Float32Array] = deque(maxlen=2 * (self.lookahead + FLASH_FRAMES))
        self._candidates: deque[int] = deque()
        self._shown: tuple[int, Uint8Array] | None = None  # the last frame that the detector saw
        self._left_out = 0  # repeats of the last picture
        self._changes: deque[float] = deque([0.0, 0.0], maxlen=LONGEST_REPEAT_FRAMES + 1)  # between shown frames
        self._count = 0
        self._start = 0

    def push(self, rgb: Uint8Array) -> list[Shot]:
        """Take frames (N, H, W, 3) uint8; return the shots that are now complete."""
        shots = []
        for image in rgb:
            small = resize_area(image, working_wh((image.shape[1], image.shape[0]), DETECTION_LONG_SIDE_PX))
            self._thumbnails.append(resize_area(small, THUMBNAIL_WH).astype(np.float32))
            self._take(small)
            self._count += 1
            while self._candidates and self._candidates[0] + self.lookahead <= self._count:
                shots += self._settled(self._candidates.popleft())
        return shots

    def flush(self) -> list[Shot]:
        """Return the shots that are left."""
        shots = []
        if self._shown is not None:
            # What follows a cut close to the end may be nothing but repeats.
            for _ in range(min(self._left_out, WINDOW_FRAMES)):
                self._show(self._count, self._shown[1])
            self._left_out = 0
        while self._candidates:
            cut = self._candidates.popleft()
            if self._count - cut >= self._min_shot_frames:
                shots += self._settled(cut)
        if self._count > self._start:
            shots.append(Shot(self._start, self._count))
            self._start = self._count
        return shots

    def _take(self, small: Uint8Array) -> None:
        """Show the detector the next frame unless it repeats the last one."""
        if self._shown is None:
            self._show(self._count, small)
            return
        number, last = self._shown
        change = float(cv2.absdiff(small, last).mean())
        is_repeat = self._repeats(change)
        # The first frames are all shown: a cut is judged by its neighbours, and a still may be as short as a shot.
        if is_repeat and self._count > WINDOW_FRAMES and self._count - number < LONGEST_REPEAT_FRAMES:
            self._left_out += 1
            return
        self._left_out = self._left_out if is_repeat else 0
        self._changes.append(change)
        self._show(self._count, small)

    def _show(self, number: int, small: Uint8Array) -> None:
        self._shown = number, small
        cuts = self._detector.process_frame(FrameTimecode(number, NOMINAL_RATE), cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        self._candidates.extend(cut.frame_num for cut in cuts)

    def _repeats(self, change: float) -> bool:
        """Whether a picture that differs by so much from the last one is the same."""
        usual = sorted(self._changes)[-2]  # the largest may be a cut
        return change < min(max(REPEAT_SHARE * usual, REPEAT_DIFFERENCE), MOST_REPEAT_DIFFERENCE)

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
