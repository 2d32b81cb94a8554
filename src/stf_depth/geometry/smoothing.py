"""Edge-aware smoothing of weighted values: the domain transform's recursive filter (Gastal and Oliveira, 2011).

y_i = (1 - a_i) x_i + a_i y_{i-1} along rows and columns, both ways, with a_i = exp(-sqrt(2) s_i / sigma) and
s_i = 1 + (sigma_s / sigma_r) max(0, |I_i - I_{i-1}| - n) the distance that a colour edge adds to one pixel, n the
difference that is no edge yet. Filtering the moments of weighted values fits a plane to each pixel's surroundings on
its own side of the edges, which carries depth into pixels without weight.
"""

from __future__ import annotations

import threading

import cv2
import numpy as np

from stf_depth.config import GeometryConfig
from stf_depth.geometry.arrays import as_float32, as_uint8
from stf_depth.types import Float32Array, Uint8Array

__all__ = ["EdgeAwareSmoother", "away_from_steps", "complete"]

# Thousands of short steps, between which the interpreter's lock changes hands: two threads at once take longer than
# one after the other.
_SHORT_STEPS = threading.Lock()


class EdgeAwareSmoother:
    """Smooths along one picture's surfaces; built once for each picture, used for several maps.

    rgb: (H, W, 3) uint8 guide. sigma_space_px: reach in flat regions. sigma_color: colour difference (0..1, summed
    over channels) that stops as much as ``sigma_space_px`` pixels do. noise_color: difference up to which there is
    no edge; without it the noise of a plain surface adds up to one.
    """

    def __init__(
        self,
        rgb: Uint8Array,
        *,
        sigma_space_px: float,
        sigma_color: float,
        noise_color: float = 0.0,
        iterations: int = 2,
    ) -> None:
        guide = rgb.astype(np.float32) / 255
        slope, noise = sigma_space_px / sigma_color, np.float32(noise_color)
        across = 1 + slope * np.maximum(np.abs(np.diff(guide, axis=1)).sum(-1) - noise, 0)
        down = 1 + slope * np.maximum(np.abs(np.diff(guide, axis=0)).sum(-1) - noise, 0)
        self._passes = []
        for step in range(iterations):
            share = 2 ** (iterations - step - 1) * np.sqrt(3 / (4**iterations - 1))
            rate = np.float32(-np.sqrt(2) / (sigma_space_px * share))
            # Time runs along the first axis of each, so that a step of the recursion is one contiguous row.
            self._passes.append((np.exp(rate * across.T).copy(), np.exp(rate * down)))

    def plane(self, values: Float32Array, weight: Float32Array, *, min_spread: float) -> Float32Array:
        """Value at each pixel of the plane a + b x + c y that fits its surroundings best, (H, W) float32.

        Planes in space are planes in disparity. Minimises the weighted squares with the filter's own weights;
        min_spread, a share of the long side, keeps slopes small that rest on data spread over less than that.
        """
        height, width = values.shape
        scale = np.float32(1 / max(height, width))
        x = ((np.arange(width, dtype=np.float32) - width / 2) * scale)[None] * np.ones((height, 1), np.float32)
        y = ((np.arange(height, dtype=np.float32) - height / 2) * scale)[:, None] * np.ones((1, width), np.float32)
        terms = (np.ones_like(x), x, y, x * x, x * y, y * y, values, x * values, y * values)
        total, *sums = self.filter(np.stack([weight * term for term in terms]))
        mx, my, xx, xy, yy, mean, xv, yv = (part / np.maximum(total, np.float32(1e-12)) for part in sums)
        ridge = np.float32(min_spread**2)
        xx, yy, xy = xx - mx * mx + ridge, yy - my * my + ridge, xy - mx * my
        xv, yv = xv - mx * mean, yv - my * mean
        determinant = xx * yy - xy * xy
        fitted = mean + ((xv * yy - yv * xy) * (x - mx) + (yv * xx - xv * xy) * (y - my)) / determinant
        return np.asarray(fitted, np.float32)

    def filter(self, channels: Float32Array) -> Float32Array:
        """Filter each of channels (C, H, W) float32."""
        across = np.ascontiguousarray(channels.transpose(2, 0, 1))
        with _SHORT_STEPS:
            for along_x, along_y in self._passes:
                _recurse(across, along_x[:, None, :])
                down = np.ascontiguousarray(across.transpose(2, 1, 0))
                _recurse(down, along_y[:, None, :])
                across = np.ascontiguousarray(down.transpose(2, 1, 0))
        return np.ascontiguousarray(across.transpose(1, 2, 0))


