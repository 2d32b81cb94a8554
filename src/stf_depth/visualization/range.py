"""One display range for a whole shot, so that brightness means the same in every frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from stf_depth.errors import ShapeError
from stf_depth.types import Ambiguity, BoolArray, Float32Array, Frames, Representation, Shot

__all__ = ["DisplayRange", "RangeSketch", "closeness", "infinite", "shot_range"]

# Midpoints: the extremes of a frame, which may be one broken pixel, get no weight of their own.
_QUANTILES = (np.arange(256) + 0.5) / 256
_MAX_FRAMES = 2048
_MAX_SAMPLES_PER_FRAME = 16384


def closeness(
    depth: Float32Array, representation: Representation | str, ambiguity: Ambiguity | str = Ambiguity.SCALE
) -> Float32Array:
    """c = disparity, 1 / z for z_depth, or -z for affine z_depth: grows towards the camera.

    depth: any shape, float32. z <= 0 gives 0, as an infinite z does.
    """
    if Representation(representation) is Representation.DISPARITY:
        return np.asarray(depth, np.float32)
    if Ambiguity(ambiguity) is Ambiguity.AFFINE:
        return -np.asarray(depth, np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(depth > 0, 1 / np.asarray(depth, np.float32), 0).astype(np.float32)


def infinite(depth: Float32Array, representation: Representation | str, ambiguity: Ambiguity | str) -> BoolArray:
    """Where a valid pixel is infinitely far: disparity <= 0 or z <= 0 (no surface), or z = inf.

    Returns bool of the same shape. Affine depth has no known zero: only z = inf is infinite there.
    """
    endless = np.asarray(depth <= 0) & (Ambiguity(ambiguity) is not Ambiguity.AFFINE)
    if Representation(representation) is Representation.Z_DEPTH:
        return np.asarray(endless | np.isposinf(depth))
    return np.asarray(endless)


@dataclass(frozen=True)
class DisplayRange:
    """n = clip((c - far) / (near - far), 0, 1), with c the ``closeness`` of a depth value.

    far, near: the closeness shown as 0 and as 1; far < near.
    """

    far: float
    near: float
    representation: Representation = Representation.DISPARITY
    ambiguity: Ambiguity = Ambiguity.AFFINE

    def __post_init__(self) -> None:
        if not self.far < self.near:
            raise ShapeError("a display range needs far < near", got=(self.far, self.near))

    def nearness(self, depth: Float32Array) -> Float32Array:
        """Map depth of any shape to float32 in [0, 1], 1 nearest; non-finite values become 0.

        >>> import numpy as np
        >>> DisplayRange(0.0, 4.0).nearness(np.array([1.0, 2.0, 9.0], np.float32)).tolist()
        [0.25, 0.5, 1.0]
        """
        close = closeness(depth, self.representation, self.ambiguity)
        scaled = (close - np.float32(self.far)) / np.float32(self.near - self.far)
        steady = np.nan_to_num(scaled, nan=0.0, posinf=1.0, neginf=0.0)
        return np.asarray(np.clip(steady, 0, 1), np.float32)


@dataclass
class RangeSketch:
    """Quantiles of a stream of depth maps in memory that does not grow with its length.

    Each frame adds 256 quantiles of its valid finite pixels and so weighs the same as any other: a bright
    particle in a few frames, or a few pixels of every frame, stays outside the percentiles. When 2048 frames
    are held every second one is dropped, and from then on every second one is taken.
    """

    representation: Representation
    ambiguity: Ambiguity
    _sketches: list[Float32Array] = field(default_factory=list)
    _seen: int = 0
    _stride: int = 1

    def push(self, depth: Float32Array, valid: BoolArray) -> None:
        """Take frames: depth (N, H, W) float32, valid (N, H, W) bool. Raises ShapeError when they differ."""
        if depth.shape != valid.shape or depth.ndim != 3:
            raise ShapeError("depth and validity must be stacks of one shape", expected=depth.shape, got=valid.shape)
        for frame, mask in zip(depth, valid, strict=True):
            if self._seen % self._stride == 0:
                self._take(frame, mask)
            self._seen += 1

    def _take(self, frame: Float32Array, mask: BoolArray) -> None:
        step = max(1, int(np.ceil(np.sqrt(frame.size / _MAX_SAMPLES_PER_FRAME))))
        frame, mask = frame[step // 2 :: step, step // 2 :: step], mask[step // 2 :: step, step // 2 :: step]
        usable = mask & np.isfinite(frame) & ~infinite(frame, self.representation, self.ambiguity)
        if not usable.any():
            return
        values = closeness(frame[usable], self.representation, self.ambiguity)
        self._sketches.append(np.quantile(values, _QUANTILES).astype(np.float32))
        if len(self._sketches) >= _MAX_FRAMES:
            self._sketches = self._sketches[::2]
            self._stride *= 2

    def result(self, percentiles: tuple[float, float] = (0.5, 99.5)) -> DisplayRange:
        """The range between two percentiles over all frames, widened where it would be empty.

        A stream without any valid pixel gives the range 0 to 1.
        """
        if not self._sketches:
            return DisplayRange(0.0, 1.0, self.representation, self.ambiguity)
        far, near = (float(value) for value in np.percentile(np.concatenate(self._sketches), percentiles))
        # A constant depth map has no spread; it is shown in the middle of the map.
        spread = max(near - far, 1e-6 * max(abs(near), abs(far), 1e-30))
        middle = 0.5 * (near + far)
        return DisplayRange(middle - spread / 2, middle + spread / 2, self.representation, self.ambiguity)


def shot_range(
    depth: Frames,
    valid: Frames,
    shot: Shot,
    representation: Representation | str,
    ambiguity: Ambiguity | str,
    *,
    percentiles: tuple[float, float] = (0.5, 99.5),
    max_frames: int = 256,
) -> DisplayRange:
    """The robust range of one shot of a lazily read store.

    depth, valid: (T, H, W). At most about ``max_frames`` frames, evenly spread over the shot, are read, one
    at a time.
    """
    sketch = RangeSketch(Representation(representation), Ambiguity(ambiguity))
    for index in _spread(shot, max_frames):
        sketch.push(np.asarray(depth[index : index + 1]), np.asarray(valid[index : index + 1]))
    return sketch.result(percentiles)


def _spread(shot: Shot, max_frames: int) -> Sequence[int]:
    count = min(len(shot), max(1, max_frames))
    return [shot.start + (2 * i + 1) * len(shot) // (2 * count) for i in range(count)]
