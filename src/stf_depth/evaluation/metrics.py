"""Depth metrics as pure functions: one clip, one frame or one pair of frames in, one number out.

A clip is scored under one scale and shift for all of its frames. Ground truth is z-depth in metres; predictions
are disparity, with NaN where nothing was predicted. A pixel without a prediction counts as the worse end of the
depth range, so leaving pixels out can never help.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import ShapeError
from stf_depth.types import Ambiguity, BoolArray, Float32Array, Float64Array

__all__ = [
    "ACCURACY",
    "DEPTH_FLOOR_M",
    "Fit",
    "FitSums",
    "Group",
    "Measure",
    "abs_rel",
    "accuracy",
    "accuracy_of",
    "aligned_depth_m",
    "delta",
    "fit_sums",
    "groups_for",
    "inverse_truth",
    "prepare_disparity",
    "project_depth",
    "resize_map",
    "rmse",
    "score_clip",
    "tae",
    "tae_pair",
    "truth_mask",
    "worst_depth_m",
]

Array = NDArray[Any]

ACCURACY = ("abs_rel", "rmse", "delta1", "delta2", "delta3")
DEPTH_FLOOR_M = 1e-3
DISPARITY_FLOOR = 1e-3
TRUTH_EPSILON_M = 1e-8
# A prediction whose spread is below this share of its own size is a constant: its scale cannot be known.
FLAT_RELATIVE_SPREAD = 1e-20
BAND_ROWS = 32  # rows projected at once: small enough to stay in the processor's cache


class Group(StrEnum):
    """What a prediction may borrow from the ground truth: nothing, one factor, or a factor and an offset."""

    METRIC = "metric"
    SCALE = "scale"
    AFFINE = "affine"


def groups_for(ambiguity: Ambiguity | str) -> tuple[Group, ...]:
    """The groups that a prediction promises to satisfy, strongest first, down to the weakest."""
    order = list(Group)
    return tuple(order[order.index(Group(Ambiguity(ambiguity).value)) :])


@dataclass(frozen=True)
class Measure:
    """A number, or NaN with the reason why there is none."""

    value: float
    reason: str = ""

    @classmethod
    def without_support(cls, reason: str) -> Measure:
        """NaN, because of ``reason``."""
        return cls(math.nan, reason)


@dataclass(frozen=True)
class Fit:
    """1 / z = scale * p + shift."""

    scale: float
    shift: float
    is_degenerate: bool = False


@dataclass(frozen=True)
class FitSums:
    """Centred second moments of (p, q) over any number of pixels; ``+`` merges those of two sets of pixels.

    Centring keeps predictions with a large offset accurate, which plain sums of squares would not (Chan, Golub and
    LeVeque 1983).
    """

    count: int = 0
    mean_p: float = 0.0
    mean_q: float = 0.0
    spread_pp: float = 0.0
    spread_pq: float = 0.0

    def __add__(self, other: FitSums) -> FitSums:
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        dp, dq = other.mean_p - self.mean_p, other.mean_q - self.mean_q
        weight = self.count * other.count / count
        return FitSums(
            count,
            self.mean_p + dp * other.count / count,
            self.mean_q + dq * other.count / count,
            self.spread_pp + other.spread_pp + dp * dp * weight,
            self.spread_pq + other.spread_pq + dp * dq * weight,
        )

    def solve(self, group: Group | str) -> Fit:
        """argmin over (scale, shift) of sum (scale p + shift - q)^2; ``scale`` fixes shift 0, ``metric`` both.

        A constant prediction gives scale 0 and the mean of q, marked as degenerate.
        """
        group = Group(group)
        if group is Group.METRIC:
            return Fit(1.0, 0.0, self.count == 0)
        raw_pp = self.spread_pp + self.count * self.mean_p**2
        if group is Group.SCALE:
            if raw_pp == 0:
                return Fit(0.0, 0.0, True)
            return Fit((self.spread_pq + self.count * self.mean_p * self.mean_q) / raw_pp, 0.0)
        if self.spread_pp <= FLAT_RELATIVE_SPREAD * raw_pp:
            return Fit(0.0, self.mean_q, True)
        scale = self.spread_pq / self.spread_pp
        return Fit(scale, self.mean_q - scale * self.mean_p)


def truth_mask(truth_m: Array, d_max_m: float) -> BoolArray:
    """(truth > 1e-3) and (truth < d_max); non-finite ground truth is not valid."""
    with np.errstate(invalid="ignore"):
        mask: BoolArray = (truth_m > DEPTH_FLOOR_M) & (truth_m < d_max_m)
    return mask


def prepare_disparity(disparity: Array, height_px: int, width_px: int) -> Float32Array:
    """Resize one disparity frame (h, w) bilinearly to (height, width), then max(p, 1e-3); NaN stays NaN."""
    if disparity.ndim != 2:
        raise ShapeError("a disparity frame has two axes", got=disparity.shape)
    values: Array = np.asarray(disparity, np.float32)
    values = np.where(np.isfinite(values), values, np.float32(np.nan))
    out: Float32Array = np.maximum(resize_map(values, height_px, width_px), np.float32(DISPARITY_FLOOR))
    return out


def resize_map(values: Array, height_px: int, width_px: int) -> Float32Array:
    """One map (h, w) float32 bilinearly at (height, width)."""
    if values.shape == (height_px, width_px):
        return np.asarray(values, np.float32)
    return np.asarray(cv2.resize(values, (width_px, height_px), interpolation=cv2.INTER_LINEAR), np.float32)


def inverse_truth(truth_m: Array) -> Float64Array:
    """1 / (truth + 1e-8), float64: what predictions are fitted to."""
    return 1.0 / (np.asarray(truth_m, np.float64) + TRUTH_EPSILON_M)


def fit_sums(disparity: Array, truth_m: Array, valid: BoolArray) -> FitSums:
    """Moments of the valid pixels that have a finite prediction, for the least squares over a whole clip."""
    p, g = disparity[valid].astype(np.float64), truth_m[valid]
    known = np.isfinite(p)
    if not known.all():
        p, g = p[known], g[known]
    if not p.size:
        return FitSums()
    q = inverse_truth(g)
    mean_p, mean_q = float(p.mean()), float(q.mean())
    dp = p - mean_p
    return FitSums(p.size, mean_p, mean_q, float(dp @ dp), float(dp @ (q - mean_q)))


def aligned_depth_m(disparity: Array, fit: Fit, d_max_m: float) -> Float64Array:
    """clip(1 / max(scale p + shift, 1e-3), 1e-3, d_max), float64 metres; NaN stays NaN."""
    inverse = np.maximum(fit.scale * np.asarray(disparity, np.float64) + fit.shift, DISPARITY_FLOOR)
    depth = np.divide(1.0, inverse, out=inverse)
    return np.clip(depth, DEPTH_FLOOR_M, d_max_m, out=depth)


def worst_depth_m(truth_m: Array, d_max_m: float) -> Float64Array:
    """The end of [1e-3, d_max] with the larger |z - g| / g: the score of a pixel without a prediction."""
    truth = np.asarray(truth_m, np.float64)
    return np.where(d_max_m - truth >= truth - DEPTH_FLOOR_M, d_max_m, DEPTH_FLOOR_M)


def accuracy(depth_m: Array, truth_m: Array, valid: BoolArray, *, d_max_m: float) -> dict[str, float]:
    """``abs_rel``, ``rmse``, ``delta1`` to ``delta3`` of one frame, and ``failed_pixels``, in one pass.

    depth_m, truth_m: (H, W) metres. valid: (H, W) bool. Every value is NaN without a valid pixel, but for the count.
    """
    if not depth_m.shape == truth_m.shape == valid.shape:
        raise ShapeError("depth, truth and mask must agree", got=(depth_m.shape, truth_m.shape, valid.shape))
    return accuracy_of(np.asarray(depth_m[valid], np.float64), truth_m[valid].astype(np.float64), d_max_m=d_max_m)


def accuracy_of(z: Float64Array, g: Float64Array, *, d_max_m: float) -> dict[str, float]:
    """``accuracy`` of the valid pixels alone: z, g (N,) float64 metres; a non-finite z is a failed prediction."""
    if not z.size:
        return dict.fromkeys(ACCURACY, math.nan) | {"failed_pixels": 0.0}
    failed = ~np.isfinite(z)
    count = int(np.count_nonzero(failed))
    if count:
        z = np.where(failed, worst_depth_m(g, d_max_m), z)
    error = z - g
    squares = float(error @ error)
    relative = np.divide(np.abs(error, out=error), g, out=error)
    ratio = np.maximum(z / g, g / z)
    if count:
        ratio[failed] = np.inf
    inside = {f"delta{power}": int(np.count_nonzero(ratio < 1.25**power)) / z.size for power in (1, 2, 3)}
    rms = math.sqrt(squares / z.size)
    return {"abs_rel": float(relative.mean()), "rmse": rms, **inside, "failed_pixels": count}


def abs_rel(depth_m: Array, truth_m: Array, valid: BoolArray, *, d_max_m: float) -> float:
    """mean over valid of |z - g| / g; NaN without a valid pixel. A non-finite z counts as the worst depth."""
    return accuracy(depth_m, truth_m, valid, d_max_m=d_max_m)["abs_rel"]


def rmse(depth_m: Array, truth_m: Array, valid: BoolArray, *, d_max_m: float) -> float:
    """sqrt(mean over valid of (z - g)^2), metres; NaN without a valid pixel. Non-finite z as in ``abs_rel``."""
    return accuracy(depth_m, truth_m, valid, d_max_m=d_max_m)["rmse"]


def delta(depth_m: Array, truth_m: Array, valid: BoolArray, *, power: int, d_max_m: float) -> float:
    """mean over valid of [max(z/g, g/z) < 1.25^power]; NaN without a valid pixel. A non-finite z is never inside.

    power: 1, 2 or 3.
    """
    return accuracy(depth_m, truth_m, valid, d_max_m=d_max_m)[f"delta{power}"]


def project_depth(depth_m: Array, K: Float64Array, target_from_source: Float64Array, *, z_buffer: bool) -> Float64Array:
    """Depth of the source frame as the target camera sees it, (H, W) float64 metres, NaN where nothing lands.

    Each pixel is back-projected with K, moved by ``target_from_source`` (4, 4), projected, and rounded to the nearest
    pixel. With ``z_buffer`` the nearest surface wins; without, the last pixel in row order does.
    """
    height, width = depth_m.shape
    H = K @ target_from_source[:3, :3] @ np.linalg.inv(K)
    offset = K @ target_from_source[:3, 3]
    out = np.full(height * width, np.inf)
    for top in range(0, height, BAND_ROWS):
        band = np.asarray(depth_m[top : top + BAND_ROWS], np.float64)
        index, z = _project_band(band, top, H, offset, height)
        if z_buffer:
            np.minimum.at(out, index, z)
        else:
            out[index] = z
    out[np.isinf(out)] = np.nan
    return out.reshape(height, width)


def _project_band(
    z: Float64Array, top: int, H: Float64Array, offset: Float64Array, height: int
) -> tuple[NDArray[np.intp], Float64Array]:
    """Cell and depth of what lands of some rows: q = z H (u, v, 1) + K t, where q_z is the depth in the target."""
    rows, width = z.shape
    u, v = np.arange(width, dtype=np.float64)[None], np.arange(top, top + rows, dtype=np.float64)[:, None]
    qx, qy, qz = (H[i, 0] * u + (H[i, 1] * v + H[i, 2]) for i in range(3))
    # In place: the arrays stay in the processor's cache.
    for axis, q in enumerate((qx, qy, qz)):
        q *= z
        q += offset[axis]
    with np.errstate(invalid="ignore", divide="ignore"):
        x, y = (np.rint(np.divide(q, qz, out=q), out=q) for q in (qx, qy))
    lands = (qz > 0) & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    cells = np.flatnonzero(lands)
    index = (y * width + x).ravel().take(cells).astype(np.intp)
    return index, qz.ravel().take(cells)


def tae_pair(
    source_m: Array,
    target_m: Array,
    K: Float64Array,
    target_from_source: Float64Array,
    *,
    valid: tuple[BoolArray, BoolArray] | None = None,
    z_buffer: bool = True,
) -> Measure:
    """mean |z - zhat| / z over the target's pixels that the projected source covers, one direction of one pair.

    A pixel without a prediction, in either frame, counts as an error of 1 where it is ``valid`` (source, target),
    everywhere when None. Without overlap: NaN and the reason.
    """
    if source_m.shape != target_m.shape:
        raise ShapeError("the frames of a pair must have one size", expected=source_m.shape, got=target_m.shape)
    projected = project_depth(source_m, K, target_from_source, z_buffer=z_buffer)
    target = np.asarray(target_m, np.float64)
    error = np.subtract(target, projected, out=projected)
    error = np.divide(np.abs(error, out=error), target, out=error)
    unknown = ~np.isfinite(error)
    failed = sum(_failed(frame, None if valid is None else valid[k]) for k, frame in enumerate((source_m, target)))
    count = error.size - int(np.count_nonzero(unknown)) + failed
    if not count:
        return Measure.without_support("no overlap")
    error[unknown] = 0.0
    return Measure((float(error.sum()) + failed) / count)


def _failed(depth_m: Array, valid: BoolArray | None) -> int:
    missing = ~np.isfinite(depth_m)
    return int(np.count_nonzero(missing if valid is None else missing & valid))


def tae(depth_m: Array, world_from_cam: Float64Array, K: Float64Array, *, valid: BoolArray | None = None) -> Measure:
    """100 sum_k (err(k -> k+1) + err(k+1 -> k)) / (2 (N - 1)), percent, of an aligned clip (N, H, W) in metres.

    world_from_cam: (N, 4, 4). K: (3, 3), pixels at the size of ``depth_m``. NaN pixels are failed predictions where
    ``valid`` (N, H, W), everywhere when None; NaN and the reason come back for fewer than two frames and when a pair
    has no overlap. Alignment error of Video Depth Anything (Chen et al. 2025), with a z-buffer.
    """
    if len(depth_m) < 2:
        return Measure.without_support("fewer than two frames")
    total = 0.0
    for k in range(len(depth_m) - 1):
        forward = np.linalg.inv(world_from_cam[k + 1]) @ world_from_cam[k]
        for source, target, motion in ((k, k + 1, forward), (k + 1, k, np.linalg.inv(forward))):
            known = None if valid is None else (valid[source], valid[target])
            error = tae_pair(depth_m[source], depth_m[target], K, motion, valid=known)
            if math.isnan(error.value):
                return Measure.without_support(f"frames {source} and {target}: {error.reason}")
            total += error.value
    return Measure(100.0 * total / (2 * (len(depth_m) - 1)))


def score_clip(
    disparity: Array,
    truth_m: Array,
    *,
    group: Group | str,
    d_max_m: float,
    world_from_cam: Float64Array | None = None,
    K: Float64Array | None = None,
) -> dict[str, float]:
    """Whole-clip AbsRel, RMSE (metres), delta1-3 and, with poses (T, 4, 4) and K (3, 3), TAE of arrays in memory.

    disparity: (T, h, w), NaN = no prediction. truth_m: (T, H, W), 0 = none; K at that size. Frames without ground
    truth are left out of the accuracy.
    """
    if len(disparity) != len(truth_m):
        raise ShapeError("prediction and ground truth differ in frames", expected=len(truth_m), got=len(disparity))
    prepared = np.stack([prepare_disparity(frame, *truth_m.shape[1:]) for frame in disparity])
    valid = truth_mask(truth_m, d_max_m)
    depth_m = aligned_depth_m(prepared, fit_sums(prepared, truth_m, valid).solve(group), d_max_m)
    frames = [
        accuracy(depth_m[k], truth_m[k], valid[k], d_max_m=d_max_m) for k in range(len(truth_m)) if valid[k].any()
    ]
    scores = {name: float(np.mean([frame[name] for frame in frames])) if frames else math.nan for name in ACCURACY}
    if world_from_cam is not None and K is not None:
        scores["tae"] = tae(depth_m, world_from_cam, K, valid=valid).value
    return scores
