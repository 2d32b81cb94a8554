"""Colour regions without names: watershed cells, merged over weak borders.

Cells grow from the minima of the colour gradient. Neighbours a, b are merged in the order of their border's
contrast w while w <= min(I(a) + k / |a|, I(b) + k / |b|), where I is the strongest border already inside
(Felzenszwalb and Huttenlocher, IJCV 2004, on cells instead of pixels); small rests join their closest neighbour.
No network, no learned weights, the same frame always gives the same regions. Every role is UNKNOWN.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.perception.base import BackendInfo, BackendRequest, check_frames
from stf_depth.types import Float32Array, Int32Array, Role, SegmentInfo, SegmentMaps, Uint8Array

__all__ = ["RegionSegments", "segment_regions"]

VERSION = "regions-2"


class RegionOptions(FrozenConfig):
    """long_side: working size in pixels. merge: k, in Lab units times pixels. min_area: fraction of the frame."""

    long_side: int = Field(320, ge=16, le=2048)
    merge: float = Field(2500.0, ge=0)
    min_area: float = Field(0.0015, ge=0, lt=1)


class RegionSegments:
    """Segments of even colour, numbered from 1 in the order in which they appear from the top left."""

    def __init__(self, request: BackendRequest) -> None:
        self._options = RegionOptions.of(request.options)
        self.info: BackendInfo = request.info(
            f"{VERSION}-opencv-{cv2.__version__}", options=self._options.model_dump(mode="json")
        )

    def infer(self, rgb: Uint8Array) -> SegmentMaps:
        """rgb (N, H, W, 3) uint8 -> regions (N, h, w) with the long side at the working size or below."""
        check_frames(rgb)
        ids = np.stack([segment_regions(frame, self._options) for frame in rgb])
        tables = tuple(
            {number: SegmentInfo(f"region {number}", Role.UNKNOWN) for number in range(1, int(frame.max()) + 1)}
            for frame in ids
        )
        return SegmentMaps(ids, tables)


def segment_regions(frame: Uint8Array, options: RegionOptions) -> Int32Array:
    """(H, W, 3) uint8 -> (h, w) int32 ids from 1."""
    scale = min(1.0, options.long_side / max(frame.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in frame.shape[:2])
    small = np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    if min(height, width) < 8:
        return np.ones((height, width), np.int32)
    smooth = cv2.bilateralFilter(small, 7, 20, 5)
    lab = np.asarray(cv2.cvtColor(smooth.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)
    cells = _cells(np.asarray(smooth, np.uint8), lab)
    pairs, contrast = _borders(cells, lab)
    areas = np.bincount(cells.ravel()).astype(np.float64)
    joined = _merge(pairs, contrast, areas, options.merge, options.min_area * cells.size)
    return _renumber(joined[cells])


def _cells(smooth: Uint8Array, lab: Float32Array) -> NDArray[np.int64]:
    """Watershed cells, numbered from 0."""
    steps = [cv2.Scharr(lab, cv2.CV_32F, dx, dy) for dx, dy in ((1, 0), (0, 1))]
    gradient = np.sqrt(sum((np.asarray(step) ** 2).sum(-1) for step in steps)).astype(np.float32)
    gradient = np.asarray(cv2.GaussianBlur(gradient, (0, 0), 1.5), np.float32)
    lowest = np.asarray(cv2.erode(gradient, np.ones((9, 9), np.uint8)), np.float32)
    _, markers = cv2.connectedComponents((gradient <= lowest + 1e-3).astype(np.uint8), connectivity=8)
    flooded = _flooded(smooth, markers.astype(np.int32))
    # The watershed leaves its lines at -1: each joins the largest label beside it.
    while (flooded <= 0).any():
        grown = cv2.dilate(flooded.astype(np.float32), np.ones((3, 3), np.uint8)).astype(np.int32)
        flooded = np.where(flooded <= 0, grown, flooded)
    return np.unique(flooded, return_inverse=True)[1].reshape(flooded.shape)


def _flooded(smooth: Uint8Array, markers: Int32Array) -> Int32Array:
    """Watershed of markers > 0; lines are -1. Every marker keeps its pixels."""
    # OpenCV overwrites the outer ring of what it is given, where the only minima of a smooth picture may lie.
    framed = cv2.copyMakeBorder(smooth, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    flooded = cv2.watershed(framed, np.pad(markers, 1))
    return np.asarray(flooded[1:-1, 1:-1], np.int32)


def _borders(cells: NDArray[np.int64], lab: Float32Array) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Pairs of touching cells (M, 2) and their contrast: colour distance one pixel to either side, averaged."""
    firsts, seconds, steps = [], [], []
    for axis in (0, 1):
        near, far = _shifted(cells, axis, 1)
        # Two pixels apart, because the line between two cells is blurred.
        before, after = _shifted(lab, axis, 3)
        distance = np.linalg.norm(np.asarray(after, np.float32) - np.asarray(before, np.float32), axis=-1)
        count = distance.shape[axis]
        inner = [slice(None), slice(None)]
        inner[axis] = slice(1, 1 + count)
        near, far = near[tuple(inner)], far[tuple(inner)]
        differs = near != far
        firsts.append(np.minimum(near, far)[differs])
        seconds.append(np.maximum(near, far)[differs])
        steps.append(distance[differs])
    first, second, step = np.concatenate(firsts), np.concatenate(seconds), np.concatenate(steps)
    total = int(cells.max()) + 1
    keys, inverse = np.unique(first * total + second, return_inverse=True)
    contrast = np.bincount(inverse, step) / np.maximum(np.bincount(inverse), 1)
    return np.stack([keys // total, keys % total], 1), contrast


def _shifted(values: NDArray[np.generic], axis: int, step: int) -> tuple[NDArray[np.generic], NDArray[np.generic]]:
    count = values.shape[axis]
    return values.take(range(count - step), axis), values.take(range(step, count), axis)


def _merge(
    pairs: NDArray[np.int64],
    contrast: NDArray[np.float64],
    areas: NDArray[np.float64],
    k: float,
    min_area_px: float,
) -> NDArray[np.int64]:
    """Cell -> root of its region."""
    parent, area, inside = list(range(len(areas))), areas.tolist(), [0.0] * len(areas)

    def root(cell: int) -> int:
        while parent[cell] != cell:
            parent[cell] = parent[parent[cell]]
            cell = parent[cell]
        return cell

    def join(a: int, b: int, weight: float) -> None:
        parent[b] = a
        area[a] += area[b]
        inside[a] = max(inside[a], inside[b], weight)

    order = np.argsort(contrast, kind="stable")
    edges = [(int(pairs[edge, 0]), int(pairs[edge, 1]), float(contrast[edge])) for edge in order]
    for first, second, weight in edges:
        a, b = root(first), root(second)
        if a != b and weight <= min(inside[a] + k / area[a], inside[b] + k / area[b]):
            join(a, b, weight)
    for first, second, weight in edges:
        a, b = root(first), root(second)
        if a != b and min(area[a], area[b]) < min_area_px:
            join(a, b, weight)
    return np.array([root(cell) for cell in range(len(areas))])


def _renumber(ids: NDArray[np.int64]) -> Int32Array:
    """Ids from 1 in the order of their first pixel."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int32)
    rank[np.argsort(first)] = np.arange(1, len(first) + 1)
    return rank[inverse].reshape(ids.shape)
