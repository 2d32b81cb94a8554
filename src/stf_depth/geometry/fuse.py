"""Robust fusion of what several frames say about one surface.

A neighbour is asked where the reference surface projects into it; its answer d_s, at ray q, is brought back along the
pose (R, t): d = d_s / (R^T q - R^T t d_s)_z.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from stf_depth.config import GeometryConfig
from stf_depth.geometry.arrays import as_float32
from stf_depth.types import Float32Array, Float64Array, Intrinsics

__all__ = ["Estimate", "bring", "fuse", "normalised_rays", "pixel_grid", "slabs"]

_MIN_FORWARD = 0.05  # of its depth: points closer to the neighbour's image plane are not looked up
_SLAB_ROWS = 96


@dataclass(frozen=True)
class Estimate:
    """disparity: (H, W) float32, inverse depth. confidence: (H, W) float32 in [0, 1]."""

    disparity: Float32Array
    confidence: Float32Array


def slabs(height: int) -> Iterator[slice]:
    """Rows in parts so small that what is computed on them stays in the processor's cache."""
    return (slice(top, top + _SLAB_ROWS) for top in range(0, height, _SLAB_ROWS))


@lru_cache(maxsize=4)
def pixel_grid(height: int, width: int) -> Float32Array:
    """(x, y) of every pixel, (H, W, 2); not to be written to."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    grid = np.stack([u, v], -1)
    grid.setflags(write=False)
    return grid


def normalised_rays(k: Intrinsics) -> Float32Array:
    """((u - cx) / fx, (v - cy) / fy, 1) of every pixel, (3, H, W)."""
    grid = pixel_grid(k.height_px, k.width_px)
    x, y = (grid[..., 0] - k.cx_px) / k.fx_px, (grid[..., 1] - k.cy_px) / k.fy_px
    return np.stack([x, y, np.ones_like(x)]).astype(np.float32)


def bring(
    neighbour: Estimate,
    disparity: Float32Array,
    motion: Float64Array,
    rays: Float32Array,
    k: Intrinsics,
    *,
    miss_px: float,
    floor: float,
) -> tuple[Float32Array, Float32Array]:
    """A neighbour's (disparity, confidence) at the reference's pixels; confidence 0 where it does not see them.

    motion: neighbour_from_reference (4, 4). disparity: (H, W), where to look. Confidence falls with the distance in
    pixels, in units of miss_px, at which the neighbour's surface comes back. ``floor`` is added to the neighbour's
    confidence first, so that completed surfaces without any measurement are steadied too.
    """
    seen = _moved(_projection(k) @ motion, (*rays, disparity))
    ahead = seen[2] > _MIN_FORWARD
    z = np.where(ahead, seen[2], np.float32(1))
    u, v = seen[0] / z, seen[1] / z
    source = _looked_up(neighbour.disparity, u, v)
    trust = _looked_up(neighbour.confidence, u, v) + np.float32(floor)
    x, y, bz = _moved(np.linalg.inv(motion) @ np.linalg.inv(_projection(k)), (u, v, rays[2], source))
    inside = (u >= 0) & (v >= 0) & (u <= k.width_px - 1) & (v <= k.height_px - 1)
    usable = ahead & inside & (bz > _MIN_FORWARD)
    bz = np.where(usable, bz, np.float32(1))
    # A surface that hides the reference's comes back to another pixel: it says nothing about this one.
    miss = np.square(x / bz - rays[0]) + np.square(y / bz - rays[1])
    trust = np.where(usable, trust / (1 + np.square(miss * np.float32((k.fx_px / miss_px) ** 2))), np.float32(0))
    return as_float32(source / bz), as_float32(trust)


def _projection(k: Intrinsics) -> Float64Array:
    """(x, y, 1, d) -> (u, v, 1, d), 4x4."""
    matrix = np.eye(4)
    matrix[:3, :3] = k.matrix()
    return matrix


def _moved(matrix: Float64Array, channels: tuple[Float32Array, ...]) -> Float32Array:
    """The first three rows of ``matrix`` (4, 4) times the four channels (H, W) at every pixel, (3, H, W)."""
    flat = np.stack(channels).reshape(4, -1)
    return (matrix[:3].astype(np.float32) @ flat).reshape(3, *channels[0].shape)


def _looked_up(values: Float32Array, u: Float32Array, v: Float32Array) -> Float32Array:
    return as_float32(cv2.remap(values, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def fuse(own: Estimate, others: list[tuple[Float32Array, Float32Array]], config: GeometryConfig) -> Estimate:
    """argmin_d sum_i c_i^2 rho((d_i - d) / d), by reweighting with a narrowing Geman-McClure loss.

    others: (disparity, confidence plus floor) of the neighbours at the reference's pixels. Where their root mean square
    is below ``fusion_sure``, the loss is as many times wider: weak measurements scatter, and a narrow loss would pick
    one of them. Confidence becomes the root mean square of the c_i that agree, times the share of the evidence that
    agrees.
    """
    disparity, confidence = np.empty_like(own.disparity), np.empty_like(own.confidence)
    for rows in slabs(len(disparity)):
        values = np.stack([own.disparity[rows], *(value[rows] for value, _ in others)])
        trust = np.stack(
            [own.confidence[rows] + np.float32(config.fusion_floor), *(weight[rows] for _, weight in others)]
        )
        disparity[rows], confidence[rows] = _agreed(values, trust, config)
    return Estimate(disparity, confidence)


def _agreed(values: Float32Array, trust: Float32Array, config: GeometryConfig) -> tuple[Float32Array, Float32Array]:
    power = np.square(trust)
    disparity, weight = values[0], power
    narrowing = np.minimum(np.sqrt(power.mean(0)) / np.float32(config.fusion_sure), 1)
    for width in config.fusion_widths:
        disparity = (weight * values).sum(0) / weight.sum(0)
        ratio = (values / disparity - 1) * (narrowing * np.float32(1 / width))
        weight = power / np.square(1 + np.square(ratio))
    total, evidence = weight.sum(0), power.sum(0)
    disparity = (weight * values).sum(0) / total
    sure = np.maximum(trust - np.float32(config.fusion_floor), 0)
    agreeing = np.sqrt((weight * np.square(sure)).sum(0) / total)
    return disparity, np.minimum(agreeing * np.sqrt(total / evidence), 1)
