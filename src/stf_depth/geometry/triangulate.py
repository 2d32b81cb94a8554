"""Inverse depth of one frame from the optical flow to several others.

Each source is first warped to the reference by the prior depth, so that the flow only has to find what the prior
leaves. A source that shows ray r at q (normalised coordinates) says d (t_xy - q t_z) = q (R r)_z - (R r)_xy; inverse
depth d minimises the sum of Cauchy losses of these residuals in pixels over all sources.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np

from stf_depth.config import GeometryConfig
from stf_depth.geometry.arrays import as_float32, as_uint8
from stf_depth.geometry.fuse import Estimate, normalised_rays, pixel_grid, slabs
from stf_depth.types import Float32Array, Float64Array, Intrinsics, Uint8Array

__all__ = ["FlowMatcher", "triangulate"]

# Slope (2, H, W), value (2, H, W) and weight (H, W) of one source.
Equation = tuple[Float32Array, Float32Array, Float32Array]


class FlowMatcher:
    """Dense matches between gray pictures by DIS optical flow, checked by matching back."""

    def __init__(self, config: GeometryConfig) -> None:
        presets = {"fast": cv2.DISOPTICAL_FLOW_PRESET_FAST, "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM}
        self._preset = presets[config.flow_preset]
        self._of_thread = threading.local()  # a DIS object keeps its pyramids: one for each thread

    def match(self, reference: Uint8Array, source: Uint8Array) -> tuple[Float32Array, Float32Array]:
        """Flow (H, W, 2) in pixels from reference to source, and its forward-backward error (H, W) in pixels."""
        ahead, back = self._between(reference, source), self._between(source, reference)
        at = ahead + pixel_grid(*reference.shape)
        returned = cv2.remap(back, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        difference = ahead + returned
        return ahead, np.hypot(difference[..., 0], difference[..., 1])

    def _between(self, first: Uint8Array, second: Uint8Array) -> Float32Array:
        # DIS starts from the flow that it is given.
        flow = np.zeros((*first.shape, 2), np.float32)
        if not hasattr(self._of_thread, "dis"):
            self._of_thread.dis = cv2.DISOpticalFlow.create(self._preset)
        return as_float32(self._of_thread.dis.calc(first, second, flow))


def triangulate(
    reference: Uint8Array,
    sources: list[tuple[Uint8Array, Float64Array]],
    prior: Float32Array,
    intrinsics: Intrinsics,
    matcher: FlowMatcher,
    config: GeometryConfig,
) -> Estimate:
    """Inverse depth of ``reference`` (H, W) uint8 gray.

    sources: gray pictures of the same size, each with ``source_from_reference`` (4, 4). prior: (H, W) inverse depth,
    positive. Confidence falls with the residual and the forward-backward error in pixels, with missing parallax and
    with missing texture; it is 0 everywhere without sources.
    """
    if not sources:
        return Estimate(prior, np.zeros_like(prior))
    rays = normalised_rays(intrinsics)
    system = _System(prior)
    for picture, motion in sources:
        system.add(*_equation(reference, picture, motion.astype(np.float32), prior, rays, intrinsics, matcher, config))
    disparity, residual_px, support, parallax_px = system.solve(config)
    quality = np.exp(-residual_px) * support * (1 - np.exp(-parallax_px / config.parallax_px))
    confidence = quality * texture_share(reference, config)
    usable = disparity > config.min_disparity
    return Estimate(np.where(usable, disparity, prior), np.where(usable, confidence, 0).astype(np.float32))


def _equation(
    reference: Uint8Array,
    picture: Uint8Array,
    motion: Float32Array,
    prior: Float32Array,
    rays: Float32Array,
    k: Intrinsics,
    matcher: FlowMatcher,
    config: GeometryConfig,
) -> tuple[Float32Array, Float32Array, Float32Array]:
    """Slope (2, H, W) and value (2, H, W) in pixels of slope * d = value, and the match's weight (H, W)."""
    turned = [sum(motion[row, column] * rays[column] for column in range(3)) for row in range(3)]
    shift = motion[:3, 3]
    forward = turned[2] + shift[2] * prior
    safe = np.maximum(forward, np.float32(1e-3))
    u = k.fx_px * (turned[0] + shift[0] * prior) / safe + k.cx_px
    v = k.fy_px * (turned[1] + shift[1] * prior) / safe + k.cy_px
    place = np.stack([u, v], -1).astype(np.float32)
    warped = cv2.remap(picture, place[..., 0], place[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    flow, error = matcher.match(reference, as_uint8(warped))
    at = flow + pixel_grid(*reference.shape)
    found = cv2.remap(place, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = (forward > 0.05) & (found >= 0).all(-1)
    inside &= (found[..., 0] <= k.width_px - 1) & (found[..., 1] <= k.height_px - 1)
    weight = np.where(inside, np.exp(-np.square(error / np.float32(config.flow_error_px))), 0).astype(np.float32)
    qx, qy = (found[..., 0] - k.cx_px) / k.fx_px, (found[..., 1] - k.cy_px) / k.fy_px
    to_px = (k.fx_px / safe).astype(np.float32)
    slope = np.stack([shift[0] - qx * shift[2], shift[1] - qy * shift[2]]) * to_px
    value = np.stack([qx * turned[2] - turned[0], qy * turned[2] - turned[1]]) * to_px
    return slope.astype(np.float32), value.astype(np.float32), weight


class _System:
    """Equations of all sources of one frame, one unknown a pixel."""

    def __init__(self, prior: Float32Array) -> None:
        self._prior = prior
        self._rows: list[Equation] = []

    def add(self, slope: Float32Array, value: Float32Array, weight: Float32Array) -> None:
        self._rows.append((slope, value, weight))

    def solve(self, config: GeometryConfig) -> tuple[Float32Array, Float32Array, Float32Array, Float32Array]:
        """Disparity, residual in pixels, share of the sources that agree, and parallax in pixels, all (H, W)."""
        found = np.empty((4, *self._prior.shape), np.float32)
        for rows in slabs(len(self._prior)):
            part = [(slope[:, rows], value[:, rows], weight[rows]) for slope, value, weight in self._rows]
            found[:, rows] = _solved(part, self._prior[rows], config)
        return found[0], found[1], found[2], found[3]


def _solved(equations: list[Equation], prior: Float32Array, config: GeometryConfig) -> list[Float32Array]:
    scale = np.float32(config.cauchy_px)
    robust = [np.ones_like(prior) for _ in equations]
    for _ in range(config.irls_steps + 1):
        disparity, curvature = _least_squares(equations, robust, prior)
        squares = [np.square(slope * disparity - value).sum(0) for slope, value, _ in equations]
        robust = [1 / (1 + square / scale**2) for square in squares]
    total = sum(w for _, _, w in equations)
    agreeing = sum(w * r for (_, _, w), r in zip(equations, robust, strict=True))
    error = sum(w * r * s for (_, _, w), r, s in zip(equations, robust, squares, strict=True))
    residual = np.sqrt(error / np.maximum(agreeing, 1e-6))
    parallax = np.sqrt(curvature / np.maximum(total, 1e-6)) * np.abs(disparity)
    return [disparity, residual, np.asarray(agreeing / len(equations), np.float32), parallax]


def _least_squares(
    equations: list[Equation], robust: list[Float32Array], prior: Float32Array
) -> tuple[Float32Array, Float32Array]:
    curvature, moment = np.zeros_like(prior), np.zeros_like(prior)
    for (slope, value, weight), extra in zip(equations, robust, strict=True):
        weight = weight * extra
        curvature += weight * np.square(slope).sum(0)
        moment += weight * (slope * value).sum(0)
    # The faint pull to the prior decides only where no source says anything.
    pull = np.float32(1e-4)
    return (moment + pull * prior) / (curvature + pull), curvature


def texture_share(gray: Uint8Array, config: GeometryConfig) -> Float32Array:
    """1 - exp(-(local gradient / texture_gradient)^2), in [0, 1): 0 on flat areas, which any flow matches."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1.0)
    gx, gy = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    energy = cv2.GaussianBlur(gx * gx + gy * gy, (0, 0), config.texture_px)
    share: Float32Array = 1 - np.exp(-energy / np.float32(config.texture_gradient**2))
    return share