def _recurse(signal: Float32Array, factor: Float32Array) -> None:
    """In place y_i += a_i (y_{i-1} - y_i), then the same from the other end; the first axis is the run."""
    gap = np.empty_like(signal[0])
    rows, factors = list(signal), list(factor)
    for run, shares in ((rows, factors), (rows[::-1], factors[::-1])):
        for before, here, share in zip(run[:-1], run[1:], shares, strict=True):
            # Thousands of short steps a frame: no temporary arrays.
            np.subtract(before, here, gap)
            np.multiply(gap, share, gap)
            np.add(here, gap, here)


def away_from_steps(disparity: Float32Array, config: GeometryConfig) -> Float32Array:
    """1 / (1 + (r / edge_spread)^2), r the range of log disparity within edge_px; (H, W) float32.

    Matching windows carry the nearer surface over its border, so measurements beside a step are the least sure. With
    little weight there, both sides are continued to the edge of the picture between them.
    """
    value = np.log(np.maximum(disparity, np.float32(config.min_disparity)))
    square = np.ones((2 * config.edge_px + 1,) * 2, np.uint8)
    spread = cv2.dilate(value, square) - cv2.erode(value, square)
    return as_float32(1 / (1 + np.square(spread / np.float32(config.edge_spread))))


def complete(
    rgb: Uint8Array, values: Float32Array, weight: Float32Array, config: GeometryConfig, *, near_px: float
) -> Float32Array:
    """Values where they carry weight, and the planes of the surroundings where they do not; (H, W) float32.

    A wide fit at half the resolution says what a pixel without weight should be; a fit over near_px pixels then takes
    it as one more, faint measurement.
    """
    height, width = values.shape
    far = as_float32(cv2.resize(_planes_around(rgb, values, weight, config), (width, height)))
    both = weight + np.float32(config.complete_weight)
    mixed = (weight * values + np.float32(config.complete_weight) * far) / both
    near = EdgeAwareSmoother(rgb, sigma_space_px=near_px, sigma_color=config.smooth_color)
    return np.maximum(near.plane(mixed, both, min_spread=config.plane_spread), np.float32(config.min_disparity))


def _planes_around(rgb: Uint8Array, values: Float32Array, weight: Float32Array, config: GeometryConfig) -> Float32Array:
    """Planes fitted to the wide surroundings, at half the resolution.

    Hard edges keep what is well measured, as a chair, from a plain wall behind it. They also cut off pieces with
    hardly any measurement, so the fit over soft edges takes part in them, more faintly still.
    """
    height, width = values.shape
    half = (max(1, width // 2), max(1, height // 2))
    picture = as_uint8(cv2.resize(rgb, half, interpolation=cv2.INTER_AREA))
    moment, mass = (
        as_float32(cv2.resize(part, half, interpolation=cv2.INTER_AREA)) for part in (values * weight, weight)
    )
    sure = weight > np.float32(0.05) * weight.max(initial=0)
    low, high = np.percentile(values[sure], (1, 99)) if sure.any() else (0.0, np.inf)
    reach, spread = config.complete_px / 2, config.plane_spread
    loose = EdgeAwareSmoother(picture, sigma_space_px=reach, sigma_color=config.complete_soft_color)
    guess = loose.plane(as_float32(moment / np.maximum(mass, np.float32(1e-12))), mass, min_spread=spread)
    guess = np.clip(guess, 0.7 * low, 1.3 * high)
    faint = np.float32(config.complete_soft_weight)
    tight = EdgeAwareSmoother(
        picture, sigma_space_px=reach, sigma_color=config.complete_color, noise_color=config.complete_noise
    )
    fitted = tight.plane(as_float32((moment + faint * guess) / (mass + faint)), mass + faint, min_spread=spread)
    return as_float32(np.clip(fitted, 0.7 * low, 1.3 * high))
