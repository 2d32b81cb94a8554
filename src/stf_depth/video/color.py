"""From decoded frames to upright 8-bit RGB at display size."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from av.video.reformatter import Interpolation
from numpy.typing import NDArray

from stf_depth.types import Float32Array, Uint8Array

__all__ = ["Orientation", "display_wh", "is_hdr", "oriented", "to_rgb"]

# Codes of ITU-T H.273, as FFmpeg uses them.
UNSPECIFIED = 2
TRANSFER_PQ, TRANSFER_HLG = 16, 18
PRIMARIES_BT2020 = 9
FULL_RANGE, LIMITED_RANGE = 2, 1
MATRIX_NAMES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "SMPTE170M", 7: "SMPTE240M", 9: "BT2020", 10: "BT2020"}
HD_HEIGHT_PX = 720
# Without exact rounding, conversion from ten bits darkens by up to two levels.
CONVERSION = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
REFERENCE_WHITE_NITS = 203.0  # ITU-R BT.2408
PEAK_NITS = 1000.0
# ITU-R BT.2087, linear light
BT709_FROM_BT2020 = np.array(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]], np.float32
)


@dataclass(frozen=True)
class Orientation:
    """Transpose first, then flip: one of the eight ways an image can lie."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @classmethod
    def of(cls, display_matrix: NDArray[np.int32] | None) -> Orientation:
        """The nearest orientation to a display matrix (9,), x' = a x + c y, y' = b x + d y, as FFmpeg stores it."""
        if display_matrix is None:
            return cls()
        a, b, _, c, d = (int(value) for value in display_matrix[:5])
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(False, a < 0, d < 0)
        return cls(True, c < 0, b < 0)

    @property
    def rotation_degrees(self) -> int:
        """Clockwise turn of the image, mirroring aside."""
        table = {(False, False): 0, (True, True): 180}
        if not self.transpose:
            return table.get((self.flip_x, self.flip_y), 0)
        return 90 if self.flip_x else 270


def oriented(rgb: Uint8Array, orientation: Orientation) -> Uint8Array:
    """Turn an image (H, W, 3) upright."""
    if orientation.transpose:
        rgb = rgb.transpose(1, 0, 2)
    if orientation.flip_x:
        rgb = rgb[:, ::-1]
    if orientation.flip_y:
        rgb = rgb[::-1]
    return np.ascontiguousarray(rgb)


def display_wh(wh: tuple[int, int], pixel_aspect: Fraction) -> tuple[int, int]:
    """Size with square pixels: the shorter direction is stretched, so that no pixel is lost."""
    width, height = wh
    if pixel_aspect >= 1:
        return max(1, round(width * pixel_aspect)), height
    return width, max(1, round(height / pixel_aspect))


def is_hdr(frame: Any) -> bool:
    """Whether the frame's transfer curve is PQ or HLG."""
    return int(frame.color_trc) in (TRANSFER_PQ, TRANSFER_HLG)


def to_rgb(frame: Any) -> Uint8Array:
    """(H, W, 3) uint8 of a decoded PyAV frame, BT.709 primaries, display-referred.

    An unspecified matrix is BT.709 from 720 lines up and BT.601 below, an unspecified range is limited for YUV. PQ and
    HLG are tone-mapped by L (1 + L / Lw^2) / (1 + L) on luminance relative to reference white (Reinhard et al. 2002).
    Alpha is composited on black. Interlaced frames keep their upper field, with the other lines interpolated.
    """
    if is_hdr(frame) or int(frame.color_primaries) == PRIMARIES_BT2020:
        rgb = _wide_gamut_to_rgb(frame)
    elif any(component.is_alpha for component in frame.format.components):
        rgba = _converted(frame, "rgba")
        rgb = (rgba[..., :3].astype(np.uint16) * rgba[..., 3:] // 255).astype(np.uint8)
    else:
        rgb = _converted(frame, "rgb24")
    return _deinterlaced(rgb) if frame.interlaced_frame and len(rgb) > 2 else rgb


def _converted(frame: Any, pixel_format: str) -> NDArray[Any]:
    matrix = MATRIX_NAMES.get(int(frame.colorspace))
    if matrix is None:
        matrix = "ITU709" if frame.height >= HD_HEIGHT_PX else "ITU601"
    source_range = int(frame.color_range)
    if source_range not in (LIMITED_RANGE, FULL_RANGE):
        full = frame.format.is_rgb or frame.format.name.startswith(("yuvj", "gray", "pal", "mono"))
        source_range = FULL_RANGE if full else LIMITED_RANGE
    converted = frame.reformat(
        format=pixel_format, src_colorspace=matrix, dst_colorspace=matrix, interpolation=CONVERSION,
        src_color_range=source_range, dst_color_range=FULL_RANGE, threads=1,
    )  # fmt: skip
    array: NDArray[Any] = converted.to_ndarray()
    return array


def _deinterlaced(rgb: Uint8Array) -> Uint8Array:
    out = rgb.copy()
    above = rgb[0::2].astype(np.uint16)
    below = np.concatenate([above[1:], above[-1:]])
    lower = (above + below + 1) // 2
    out[1::2] = lower[: len(out[1::2])]
    return out


@lru_cache(maxsize=4)
def _linear_light(transfer: int) -> Float32Array:
    """Light relative to reference white, (65536,), for a 16-bit code value; SMPTE ST 2084, ARIB STD-B67, BT.1886."""
    value = np.arange(65536) / 65535
    if transfer == TRANSFER_PQ:
        root = value ** (1 / 78.84375)
        nits = 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)
        return np.asarray(nits / REFERENCE_WHITE_NITS, np.float32)
    if transfer == TRANSFER_HLG:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        scene = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
        # The display's system gamma, here channel by channel instead of on luminance.
        return np.asarray(PEAK_NITS * scene**1.2 / REFERENCE_WHITE_NITS, np.float32)
    return np.asarray(value**2.4, np.float32)


def _wide_gamut_to_rgb(frame: Any) -> Uint8Array:
    light = _linear_light(int(frame.color_trc))[_converted(frame, "rgb48le")]
    if int(frame.color_primaries) in (PRIMARIES_BT2020, UNSPECIFIED):
        light = np.maximum(light @ BT709_FROM_BT2020.T, 0)
    if is_hdr(frame):
        luminance = light @ np.array([0.2126, 0.7152, 0.0722], np.float32)
        white = np.float32(PEAK_NITS / REFERENCE_WHITE_NITS)
        light = light * ((1 + luminance / white**2) / (1 + luminance))[..., None]
    return np.asarray(np.rint(255 * np.clip(light, 0, 1) ** np.float32(1 / 2.4)), np.uint8)


def resized_to_display(rgb: Uint8Array, wh: tuple[int, int]) -> Uint8Array:
    """Resize (H, W, 3) to ``wh`` unless it has that size already."""
    if (rgb.shape[1], rgb.shape[0]) == wh:
        return rgb
    return np.asarray(cv2.resize(rgb, wh, interpolation=cv2.INTER_LINEAR), np.uint8)
