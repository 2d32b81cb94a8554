"""Which pixel of the next frame shows the same point: optical flow checked in both directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import ShapeError
from stf_depth.types import BoolArray, Float32Array, Frames, Shot, Uint8Array

__all__ = ["FlowLink", "FlowLinker", "link_from_flow", "neighbour_pairs", "reduced_wh", "sample"]


@dataclass(frozen=True)
class FlowLink:
    """Pixel (x, y) of the first frame is at ``xy_px[y, x]`` in the second.

    xy_px: (H, W, 2) float32. consistent: (H, W) bool, inside the second frame and undone by the backward flow.
    backward_xy_px: (H, W, 2) float32, the same from the second frame to the first.
    """

    xy_px: Float32Array
    consistent: BoolArray
    backward_xy_px: Float32Array


def sample(image: NDArray[Any], xy_px: Float32Array, *, outside: float = float("nan")) -> Float32Array:
    """Bilinear samples of (H, W) or (H, W, C) at xy_px (h, w, 2); ``outside`` beyond the border pixels' centres."""
    height, width = image.shape[:2]
    x, y = xy_px[..., 0], xy_px[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    left, upper = (np.where(inside, axis, 0).astype(np.int32) for axis in (x, y))
    fx, fy = x - left, y - upper
    corner = (upper * width + left).ravel()
    # One step right or down, none from the last column or row, where its weight is 0.
    right, below = (left < width - 1).ravel(), width * (upper < height - 1).ravel()
    out = np.empty((*xy_px.shape[:2], int(np.prod(image.shape[2:]))), np.float32)
    for channel, plane in enumerate(np.moveaxis(image.reshape(height * width, -1), 1, 0)):
        values = np.ascontiguousarray(plane, np.float32)
        v00, v10, v01, v11 = (values.take(corner + step).reshape(x.shape) for step in (0, right, below, right + below))
        top, bottom = v00 + (v10 - v00) * fx, v01 + (v11 - v01) * fx
        out[..., channel] = np.where(inside, top + (bottom - top) * fy, np.float32(outside))
    return out.reshape(*xy_px.shape[:2], *image.shape[2:])


def link_from_flow(forward_px: Float32Array, backward_px: Float32Array) -> FlowLink:
    """Keep pixels where |f + b(x + f)|^2 < 0.01 (|f|^2 + |b|^2) + 0.5 (Sundaram, Brox and Keutzer, ECCV 2010).

    forward_px, backward_px: (H, W, 2) float32, (dx, dy).
    """
    if forward_px.shape != backward_px.shape:
        raise ShapeError("both flows must have one size", expected=forward_px.shape, got=backward_px.shape)
    height, width = forward_px.shape[:2]
    grid = np.dstack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)))
    xy = grid + forward_px
    back = sample(backward_px, xy)
    residual = ((forward_px + back) ** 2).sum(-1)
    bound = 0.01 * ((forward_px**2).sum(-1) + (back**2).sum(-1)) + 0.5
    # Samples outside are NaN, and comparisons with NaN are false.
    return FlowLink(xy, residual < bound, grid + backward_px)


def reduced_wh(width_px: int, height_px: int, long_side_px: int) -> tuple[int, int]:
    """The size with ``long_side_px``, never enlarged."""
    factor = min(1.0, long_side_px / max(width_px, height_px))
    return max(1, round(width_px * factor)), max(1, round(height_px * factor))


# The search refuses smaller frames.
_MIN_SIDE_PX = 32


class FlowLinker:
    """Links of frame pairs by DIS flow (Kroeger et al., ECCV 2016) at a reduced size."""

    def __init__(self, *, long_side_px: int = 320) -> None:
        self.long_side_px = long_side_px
        self._dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)

    def reduce(self, rgb: Uint8Array) -> Uint8Array:
        """One frame (H, W, 3) at the reduced size."""
        size = reduced_wh(rgb.shape[1], rgb.shape[0], self.long_side_px)
        return np.asarray(cv2.resize(np.ascontiguousarray(rgb), size, interpolation=cv2.INTER_AREA), np.uint8)

    def link(self, first_rgb: Uint8Array, second_rgb: Uint8Array) -> FlowLink:
        """Link two reduced frames (h, w, 3) uint8."""
        first, second = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in (first_rgb, second_rgb))
        return link_from_flow(self._flow(first, second), self._flow(second, first))

    def _flow(self, source: NDArray[Any], target: NDArray[Any]) -> Float32Array:
        height, width = source.shape
        missing = ((0, max(0, _MIN_SIDE_PX - height)), (0, max(0, _MIN_SIDE_PX - width)))
        first, second = (np.pad(grey, missing, mode="edge") if np.any(missing) else grey for grey in (source, target))
        flow = self._dis.calc(first, second, np.zeros((*first.shape, 2), np.float32))
        return np.asarray(flow, np.float32)[:height, :width]

    def pairs(self, rgb: Frames, indices: Sequence[int]) -> Iterator[tuple[int, Uint8Array, Uint8Array, FlowLink]]:
        """(k, frame k, frame k + 1, link) for each k, frames reduced; each frame is read once for a run of pairs."""
        last: tuple[int, Uint8Array] | None = None
        for k in indices:
            first = last[1] if last is not None and last[0] == k else self.reduce(np.asarray(rgb[k]))
            second = self.reduce(np.asarray(rgb[k + 1]))
            yield k, first, second, self.link(first, second)
            last = (k + 1, second)


def neighbour_pairs(frame_count: int, *, shots: Sequence[Shot] = (), max_pairs: int | None = None) -> list[int]:
    """First indices k of pairs (k, k + 1) inside one shot, thinned evenly to ``max_pairs``."""
    spans = shots or ([Shot(0, frame_count)] if frame_count else [])
    pairs = [k for shot in spans for k in range(shot.start, min(shot.stop, frame_count) - 1)]
    if max_pairs is None or len(pairs) <= max_pairs:
        return pairs
    return [pairs[int(i)] for i in np.linspace(0, len(pairs) - 1, max_pairs).round()]
