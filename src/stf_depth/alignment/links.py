"""Correspondences over many spans, sampled sparsely, from chained flow between neighbouring frames."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from stf_depth.types import BoolArray, Float32Array, Int32Array

__all__ = ["FLOW_SLACK", "Anchors", "LinkSampler", "Links", "bilinear", "led_by_flow"]

FLOW_SLACK = 0.05  # of its length, by which flow and flow back may disagree beside a tolerance in pixels


@dataclass(frozen=True)
class Links:
    """Pairs of points that show the same surface in two frames.

    frame: (N, 2) int32. xy: (N, 2, 2) float32, positions as fractions of the image (pixel edges at 0 and 1), x before
    y. log_disparity: (N, 2) float32, at both ends. weight: (N,) float32 >= 0. change: (N,) float32, by how much log
    disparity should grow from the first end to the second because the camera moved.
    """

    frame: Int32Array
    xy: Float32Array
    log_disparity: Float32Array
    weight: Float32Array
    change: Float32Array

    def __len__(self) -> int:
        return len(self.frame)

    def within(self, start: int, stop: int) -> Links:
        """The links whose both frames lie in ``start`` to ``stop`` (exclusive)."""
        keep = (self.frame.min(1) >= start) & (self.frame.max(1) < stop) if len(self) else np.zeros(0, bool)
        return Links(self.frame[keep], self.xy[keep], self.log_disparity[keep], self.weight[keep], self.change[keep])


@dataclass(frozen=True)
class Anchors:
    """Points whose log disparity is known from elsewhere.

    frame: (N,) int32. xy: (N, 2) float32, fractions of the image. log_disparity, target: (N,) float32, of the input and
    as it should be. weight: (N,) float32.
    """

    frame: Int32Array
    xy: Float32Array
    log_disparity: Float32Array
    target: Float32Array
    weight: Float32Array

    @classmethod
    def none(cls) -> Anchors:
        """No anchors."""
        empty = np.zeros(0, np.float32)
        return cls(np.zeros(0, np.int32), empty.reshape(0, 2), empty, empty, empty)

    def within(self, start: int, stop: int) -> Anchors:
        """The anchors of frames ``start`` to ``stop`` (exclusive)."""
        keep = (self.frame >= start) & (self.frame < stop)
        return Anchors(self.frame[keep], self.xy[keep], self.log_disparity[keep], self.target[keep], self.weight[keep])


def bilinear(image: Float32Array, xy_px: Float32Array) -> Float32Array:
    """Values of image (h, w) or (h, w, C) at xy_px (N, 2); positions outside take the nearest border value."""
    height, width = image.shape[:2]
    x = np.clip(xy_px[:, 0], 0, width - 1)
    y = np.clip(xy_px[:, 1], 0, height - 1)
    x0, y0 = np.minimum(x.astype(np.int64), max(width - 2, 0)), np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (x - x0).astype(np.float32), (y - y0).astype(np.float32)
    if image.ndim == 3:
        fx, fy = fx[:, None], fy[:, None]
    top = image[y0, x0] * (1 - fx) + image[y0, x1] * fx
    bottom = image[y1, x0] * (1 - fx) + image[y1, x1] * fx
    result: Float32Array = top * (1 - fy) + bottom * fy
    return result


def led_by_flow(
    xy_px: Float32Array, forward_px: Float32Array, backward_px: Float32Array, tolerance_px: float
) -> tuple[Float32Array, BoolArray]:
    """Where flow (h, w, 2) leads points (N, 2), and whether they stay in the picture and flow back leads home.

    Home is within the tolerance plus ``FLOW_SLACK`` of the way.
    """
    step = bilinear(forward_px, xy_px)
    arrived = xy_px + step
    gap = np.linalg.norm(step + bilinear(backward_px, arrived), axis=1)
    edge = np.array([forward_px.shape[1] - 1, forward_px.shape[0] - 1])
    good: BoolArray = gap < tolerance_px + FLOW_SLACK * np.linalg.norm(step, axis=1)
    return arrived, good & ((arrived >= 0) & (arrived <= edge)).all(1)


# (first frame, second frame, positions in the first (N, 2) px, log disparity there (N,)) -> its change (N,)
ExpectedChange = Callable[[int, int, Float32Array, Float32Array], Float32Array]


@dataclass
class _Track:
    frame: int
    start_xy: Float32Array
    xy: Float32Array
    log_disparity: Float32Array
    weight: Float32Array
    distance: Float32Array


@dataclass
class LinkSampler:
    """Follows a grid of points of every frame through the next frames, and keeps what it meets at the given spans.

    Push the frames in order; only the points under way are held, not the frames. A point is dropped where forward and
    backward flow disagree by more than ``tolerance_px`` plus a twentieth of the motion, or where it leaves the image.
    """

    width_px: int
    height_px: int
    columns: int
    spans: Sequence[int]
    tolerance_px: float
    expected_change: ExpectedChange | None = None
    _under_way: deque[_Track] = field(default_factory=deque)
    _kept: list[Links] = field(default_factory=list)
    _anchors: list[Anchors] = field(default_factory=list)
    _count: int = 0

    def push(
        self,
        log_disparity: Float32Array,
        weight: Float32Array,
        forward_px: Float32Array | None,
        backward_px: Float32Array | None,
        distance: Float32Array | None = None,
    ) -> None:
        """Take the next frame.

        log_disparity, weight: (h, w); weight 0 where the value is not to be used. forward_px, backward_px: (h, w, 2),
        flow from the frame before to this one and back; None for the first frame. distance: (h, w), the best guess of
        log disparity for the expected change, ``log_disparity`` when None.
        """
        if forward_px is not None and backward_px is not None:
            self._advance(forward_px, backward_px)
            self._keep(log_disparity, weight)
        self._start(log_disparity, weight, log_disparity if distance is None else distance)
        self._count += 1

    def anchor(self, target: Float32Array, trust: Float32Array) -> None:
        """Anchor the latest frame's points to log disparity ``target`` (h, w) where ``trust`` (h, w) is above 0."""
        latest = self._under_way[-1]
        weight = latest.weight * bilinear(trust, latest.xy)
        good = weight > 0
        xy = latest.xy[good]
        size = np.array([self.width_px, self.height_px], np.float32)
        frame = np.full(len(xy), latest.frame, np.int32)
        part = Anchors(frame, (xy + 0.5) / size, latest.log_disparity[good], bilinear(target, xy), weight[good])
        self._anchors.append(part)

    def anchors(self) -> Anchors:
        """Every anchor so far."""
        parts = self._anchors or [Anchors.none()]
        columns = zip(*((a.frame, a.xy, a.log_disparity, a.target, a.weight) for a in parts), strict=True)
        return Anchors(*(np.concatenate(column) for column in columns))

    def links(self) -> Links:
        """Everything kept so far."""
        if not self._kept:
            empty = np.zeros((0, 2), np.float32)
            nothing = np.zeros(0, np.float32)
            return Links(np.zeros((0, 2), np.int32), empty.reshape(0, 2, 2), empty, nothing, nothing)
        kept = self._kept
        return Links(
            np.concatenate([part.frame for part in kept]),
            np.concatenate([part.xy for part in kept]).astype(np.float32),
            np.concatenate([part.log_disparity for part in kept]),
            np.concatenate([part.weight for part in kept]).astype(np.float32),
            np.concatenate([part.change for part in kept]),
        )

    def forget(self, before: int) -> None:
        """Drop the links that start, and the anchors that lie, in frames before ``before``."""
        self._kept = [part for part in self._kept if len(part) and part.frame[0, 0] >= before]
        self._anchors = [part for part in self._anchors if len(part.frame) and part.frame[0] >= before]

    def _start(self, log_disparity: Float32Array, weight: Float32Array, distance: Float32Array) -> None:
        rows = max(2, round(self.columns * self.height_px / self.width_px))
        # Alternate frames are offset by half a cell, so that the samples of a span cover the image evenly.
        offset = 0.25 + 0.5 * (self._count % 2)
        x = (np.arange(self.columns) + offset) * self.width_px / self.columns - 0.5
        y = (np.arange(rows) + offset) * self.height_px / rows - 0.5
        grid_x, grid_y = np.meshgrid(x, y)
        xy = np.stack([grid_x.ravel(), grid_y.ravel()], 1).astype(np.float32)
        value, trust = bilinear(log_disparity, xy), bilinear(weight, xy)
        good = trust > 0
        far = bilinear(distance, xy)
        self._under_way.append(_Track(self._count, xy[good], xy[good], value[good], trust[good], far[good]))
        if len(self._under_way) > max(self.spans):
            self._under_way.popleft()

    def _advance(self, forward_px: Float32Array, backward_px: Float32Array) -> None:
        if not self._under_way:
            return
        sizes = [len(track.xy) for track in self._under_way]
        xy = np.concatenate([track.xy for track in self._under_way])
        arrived, good = led_by_flow(xy, forward_px, backward_px, self.tolerance_px)
        parts = np.split(np.arange(len(xy)), np.cumsum(sizes)[:-1])
        for track, part in zip(self._under_way, parts, strict=True):
            keep = good[part]
            track.xy = arrived[part][keep]
            track.start_xy = track.start_xy[keep]
            track.log_disparity = track.log_disparity[keep]
            track.weight = track.weight[keep]
            track.distance = track.distance[keep]

    def _keep(self, log_disparity: Float32Array, weight: Float32Array) -> None:
        size = np.array([self.width_px, self.height_px], np.float32)
        for track in self._under_way:
            if self._count - track.frame not in self.spans or not len(track.xy):
                continue
            trust = np.minimum(track.weight, bilinear(weight, track.xy))
            good = trust > 0
            xy = np.stack([track.start_xy[good], track.xy[good]], 1)
            values = np.stack([track.log_disparity[good], bilinear(log_disparity, track.xy[good])], 1)
            frames = np.broadcast_to(np.array([track.frame, self._count], np.int32), (len(xy), 2))
            # Half precision keeps a long shot small; it is finer than a tenth of a pixel.
            packed = ((xy + 0.5) / size).astype(np.float16), trust[good].astype(np.float16)
            change = self._change(track, good)
            self._kept.append(Links(frames, packed[0], values.astype(np.float32), packed[1], change))  # type: ignore[arg-type]

    def _change(self, track: _Track, good: BoolArray) -> Float32Array:
        if self.expected_change is None:
            return np.zeros(int(good.sum()), np.float32)
        return self.expected_change(track.frame, self._count, track.start_xy[good], track.distance[good])
