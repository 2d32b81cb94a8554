"""From RGB frames to network input, without changing the field of view.

Every resize maps the frame's edges to the edges of the result, x' = (x + 0.5) s - 0.5, so that an output of any
size covers the frame exactly.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.types import Float32Array, Uint8Array

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "aspect_size", "resize_frames", "to_planes"]

Triple = tuple[float, float, float]

IMAGENET_MEAN: Triple = (0.485, 0.456, 0.406)
IMAGENET_STD: Triple = (0.229, 0.224, 0.225)
# Beyond this aspect ratio the frame is squeezed: a 2000 x 10 px strip must not become a 77000 px wide input.
MAX_ASPECT = 4.0


def aspect_size(
    height_px: int, width_px: int, short_side_px: int, multiple: int, long_side_px: float = math.inf
) -> tuple[int, int]:
    """Network input size (h, w): short side ``short_side_px``, same aspect, both rounded to ``multiple``.

    Where the long side would pass ``long_side_px``, that side decides instead.
    """
    scale = min(short_side_px / min(height_px, width_px), long_side_px / max(height_px, width_px))
    longest = min(MAX_ASPECT * short_side_px, long_side_px)

    def fit(side_px: int) -> int:
        return max(multiple, round(min(side_px * scale, longest) / multiple) * multiple)

    return fit(height_px), fit(width_px)


def resize_frames(rgb: NDArray[Any], size_hw: tuple[int, int]) -> NDArray[Any]:
    """(N, H, W, C) -> (N, h, w, C) of the same dtype: area average where it shrinks, bicubic where it grows."""
    height, width = size_hw
    if rgb.shape[1:3] == (height, width):
        return rgb
    shrinks = height * width < rgb.shape[1] * rgb.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=method) for frame in rgb])


def to_planes(
    rgb: Uint8Array, mean: tuple[float, ...] = (0.0, 0.0, 0.0), std: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Float32Array:
    """(x / 255 - mean) / std as planes: (N, h, w, 3) uint8 -> (N, 3, h, w) float32."""
    scale = (1 / (255 * np.asarray(std))).astype(np.float32)
    offset = (-np.asarray(mean) / np.asarray(std)).astype(np.float32)
    planes = rgb.astype(np.float32) * scale + offset
    return np.ascontiguousarray(planes.transpose(0, 3, 1, 2))
