"""What a few frames spread over the shot say about its range, before anything else is read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stf_depth.frames import nearest
from stf_depth.fusion.inputs import ShotInputs, sampled_frames
from stf_depth.fusion.logmap import LogMap
from stf_depth.types import Ambiguity, Float32Array, Float64Array

__all__ = ["Prelook", "look_ahead", "offset_below"]

_POINTS_PER_FRAME = 1500
_MIN_POINTS = 300
_MIN_CONFIDENCE = 0.2
# Under these correlations of network and structure, structure is not used. A line through affine disparity needs
# agreement; a factor needs only that near and far are not swapped, for a network may know nothing of such a scene.
_MIN_CORRELATION = 0.3
_SWAPPED = -0.2


@dataclass(frozen=True)
class Prelook:
    """logmap: how disparity becomes log disparity. structure_unit: factor from the structure's disparity to
    exp(log disparity), None where there is no structure that agrees with the network.
    """

    logmap: LogMap
    structure_unit: float | None


def look_ahead(inputs: ShotInputs, *, use_structure: bool) -> Prelook:
    """Fit the network's disparity to the structure's over a few frames: p ~ unit q + offset, offset 0 unless affine."""
    samples = [_sample(inputs, frame, use_structure) for frame in sampled_frames(len(inputs))]
    values, structure, confidence = (np.concatenate(part) for part in zip(*samples, strict=True))
    if not len(values):
        return Prelook(LogMap(0.0, 1e-6, inputs.ambiguity), None)
    affine = inputs.ambiguity is Ambiguity.AFFINE
    fitted = _fit_structure(values, structure, confidence, affine) if use_structure else None
    if fitted is not None:
        unit, offset = fitted
        ambiguity = Ambiguity.SCALE if affine else inputs.ambiguity
        floor = max(1e-9, 0.02 * unit * float(np.median(structure[confidence > 0])))
        return Prelook(LogMap(offset, floor, ambiguity), unit)
    offset = offset_below(values) if affine else 0.0
    # Of what is solid: where most of the picture is infinitely far, its median would be no scale.
    near = values[values > offset]
    floor = 0.01 * (float(np.median(near)) - offset) if len(near) else 0.0
    return Prelook(LogMap(offset, max(1e-9, floor), inputs.ambiguity), None)


def _sample(inputs: ShotInputs, frame: int, use_structure: bool) -> tuple[Float32Array, Float32Array, Float32Array]:
    disparity = np.asarray(inputs.disparity[frame], np.float32)
    good = np.asarray(inputs.valid[frame], bool) & np.isfinite(disparity)
    structure, confidence = np.zeros_like(disparity), np.zeros_like(disparity)
    if use_structure and inputs.structure is not None:
        maps = (inputs.structure.disparity, inputs.structure.confidence)
        structure, confidence = (nearest(np.asarray(of[frame], np.float32), disparity.shape) for of in maps)
    # At random: every n-th of the pixels may be a few columns of the picture.
    count = int(good.sum())
    picked = np.random.default_rng(frame).choice(count, min(count, _POINTS_PER_FRAME), replace=False, shuffle=False)
    return disparity[good][picked], structure[good][picked], confidence[good][picked]


def _fit_structure(
    values: Float32Array, structure: Float32Array, confidence: Float32Array, affine: bool
) -> tuple[float, float] | None:
    sure = (confidence > _MIN_CONFIDENCE) & (structure > 0)
    if sure.sum() < _MIN_POINTS:
        return None
    p, q, w = (part[sure].astype(np.float64) for part in (values, structure, confidence))
    if not affine:
        usable = p > 0
        log_p, log_q = np.log(p[usable]), np.log(q[usable])
        return (float(np.exp(_median(log_p - log_q, w[usable]))), 0.0) if _agree(log_p, log_q, _SWAPPED) else None
    unit, offset = _robust_line(q, p, w)
    return (unit, offset) if unit > 0 and _agree(p, q, _MIN_CORRELATION) else None


def _agree(p: Float64Array, q: Float64Array, least: float) -> bool:
    """Whether network and structure have a correlation of ``least``; true where either is the same everywhere."""
    if len(p) < _MIN_POINTS:
        return False
    if min(np.std(p), np.std(q)) < 1e-6 * max(np.abs(p).mean(), np.abs(q).mean(), 1e-30):
        return True
    return bool(np.corrcoef(p, q)[0, 1] >= least)


def _robust_line(x: Float64Array, y: Float64Array, weight: Float64Array) -> tuple[float, float]:
    """argmin sum_n w_n rho(a x_n + b - y_n), Cauchy rho, reweighted."""
    reweight = weight
    line = np.zeros(2)
    for _ in range(10):
        root = np.sqrt(reweight)
        design = np.stack([x, np.ones_like(x)], 1) * root[:, None]
        line = np.linalg.lstsq(design, y * root, rcond=None)[0]
        residual = np.abs(line[0] * x + line[1] - y)
        scale = max(1e-12, 1.48 * float(np.median(residual)))
        reweight = weight / (1 + (residual / scale) ** 2)
    return float(line[0]), float(line[1])


def _median(values: Float64Array, weight: Float64Array) -> float:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1])])


def offset_below(values: Float32Array) -> float:
    """A guess at the affine disparity of infinity: 0, but below the smallest values by a tenth to all of their range.

    Most networks of affine disparity leave it near 0. Where it is nowhere near, the whole range is at most halved.
    """
    low, high = np.percentile(values, (0.5, 99.5))
    return float(np.clip(0.0, low - (high - low), low - 0.1 * (high - low)))
