"""Resizing with aligned pixel edges."""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import ShapeError

__all__ = ["resize_area", "working_wh"]

Pixel = TypeVar("Pixel", np.uint8, np.float32)


def working_wh(wh: tuple[int, int], long_side_px: int, *, multiple: int = 2) -> tuple[int, int]:
    """Size with the longer side at most ``long_side_px``, both sides rounded to ``multiple``, never enlarged beyond it.

    >>> working_wh((1920, 1080), 640)
    (640, 360)
    """
    if min(wh) < 1 or long_side_px < multiple:
        raise ShapeError("no such size", expected=f"sides >= 1, long side >= {multiple}", got=(wh, long_side_px))
    factor = min(1.0, long_side_px / max(wh))
    width, height = (max(multiple, round(side * factor / multiple) * multiple) for side in wh)
    return min(width, long_side_px // multiple * multiple), min(height, long_side_px // multiple * multiple)


def resize_area(image: NDArray[Pixel], wh: tuple[int, int]) -> NDArray[Pixel]:
    """Mean over the area of each new pixel along directions that shrink, linear along those that grow.

    image: (H, W) or (H, W, C), uint8 or float32. Returns the same type at ``wh``; x' = (x + 0.5) * s - 0.5.

    >>> resize_area(np.array([[0, 2], [4, 6]], np.float32), (1, 1))
    array([[3.]], dtype=float32)
    """
    height, channels = image.shape[0], image.shape[2:]
    for size in ((wh[0], height), wh):
        before = (image.shape[1], image.shape[0])
        if size != before:
            shrinks = size[0] < before[0] or size[1] < before[1]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            image = np.asarray(cv2.resize(image, size, interpolation=method), image.dtype)
    return image.reshape(wh[1], wh[0], *channels)
