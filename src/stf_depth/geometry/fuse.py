"""Robust fusion of what several frames say about one surface.

A neighbour is asked where the reference surface projects into it; its answer d_s, at ray q, is brought back along the
pose (R, t): d = d_s / (R^T q - R^T t d_s)_z. ``warps.sample_disparity`` is the same on torch with all its checks.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from stf_depth.config import GeometryConfig
from stf_depth.geometry.arrays import as_float32
from stf_depth.types import Float32Array, Float64Array, Intrinsics

__all__ = ["Estimate", "bring", "fuse", "normalised_rays", "pixel_grid"]

_MIN_FORWARD = 0.05  # of its depth: points closer to the neighbour's image plane are not looked up


@dataclass(frozen=True)
class Estimate:
    """disparity: (H, W) float32, inverse depth. confidence: (H, W) float32 in [0, 1]."""

    disparity: Float32Array
    confidence: Float32Array


def pixel_grid(height: int, width: int) -> Float32Array:
    """(x, y) of every pixel, (H, W, 2)."""
    v, u = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([u, v], -1)


def normalised_rays(k: Intrinsics) -> Float32Array:
    """((u - cx) / fx, (v - cy) / fy, 1) of every pixel, (3, H, W)."""
    grid = pixel_grid(k.height_px, k.width_px)
    x, y = (grid[..., 0] - k.cx_px) / k.fx_px, (grid[..., 1] - k.cy_px) / k.fy_px
    return np.stack([x, y, np.ones_like(x)]).astype(np.float32)


def moved(motion: Float64Array, rays: Float32Array, disparity: Float32Array) -> Float32Array:
    """R r + t d of every pixel, (3, H, W)."""
    m = motion.astype(np.float32)
    rows = [m[i, 0] * rays[0] + m[i, 1] * rays[1] + m[i, 2] + m[i, 3] * disparity for i in range(3)]
    return np.stack(rows)


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
    x, y, z = moved(motion, rays, disparity)
    z = np.where(z > _MIN_FORWARD, z, np.float32(np.nan))
    qx, qy = x / z, y / z
    u, v = qx * np.float32(k.fx_px) + np.float32(k.cx_px), qy * np.float32(k.fy_px) + np.float32(k.cy_px)
    both = np.stack([neighbour.disparity, neighbour.confidence + np.float32(floor)], -1)
    found = cv2.remap(both, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    source, trust = found[..., 0], found[..., 1]
    m = motion[:3].astype(np.float32)
    back = m[:, :3].T @ m[:, 3]
    bx, by, bz = (m[0, i] * qx + m[1, i] * qy + m[2, i] - back[i] * source for i in range(3))
    usable = (u >= 0) & (v >= 0) & (u <= k.width_px - 1) & (v <= k.height_px - 1) & (bz > _MIN_FORWARD)
    bz = np.where(usable, bz, np.float32(1))
    # A surface that hides the reference's comes back to another pixel: it says nothing about this one.
    miss = (np.square(bx / bz - rays[0]) + np.square(by / bz - rays[1])) * np.float32((k.fx_px / miss_px) ** 2)
    trust = np.where(usable, trust / (1 + np.square(miss)), np.float32(0))
    return as_float32(source / bz), as_float32(trust)


def fuse(own: Estimate, others: list[tuple[Float32Array, Float32Array]], config: GeometryConfig) -> Estimate:
    """argmin_d sum_i c_i^2 rho((d_i - d) / d), by reweighting with a narrowing Geman-McClure loss.

    others: (disparity, confidence plus floor) of the neighbours at the reference's pixels. Confidence becomes the
    root mean square of the c_i that agree, times the share of the evidence that agrees.
    """
    values = np.stack([own.disparity, *(value for value, _ in others)])
    floor = np.float32(config.fusion_floor)
    trust = np.stack([own.confidence + floor, *(weight for _, weight in others)])
    power = np.square(trust)
    disparity = own.disparity
    weight = power
    for width in config.fusion_widths:
        disparity = (weight * values).sum(0) / weight.sum(0)
        ratio = (values / disparity - 1) * np.float32(1 / width)
        weight = power / np.square(1 + np.square(ratio))
    total, evidence = weight.sum(0), power.sum(0)
    disparity = (weight * values).sum(0) / total
    agreeing = np.sqrt((weight * np.square(np.maximum(trust - floor, 0))).sum(0) / total)
    confidence = np.minimum(agreeing * np.sqrt(total / evidence), 1)
    return Estimate(disparity, confidence.astype(np.float32))
