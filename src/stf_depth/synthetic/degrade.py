"""Disparity as an unsteady per-frame network would predict it, made from exact or sensor depth."""

from __future__ import annotations

import cv2
import numpy as np
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.types import Ambiguity, BoolArray, DepthMaps, Float32Array, Float64Array, Representation

__all__ = ["DegradeConfig", "degrade"]


class DegradeConfig(FrozenConfig):
    """Relative sizes of the errors; each jitter is half white, half slow over time.

    scale, field: standard deviations of log factors. shift: in units of the median disparity. blur_sigma_px: at the
    depth's own size. slow_frames: time constant of the slow part. field_handles_hw: knots of the low-frequency field.
    """

    scale: float = Field(0.06, ge=0)
    shift: float = Field(0.03, ge=0)
    field_white: float = Field(0.05, ge=0)
    field_slow: float = Field(0.05, ge=0)
    field_handles_hw: tuple[int, int] = (4, 5)
    blur_sigma_px: float = Field(2.0, ge=0)
    slow_frames: float = Field(12.0, gt=0)


def _slow(rng: np.random.Generator, count: int, shape: tuple[int, ...], time_constant: float) -> Float64Array:
    """First-order autoregressive noise of unit variance, (count, *shape)."""
    keep = np.exp(-1 / time_constant)
    white = rng.standard_normal((count, *shape))
    out = np.empty_like(white)
    out[0] = white[0]
    for index in range(1, count):
        out[index] = keep * out[index - 1] + np.sqrt(1 - keep**2) * white[index]
    return np.asarray(out, np.float64)


def _masked_blur(values: Float32Array, valid: BoolArray, sigma_px: float) -> Float32Array:
    if sigma_px == 0:
        return values
    weight = cv2.GaussianBlur(valid.astype(np.float32), (0, 0), sigma_px)
    blurred = cv2.GaussianBlur(np.where(valid, values, np.float32(0)), (0, 0), sigma_px)
    return np.asarray(np.where(valid, blurred / np.maximum(weight, 1e-6), 0), np.float32)


def degrade(depth: Float32Array, seed: int, config: DegradeConfig | None = None) -> DepthMaps:
    """p_t = s_t * f_t(x) * blur(1 / z_t) + b_t with jittering scale s, shift b and low-frequency field f.

    depth: (T, H, W) float32 z in metres; infinite means sky (disparity 0), 0 means unknown (invalid in the result).
    Returns (T, H, W) disparity, ambiguity affine, the same for the same seed.

    >>> import numpy as np
    >>> degrade(np.full((3, 12, 16), 2, np.float32), seed=0).depth.shape
    (3, 12, 16)
    """
    config = config or DegradeConfig()
    rng = np.random.default_rng([seed, 7])
    count, height, width = depth.shape
    valid = ~np.isnan(depth) & (depth > 0)
    disparity = np.where(valid, 1 / np.where(valid, depth, 1), 0).astype(np.float32)
    near = disparity[valid & (disparity > 0)]
    typical = float(np.median(near)) if near.size else 0.0
    half = np.sqrt(0.5)
    scale = half * (rng.standard_normal(count) + _slow(rng, count, (), config.slow_frames))
    shift = half * (rng.standard_normal(count) + _slow(rng, count, (), config.slow_frames))
    handles = config.field_handles_hw
    log_field = config.field_white * rng.standard_normal((count, *handles))
    log_field += config.field_slow * _slow(rng, count, handles, config.slow_frames)
    out = np.empty_like(disparity)
    for index in range(count):
        field = cv2.resize(log_field[index].astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        factor = np.exp(np.float32(config.scale * scale[index]) + field)
        offset = np.float32(config.shift * typical * shift[index])
        out[index] = factor * _masked_blur(disparity[index], valid[index], config.blur_sigma_px) + offset
    out[~valid] = 0
    return DepthMaps(out, valid, Representation.DISPARITY, Ambiguity.AFFINE)
