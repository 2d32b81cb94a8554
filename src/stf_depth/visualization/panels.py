"""Labelled overlays, side-by-side panels and space-time slices."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import cv2
import numpy as np

from stf_depth.errors import MissingExtraError, ShapeError
from stf_depth.types import Frames, Int32Array, SegmentInfo, Uint8Array

if TYPE_CHECKING:
    from PIL import ImageFont

__all__ = ["comparison_panel", "segment_colour", "segment_overlay", "xt_slice"]

_UNLABELLED_RGB = (128, 128, 128)
_HEADER_RGB = (18, 18, 20)
_TEXT_RGB = (240, 240, 240)
_MIN_LEGEND_SHARE = 0.002
_MAX_LEGEND_ROWS = 12


def segment_colour(segment_id: int, info: SegmentInfo | None) -> tuple[int, int, int]:
    """RGB of a segment: the hue follows its name, the brightness its id.

    A class keeps its hue over time even where panoptic ids are numbered anew in each frame.
    """
    if info is None or segment_id == 0:
        return _UNLABELLED_RGB
    hue = zlib.crc32(info.name.encode()) % 180
    value = 255 - 28 * (segment_id % 4) if info.is_thing else 225
    pixel = cv2.cvtColor(np.array([[[hue, 175, value]]], np.uint8), cv2.COLOR_HSV2RGB)[0, 0]
    return int(pixel[0]), int(pixel[1]), int(pixel[2])


def segment_overlay(
    rgb: Uint8Array, ids: Int32Array, table: Mapping[int, SegmentInfo], *, opacity: float = 0.55, legend: bool = True
) -> Uint8Array:
    """out = (1 - a) rgb + a colour(id), with dark borders between segments and a legend of names and roles.

    rgb: (H, W, 3) uint8. ids: (h, w) int32, resized to the frame by nearest neighbour; 0 and ids without an
    entry in ``table`` are grey. Returns (H, W, 3) uint8. Raises ShapeError for stacks.
    """
    if rgb.ndim != 3 or ids.ndim != 2:
        raise ShapeError("one frame and one id map", expected="(H, W, 3) and (h, w)", got=(rgb.shape, ids.shape))
    height, width = rgb.shape[:2]
    full = cv2.resize(ids.astype(np.float64), (width, height), interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int32)
    present, inverse, counts = np.unique(full, return_inverse=True, return_counts=True)
    palette = np.array([segment_colour(int(i), table.get(int(i))) for i in present], np.uint8)
    paint = palette[inverse.reshape(full.shape)]
    out = np.asarray(cv2.addWeighted(rgb, 1 - opacity, paint, opacity, 0), np.uint8)
    out[_borders(full)] //= 3
    if legend:
        order = [int(present[i]) for i in np.argsort(-counts) if counts[i] >= _MIN_LEGEND_SHARE * full.size]
        out = _with_legend(out, order, table)
    return out


def comparison_panel(panels: Sequence[tuple[str, Uint8Array]], *, gap_px: int = 4) -> Uint8Array:
    """Images side by side under a title strip, each (H, W, 3) uint8 of one size.

    Returns (H', W', 3) uint8 with even sides, as video encoders need. Raises ShapeError when the sizes differ or
    nothing is given.

    >>> import numpy as np
    >>> comparison_panel([("a", np.zeros((90, 160, 3), np.uint8))] * 3).shape
    (110, 488, 3)
    """
    shapes = {image.shape for _, image in panels}
    if len(shapes) != 1:
        raise ShapeError("panels must share one size", got=sorted(shapes))
    height, width, _ = next(iter(shapes))
    header = _header_height(height)
    total = len(panels) * width + (len(panels) - 1) * gap_px
    out = np.full((_even(height + header), _even(total), 3), _HEADER_RGB, np.uint8)
    for position, (title, image) in enumerate(panels):
        left = position * (width + gap_px)
        out[header : header + height, left : left + width] = image
        out[:header, left : left + width] = _title_strip(title, header, width)
    return out


def xt_slice(frames: Frames, row: int) -> np.ndarray:
    """slice[t] = frames[t, row]: one image row over time, where flicker shows as horizontal bands.

    frames: (T, H, W) or (T, H, W, C), read one row at a time. Returns (T, W) or (T, W, C) of their dtype.
    Raises ShapeError for a row outside the frames.
    """
    if not 0 <= row < frames.shape[1]:
        raise ShapeError("row outside the frames", expected=f"0 to {frames.shape[1] - 1}", got=row)
    return np.stack([np.asarray(frames[t])[row] for t in range(len(frames))])


def _borders(ids: Int32Array) -> np.ndarray:
    border = np.zeros(ids.shape, bool)
    border[:, 1:] |= ids[:, 1:] != ids[:, :-1]
    border[1:] |= ids[1:] != ids[:-1]
    return border


def _with_legend(image: Uint8Array, order: Sequence[int], table: Mapping[int, SegmentInfo]) -> Uint8Array:
    rows = _legend_rows(order, table)
    font = _font(max(9, min(16, image.shape[0] // 28)))
    line = int(font.size * 1.4)
    rows = rows[: max(1, (image.shape[0] - 8) // line)]
    width = int(max((font.getlength(text) for text, _ in rows), default=0)) + 2 * line
    width, height = min(width, image.shape[1]), min(line * len(rows) + 6, image.shape[0])
    out = image.copy()
    out[:height, :width] //= 4
    return _draw_rows(out, rows, line, font)


def _legend_rows(order: Sequence[int], table: Mapping[int, SegmentInfo]) -> list[tuple[str, tuple[int, int, int]]]:
    rows: dict[str, tuple[int, int, int]] = {}
    for segment_id in order:
        info = table.get(segment_id)
        label = f"{info.name} ({info.role.name.lower()})" if info and segment_id else "unlabelled"
        rows.setdefault(label, segment_colour(segment_id, info))
    return list(rows.items())[:_MAX_LEGEND_ROWS]


def _draw_rows(
    image: Uint8Array,
    rows: Sequence[tuple[str, tuple[int, int, int]]],
    line: int,
    font: ImageFont.FreeTypeFont,
) -> Uint8Array:
    from PIL import Image, ImageDraw

    canvas = Image.fromarray(image)
    draw = ImageDraw.Draw(canvas)
    for number, (text, colour) in enumerate(rows):
        top = 3 + number * line
        draw.rectangle((4, top + 2, line, top + line - 3), fill=colour)
        draw.text((line + 6, top + line // 2), text, fill=_TEXT_RGB, font=font, anchor="lm")
    return np.asarray(canvas)


def _title_strip(title: str, height: int, width: int) -> Uint8Array:
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width, height), _HEADER_RGB)
    ImageDraw.Draw(strip).text((width // 2, height // 2), title, fill=_TEXT_RGB, font=_font(height // 2), anchor="mm")
    return np.asarray(strip)


@lru_cache(maxsize=16)
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    # Pillow carries this font itself: the same text on every machine.
    font = ImageFont.load_default(size=float(size_px))
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise MissingExtraError("Pillow was built without FreeType", hint="Install Pillow from its official wheel")
    return font


def _header_height(height: int) -> int:
    return _even(max(20, height // 14))


def _even(length: int) -> int:
    return length + length % 2
