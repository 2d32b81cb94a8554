"""Stability over time, frame pair by frame pair, and space-time slices."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.evaluation.consistency import clip_range, flow_scale, opw_abs_rel_pair, read_disparity
from stf_depth.evaluation.flow_links import FlowLinker, neighbour_pairs, reduced_wh
from stf_depth.export.source import StageDepth
from stf_depth.report.pictures import ShownDepth
from stf_depth.report.sources import Sources
from stf_depth.types import Float32Array, Float64Array, Frames, Shot, Uint8Array
from stf_depth.visualization import xt_slice
from stf_depth.visualization.range import closeness

__all__ = ["Slice", "Stability", "slices", "stability"]

_LINK_LONG_SIDE_PX = 320
_SLICE_WIDTH_PX = 480
_SLICE_HEIGHT_PX = 240
# Rows at the very top and bottom are often letterbox bars or sky.
_ROW_MARGIN = 0.15


@dataclass(frozen=True)
class Stability:
    """Values of neighbour pairs of frames, NaN where unknown; series are keyed ``before`` and ``fused``.

    seconds: (N,) time of each pair's first frame. pairs: its frame number. flicker_percent: flow-warp error.
    scale_percent: 100 (1 / s - 1) with s the factor that fits the second frame to the first.
    """

    seconds: Float64Array
    pairs: tuple[int, ...]
    flicker_percent: dict[str, Float64Array]
    scale_percent: dict[str, Float64Array]


@dataclass(frozen=True)
class Slice:
    """One image row over time, time downwards: (t, w, 3) uint8."""

    key: str
    title: str
    rgb: Uint8Array


@dataclass(frozen=True)
class _Closeness:
    """A depth stack as something that grows towards the camera."""

    stack: StageDepth

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stack.depth.shape

    def __len__(self) -> int:
        return len(self.stack.depth)

    def __getitem__(self, index: Any, /) -> Float32Array:
        values = np.asarray(self.stack.depth[index], np.float32)
        return closeness(values, self.stack.representation, self.stack.ambiguity)


@dataclass(frozen=True)
class _Window:
    """Frames ``start`` to ``stop`` of a stack."""

    frames: Frames
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.frames.shape[1:])

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        return np.asarray(self.frames[self.start + index])


def stability(sources: Sources, shots: list[Shot], pts_seconds: Float64Array, max_pairs: int) -> Stability | None:
    """Flicker and change of scale between neighbour frames; None without frames or without a pair inside a shot."""
    pairs = neighbour_pairs(len(pts_seconds), shots=shots, max_pairs=max_pairs)
    if sources.rgb is None or not pairs:
        return None
    height, width = sources.rgb.shape[1:3]
    size_wh = reduced_wh(width, height, _LINK_LONG_SIDE_PX)
    stacks = {"before": sources.before, "fused": sources.fused}
    series = {key: _PairSeries(stack, size_wh) for key, stack in stacks.items() if stack is not None}
    for k, _, _, link in FlowLinker(long_side_px=_LINK_LONG_SIDE_PX).pairs(sources.rgb, pairs):
        for one in series.values():
            one.push(k, link)
    return Stability(
        seconds=np.asarray(pts_seconds, np.float64)[pairs],
        pairs=tuple(pairs),
        flicker_percent={key: np.array(one.flicker) for key, one in series.items()},
        scale_percent={key: np.array(one.scale) for key, one in series.items()},
    )


class _PairSeries:
    """Measures one depth stack along the pairs."""

    def __init__(self, stack: StageDepth, size_wh: tuple[int, int]) -> None:
        self._stack = stack
        self._near = _Closeness(stack)
        self._size_wh = size_wh
        self._limits = clip_range(self._near, size_wh, stack.valid)
        self.flicker: list[float] = []
        self.scale: list[float] = []

    def push(self, k: int, link: Any) -> None:
        if self._limits is None:
            self.flicker.append(math.nan)
            self.scale.append(math.nan)
            return
        maps = [read_disparity(self._near, i, self._size_wh, self._stack.valid) for i in (k, k + 1)]
        first, second = (self._limits.normalise(values) for values in maps)
        self.flicker.append(100 * opw_abs_rel_pair(first, second, link).value)
        factor = flow_scale(first, second, link)
        self.scale.append(100 * (1 / factor - 1) if factor > 0 else math.nan)


def slices(sources: Sources, shots: list[Shot], colormap: str, max_frames: int) -> tuple[list[Slice], Shot, float]:
    """Slices of the video, the single-frame depth and the result, the frames they show, and the row in [0, 1].

    The frames are the first ones of the longest shot. The row is the one where the single-frame depth changes most
    from frame to frame, the middle one where that depth is not there.
    """
    longest = max(shots, key=len)
    window = Shot(longest.start, min(longest.stop, longest.start + max_frames))
    before = ShownDepth(sources.before, shots, colormap) if sources.before is not None else None
    row = _restless_row(before, window) if before is not None else 0.5
    found = []
    if sources.rgb is not None:
        rgb = xt_slice(_Window(sources.rgb, window.start, window.stop), int(row * sources.rgb.shape[1]))
        found.append(Slice("rgb", "Video", _sized(rgb)))
    if before is not None:
        found.append(Slice("before", "Per frame", _sized(_depth_slice(before, window, row))))
    fused = ShownDepth(sources.fused, shots, colormap)
    found.append(Slice("fused", "Fused", _sized(_depth_slice(fused, window, row))))
    return found, window, row


def _restless_row(shown: ShownDepth, window: Shot) -> float:
    height = shown.stack.depth.shape[1]
    change = np.zeros(height)
    last: Float32Array | None = None
    for index in range(window.start, window.stop):
        nearness = np.nan_to_num(shown.nearness(index))
        if last is not None:
            change += np.abs(nearness - last).mean(axis=1)
        last = nearness
    margin = int(_ROW_MARGIN * height)
    inner = change[margin : height - margin] if height > 2 * margin + 1 else change
    return (int(np.argmax(inner)) + (height - len(inner)) // 2 + 0.5) / height


def _depth_slice(shown: ShownDepth, window: Shot, row: float) -> Uint8Array:
    depth, valid = (_Window(frames, window.start, window.stop) for frames in (shown.stack.depth, shown.stack.valid))
    line = int(row * depth.shape[1])
    nearness = shown.range_at(window.start).nearness(np.asarray(xt_slice(depth, line), np.float32))
    return shown.colour(np.where(xt_slice(valid, line).astype(bool), nearness, np.float32(np.nan)))


def _sized(rgb: Uint8Array) -> Uint8Array:
    """Narrow enough to embed; short clips are stretched in whole rows."""
    repeat = max(1, _SLICE_HEIGHT_PX // len(rgb))
    tall = np.repeat(rgb, repeat, axis=0)
    width = min(_SLICE_WIDTH_PX, rgb.shape[1])
    return np.asarray(cv2.resize(tall, (width, len(tall)), interpolation=cv2.INTER_AREA), np.uint8)
