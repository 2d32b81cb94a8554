"""One image file for each frame, named by its number and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from stf_depth.errors import OutputError
from stf_depth.types import BoolArray, Float32Array, Int32Array, SegmentInfo, Uint8Array
from stf_depth.visualization.colormaps import colorize
from stf_depth.visualization.panels import segment_overlay
from stf_depth.visualization.range import DisplayRange

__all__ = ["write_depth_image", "write_image", "write_rgb_image", "write_segment_image"]

_JPEG_QUALITY = 95


def write_image(path: Path, image: np.ndarray) -> Path:
    """Encode an image by the suffix of ``path`` and put it there in one step.

    image: (H, W, 3) uint8 RGB or (H, W) uint8 / uint16. The folder is made where missing. Raises OutputError
    when the file cannot be encoded or written.
    """
    pixels = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if image.ndim == 3 else image
    settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if path.suffix == ".jpg" else []
    done, encoded = cv2.imencode(path.suffix, pixels, settings)
    if not done:
        raise OutputError("image cannot be encoded", where=path, got=(image.shape, image.dtype))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(encoded.tobytes())
        aside.replace(path)
    except OSError as error:
        if path.parent.is_dir():
            aside.unlink(missing_ok=True)
        raise OutputError("image cannot be written", where=path, got=error.strerror) from error
    return path


def write_rgb_image(folder: Path, index: int, rgb: Uint8Array) -> Path:
    """Write a decoded frame, (H, W, 3) uint8, as ``folder/%06d.jpg``."""
    return write_image(folder / f"{index:06d}.jpg", rgb)


def write_depth_image(
    folder: Path,
    index: int,
    depth: Float32Array,
    valid: BoolArray,
    display_range: DisplayRange,
    *,
    colormap: str = "inferno",
) -> Path:
    """Write a depth map, (H, W) float32 with its validity, colour-mapped as ``folder/%06d.png``."""
    return write_image(folder / f"{index:06d}.png", colorize(display_range.nearness(depth), valid, colormap))


def write_segment_image(
    folder: Path, index: int, rgb: Uint8Array, ids: Int32Array, table: Mapping[int, SegmentInfo]
) -> Path:
    """Write segments over their frame with a legend as ``folder/%06d.jpg``.

    rgb: (H, W, 3) uint8. ids: (h, w) int32 of any size covering the same view.
    """
    return write_image(folder / f"{index:06d}.jpg", segment_overlay(rgb, ids, table))
