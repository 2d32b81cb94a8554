"""Stability over time: flow-warp errors, temporal gradient matching, scale drift.

Flow-warp errors need no ground truth, so they work on any clip. They reward over-smooth depth, hence belong beside a
measure of sharpness.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import ShapeError
from stf_depth.evaluation.flow_links import FlowLink, FlowLinker, neighbour_pairs, reduced_wh, sample
from stf_depth.evaluation.metrics import Measure, worst_depth_m
from stf_depth.types import BoolArray, Float32Array, Float64Array, Frames, Shot, Uint8Array
from stf_depth.video.resize import resize_area

__all__ = [
    "ClipRange",
    "clip_range",
    "flicker",
    "flicker_measure",
    "flicker_measures",
    "flow_scale",
    "opw_abs_rel_pair",
    "opw_nvds_pair",
    "read_disparity",
    "scale_drift",
    "scale_of",
    "tgm_pair",
]

Array = NDArray[Any]

RANGE_PERCENTILES = (1.0, 99.0)
RANGE_FLOOR = 0.1
RANGE_FRAMES = 32
TGM_STATIC_M = 0.05
NVDS_COLOUR_WEIGHT = 50.0
NVDS_GAIN = 10.0


@dataclass(frozen=True)
class ClipRange:
    """The affine map that sends [low, high] to [0.1, 1], one for all frames of a clip.

    It gives affine-invariant disparity a size to compare errors with: as if the clip's far end were ten times as far
    as its near end. Values beyond the ends are clipped.
    """

    low: float
    high: float

    def normalise(self, values: Float32Array) -> Float32Array:
        """(values - low) / (high - low), clipped to [0, 1], then onto [0.1, 1]; NaN stays NaN."""
        unit = np.clip((values - np.float32(self.low)) / np.float32(self.high - self.low), 0, 1)
        out: Float32Array = np.float32(RANGE_FLOOR) + np.float32(1 - RANGE_FLOOR) * unit
        return out


def read_disparity(
    disparity: Frames, index: int, size_wh: tuple[int, int], valid: Frames | None = None
) -> Float32Array:
    """Frame ``index`` at ``size_wh``, edges aligned: means where it shrinks, linear where it grows.

    NaN where it, or a pixel it is made of, has no prediction.
    """
    values: Float32Array = np.asarray(disparity[index], np.float32)
    known = np.isfinite(values) if valid is None else np.isfinite(values) & np.asarray(valid[index], bool)
    values = np.where(known, values, np.float32(np.nan))
    if (values.shape[1], values.shape[0]) != size_wh:
        values = resize_area(values, size_wh)
    return values


def clip_range(
    disparity: Frames, size_wh: tuple[int, int], valid: Frames | None = None, *, frames: int = RANGE_FRAMES
) -> ClipRange | None:
    """1st and 99th percentile over evenly spaced frames; None for a constant or empty clip."""
    picks = np.unique(np.linspace(0, max(len(disparity) - 1, 0), frames).round().astype(int))
    values = [read_disparity(disparity, int(k), size_wh, valid).ravel() for k in picks if k < len(disparity)]
    finite = np.concatenate(values) if values else np.zeros(0, np.float32)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return None
    low, high = (float(v) for v in np.percentile(finite, RANGE_PERCENTILES))
    return ClipRange(low, high) if high - low > 1e-6 * max(abs(low), abs(high)) else None


def opw_abs_rel_pair(first: Float32Array, second: Float32Array, link: FlowLink) -> Measure:
    """mean over consistent pixels of |second(x + f) - first(x)| / first(x), of range-normalised frames (H, W).

    A consistent pixel without a prediction in either frame counts as an error of 1.
    """
    if not link.consistent.any():
        return Measure.without_support("no consistent flow")
    before = first[link.consistent].astype(np.float64)
    after = sample(second, link.xy_px)[link.consistent].astype(np.float64)
    error = np.abs(after - before) / before
    return Measure(float(np.where(np.isfinite(error), error, 1.0).mean()))


def _median_normalised(values: Float32Array) -> Float64Array | None:
    finite = values[np.isfinite(values)].astype(np.float64)
    if not finite.size:
        return None
    median = np.median(finite)
    spread = np.mean(np.abs(finite - median))
    return (values - median) / spread if spread > 0 else None


def opw_nvds_pair(
    previous: Float32Array, current: Float32Array, previous_rgb: Uint8Array, current_rgb: Uint8Array, link: FlowLink
) -> Measure:
    """10 mean(w |d - warp d'|), w = sum_c exp(-50 (I - warp I')^2), colours 0..255 (NVDS, Wang et al., ICCV 2023).

    Each map is normalised by (x - median) / mean|x - median|, then the previous one is warped backward to the
    current. No occlusion mask; outside the previous frame both warps are 0. link: from ``previous`` to ``current``.
    Comparable with published tables only when the flow is GMFlow. NaN and the reason for a constant or empty map.
    """
    maps = [_median_normalised(values) for values in (previous, current)]
    if maps[0] is None or maps[1] is None:
        return Measure.without_support("constant or empty prediction")
    warped = sample(maps[0].astype(np.float32), link.backward_xy_px, outside=0.0)
    warped_rgb = sample(previous_rgb.astype(np.float32), link.backward_xy_px, outside=0.0)
    weight = np.exp(-NVDS_COLOUR_WEIGHT * (current_rgb.astype(np.float64) - warped_rgb) ** 2).sum(-1)
    difference = np.abs(maps[1] - warped)
    # A missing value differs by as much as the two maps can differ anywhere.
    finite = np.isfinite(difference)
    worst = float(np.nanmax(maps[1]) - np.nanmin(maps[1]) + np.nanmax(maps[0]) - np.nanmin(maps[0]))
    return Measure(NVDS_GAIN * float(np.mean(weight * np.where(finite, difference, worst))))


def tgm_pair(
    depth_m: Array, next_depth_m: Array, truth_m: Array, next_truth_m: Array, valid: BoolArray, *, d_max_m: float
) -> Measure:
    """mean of | |z' - z| - |g' - g| | over valid pixels with |g' - g| < 0.05, metres (temporal gradient matching).

    valid: (H, W) bool, ground truth in both frames. A pixel without a prediction counts as its worst depth.
    """
    change = np.abs(next_truth_m.astype(np.float64) - truth_m)
    static = valid & (change < TGM_STATIC_M)
    if not static.any():
        return Measure.without_support("no pixel whose ground truth stays within 0.05 m")
    error = np.abs(np.abs(next_depth_m - depth_m) - change)[static]
    failed = ~np.isfinite(error)
    if failed.any():
        g = truth_m[static][failed]
        error[failed] = np.abs(worst_depth_m(g, d_max_m) - g)
    return Measure(float(error.mean()))


def scale_of(p: Float64Array, g: Float64Array) -> float:
    """argmin_s sum of (s p - 1/g)^2, p the disparity after the whole-clip fit, g the depth, both (N,) float64.

    Pixels where p is NaN do not count; 0 without a prediction.
    """
    known = np.isfinite(p)
    if not known.all():
        p, g = p[known], g[known]
    power = float(p @ p)
    return float(p @ (1.0 / g)) / power if power > 0 else 0.0


def scale_drift(scales: Sequence[float] | Float64Array, predicted_shares: Sequence[float] | None = None) -> Measure:
    """std(s_t) / mean(s_t) of the per-frame scales; NaN and the reason for fewer than two frames.

    predicted_shares: (T,) share of the pixels with ground truth that were predicted; the rest has scale 0 and so
    adds to the spread.
    """
    values = np.asarray(scales, np.float64)
    if values.size < 2:
        return Measure.without_support("fewer than two frames")
    shares = np.ones(values.size) if predicted_shares is None else np.asarray(predicted_shares, np.float64)
    mean = float((shares * values).mean())
    if not math.isfinite(mean) or mean <= 0:
        return Measure.without_support("the mean scale is not positive")
    variance = float((shares * (values - mean) ** 2 + (1 - shares) * mean**2).mean())
    return Measure(math.sqrt(variance) / mean)


def flow_scale(first: Float32Array, second: Float32Array, link: FlowLink) -> float:
    """argmin_s sum over consistent pixels of (s second(x + f) - first(x))^2; NaN without support."""
    after = sample(second, link.xy_px)
    use = link.consistent & np.isfinite(after) & np.isfinite(first)
    a, b = after[use].astype(np.float64), first[use].astype(np.float64)
    power = float(a @ a)
    return float(a @ b) / power if power > 0 else math.nan


def flicker_measure(
    disparity: Frames,
    rgb: Frames,
    *,
    valid: Frames | None = None,
    shots: Sequence[Shot] = (),
    max_pairs: int | None = 60,
    long_side_px: int = 320,
) -> Measure:
    """100 times the mean ``opw_abs_rel_pair`` over evenly spaced neighbour pairs, percent; lower is steadier.

    disparity: (T, h, w) float, NaN or not ``valid`` = no prediction. rgb: (T, H, W, 3) uint8. Both are read one
    frame at a time. Pairs never cross a border between ``shots``.
    """
    stacks = [(disparity, valid)]
    return flicker_measures(stacks, rgb, shots=shots, max_pairs=max_pairs, long_side_px=long_side_px)[0]


def flicker_measures(
    stacks: Sequence[tuple[Frames, Frames | None]],
    rgb: Frames,
    *,
    shots: Sequence[Shot] = (),
    max_pairs: int | None = 60,
    long_side_px: int = 320,
) -> list[Measure]:
    """``flicker_measure`` of several stacks (disparity, valid) of one clip; the flow is computed once for all.

    Raises ShapeError when they differ in length.
    """
    counts = {len(disparity) for disparity, _ in stacks}
    if len(counts) != 1:
        raise ShapeError("depths of one clip must have one length", got=sorted(counts))
    indices = neighbour_pairs(counts.pop(), shots=shots, max_pairs=max_pairs)
    if not indices:
        return [Measure.without_support("fewer than two frames in every shot")] * len(stacks)
    linker = FlowLinker(long_side_px=long_side_px)
    height, width = np.asarray(rgb[indices[0]]).shape[:2]
    size_wh = reduced_wh(width, height, long_side_px)
    limits = [clip_range(disparity, size_wh, valid) for disparity, valid in stacks]
    errors: list[list[float]] = [[] for _ in stacks]
    for k, _, _, link in linker.pairs(rgb, indices):
        for (disparity, valid), limit, found in zip(stacks, limits, errors, strict=True):
            if limit is not None:
                pair = [limit.normalise(read_disparity(disparity, i, size_wh, valid)) for i in (k, k + 1)]
                found.append(opw_abs_rel_pair(pair[0], pair[1], link).value)
    return [_mean_percent(found, limit) for found, limit in zip(errors, limits, strict=True)]


def _mean_percent(errors: list[float], limits: ClipRange | None) -> Measure:
    if limits is None:
        return Measure.without_support("constant or empty prediction")
    known = [error for error in errors if not math.isnan(error)]
    return Measure(100.0 * float(np.mean(known))) if known else Measure.without_support("no consistent flow")


def flicker(
    disparity: Frames, rgb: Frames, *, valid: Frames | None = None, shots: Sequence[Shot] = (), max_pairs: int = 60
) -> float:
    """``flicker_measure`` as a plain number, percent; NaN where it has no support."""
    return flicker_measure(disparity, rgb, valid=valid, shots=shots, max_pairs=max_pairs).value
