"""The pictures inside a report: a bounded number of small ones, whatever the length of the clip."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from stf_depth.errors import OutputError
from stf_depth.export.source import SegmentFrames, StageDepth
from stf_depth.report.options import ReportOptions
from stf_depth.report.sources import Sources
from stf_depth.types import Float32Array, Shot, Uint8Array
from stf_depth.visualization import DisplayRange, colorize, segment_overlay, shot_range

__all__ = ["Layer", "Pictures", "ShownDepth", "data_uri", "draw_pictures", "fit_wh", "spread"]

# Frames, long side and JPEG quality, as shares of what was asked for: the first that fits the limit is taken.
_LADDER = ((1.0, 1.0, 82), (1.0, 0.85, 70), (0.8, 0.7, 62), (0.5, 0.6, 55), (0.3, 0.5, 50), (0.1, 0.4, 40))
_RANGE_FRAMES = 24


@dataclass(frozen=True)
class Layer:
    """One kind of picture: its data URI for each shown frame."""

    key: str
    title: str
    uris: tuple[str, ...]


@dataclass(frozen=True)
class Pictures:
    """indices: the shown frames. wh: size of every picture."""

    indices: tuple[int, ...]
    wh: tuple[int, int]
    layers: tuple[Layer, ...]


class ShownDepth:
    """A depth stack with the display range of each shot, which is found when the shot is first shown."""

    def __init__(self, stack: StageDepth, shots: list[Shot], colormap: str) -> None:
        self.stack = stack
        self._shots = shots
        self._colormap = colormap
        self._ranges: dict[Shot, DisplayRange] = {}

    def range_at(self, index: int) -> DisplayRange:
        """The range of the shot that holds frame ``index``."""
        shot = next(shot for shot in self._shots if shot.start <= index < shot.stop)
        if shot not in self._ranges:
            s = self.stack
            self._ranges[shot] = shot_range(
                s.depth, s.valid, shot, s.representation, s.ambiguity, max_frames=_RANGE_FRAMES
            )
        return self._ranges[shot]

    def nearness(self, index: int) -> Float32Array:
        """(h, w) in [0, 1] at the stack's own size, NaN where unknown."""
        shown = self.range_at(index).nearness(np.asarray(self.stack.depth[index], np.float32))
        return np.where(np.asarray(self.stack.valid[index], bool), shown, np.float32(np.nan))

    def colour(self, nearness: Float32Array) -> Uint8Array:
        """Colours of nearness in [0, 1]; NaN gets the colour of the unknown."""
        known = np.isfinite(nearness)
        return colorize(np.where(known, nearness, np.float32(0)), known, self._colormap)

    def picture(self, index: int, wh: tuple[int, int]) -> Uint8Array:
        """Frame ``index`` in colour at size ``wh``."""
        return self.colour(_resized(self.nearness(index), wh))


def draw_pictures(sources: Sources, shots: list[Shot], options: ReportOptions) -> Pictures:
    """Draw frames spread evenly over the clip, as many and as large as the limit allows.

    Raises OutputError when not even the smallest pictures fit.
    """
    frame_count = len(sources.fused.depth)
    limit = int(options.max_megabytes * 1e6)
    for frames, size, quality in _LADDER:
        indices = spread(frame_count, max(1, round(frames * options.max_frames)))
        wh = fit_wh(sources.fused.depth.shape, max(32, round(size * options.long_side_px)))
        layers = _encode(_painters(sources, shots, options, wh), indices, quality, limit)
        if layers is not None:
            return Pictures(indices, wh, layers)
    raise OutputError("the report's pictures do not fit", expected=f"at most {options.max_megabytes} MB")


def spread(frame_count: int, count: int) -> tuple[int, ...]:
    """At most ``count`` frame numbers, evenly spaced, first and last frame included.

    >>> spread(100, 4)
    (0, 33, 66, 99)
    """
    picks = np.linspace(0, frame_count - 1, min(count, frame_count)).round().astype(int)
    return tuple(int(pick) for pick in picks)


def fit_wh(shape: tuple[int, ...], long_side_px: int) -> tuple[int, int]:
    """Size (w, h) of (T, H, W) frames with at most this long side, never enlarged, no side below 1."""
    _, height, width = shape
    scale = min(1.0, long_side_px / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def data_uri(rgb: Uint8Array, quality: int = 88) -> str:
    """An image (H, W, 3) uint8 as a JPEG data URI."""
    done, encoded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OutputError("a picture of the report cannot be encoded", got=rgb.shape)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.tobytes()).decode("ascii")


Painter = tuple[str, str, Callable[[int], Uint8Array]]


def _painters(sources: Sources, shots: list[Shot], options: ReportOptions, wh: tuple[int, int]) -> Iterator[Painter]:
    rgb, before, segments = sources.rgb, sources.before, sources.segments
    if rgb is not None:
        frames = rgb
        yield "rgb", "Video", lambda index: _shrunk(np.asarray(frames[index]), wh)
    if before is not None:
        shown = ShownDepth(before, shots, options.colormap)
        yield "before", "Per frame", lambda index: shown.picture(index, wh)
    fused = ShownDepth(sources.fused, shots, options.colormap)
    yield "fused", "Fused", lambda index: fused.picture(index, wh)
    yield "confidence", "Confidence", lambda index: _grey(np.asarray(sources.confidence[index]), wh)
    if rgb is not None and segments is not None:
        yield "segments", "Segments", lambda index: _overlay(np.asarray(frames[index]), segments, index, wh)


def _encode(
    painters: Iterator[Painter], indices: tuple[int, ...], quality: int, limit_bytes: int
) -> tuple[Layer, ...] | None:
    layers, total = [], 0
    for key, title, paint in painters:
        uris = []
        for index in indices:
            uris.append(data_uri(paint(index), quality))
            total += len(uris[-1])
            if total > limit_bytes:
                return None
        layers.append(Layer(key, title, tuple(uris)))
    return tuple(layers)


def _resized(nearness: Float32Array, wh: tuple[int, int]) -> Float32Array:
    known = np.isfinite(nearness)
    shrinks = wh[0] < nearness.shape[1]
    values = cv2.resize(
        np.where(known, nearness, np.float32(0)), wh, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    mask = cv2.resize(known.astype(np.uint8), wh, interpolation=cv2.INTER_NEAREST_EXACT).astype(bool)
    return np.where(mask, values, np.float32(np.nan))


def _shrunk(rgb: Uint8Array, wh: tuple[int, int]) -> Uint8Array:
    shrinks = wh[0] < rgb.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(rgb), wh, interpolation=method), np.uint8)


def _grey(confidence: Float32Array, wh: tuple[int, int]) -> Uint8Array:
    values = _resized(np.asarray(confidence, np.float32), wh)
    return colorize(np.nan_to_num(values), np.ones(values.shape, bool), "gray")


def _overlay(rgb: Uint8Array, segments: SegmentFrames, index: int, wh: tuple[int, int]) -> Uint8Array:
    ids = np.asarray(segments.ids[index], np.int32)
    return segment_overlay(_shrunk(rgb, wh), ids, segments.table(index), legend=False)
