"""2D to 3D: a second eye from depth, side by side or as an anaglyph."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from stf_depth.config import FrozenConfig
from stf_depth.export.reading import frame_rate, shot_of, spans
from stf_depth.export.source import audio_source, rgb_frames
from stf_depth.result import DepthResult
from stf_depth.types import BoolArray, Float32Array, Uint8Array
from stf_depth.video.writer import VideoWriter
from stf_depth.visualization.range import shot_range

__all__ = ["Options", "anaglyph", "export", "shifted_view"]

# Least-squares colours for red and cyan glasses (Dubois, "A projection method to generate anaglyph stereo images",
# ICASSP 2001): rows are output R, G, B; columns R, G, B of the left and then of the right eye.
_DUBOIS_LEFT = np.array([[0.456, 0.500, 0.176], [-0.040, -0.038, -0.016], [-0.015, -0.021, -0.005]], np.float32)
_DUBOIS_RIGHT = np.array([[-0.043, -0.088, -0.002], [0.378, 0.734, -0.018], [-0.072, -0.113, 1.226]], np.float32)

# Neighbouring pixels whose nearness differs by more than this lie on two surfaces.
_EDGE_STEP = 0.04


class Options(FrozenConfig):
    """layout: fixed by the format. max_parallax_percent: parallax between the nearest and the farthest point, in
    percent of the width; two to three are comfortable on a screen. convergence: what lies on the screen, from 0 (the
    farthest: everything comes forward) to 1 (the nearest: everything lies behind). half_width: squeeze each eye.
    """

    layout: Literal["sbs", "anaglyph"] = "sbs"
    max_parallax_percent: float = Field(2.5, gt=0, le=10)
    convergence: float = Field(0.6, ge=0, le=1)
    half_width: bool = False
    audio: bool = True
    encoding: Literal["h264", "h265"] = "h264"


def export(result: DepthResult, target: Path, options: Options) -> list[Path]:
    """Write left | right, or red | cyan. Parallax is proportional to nearness with one range a shot, so that the
    scene does not breathe; affine disparity suffices. Raises InputNotFoundError when the source is gone.
    """
    _, height, width = result.depth.shape
    eye_width = width // 2 if options.half_width else width
    size = (2 * eye_width if options.layout == "sbs" else width, height)
    audio = audio_source(result) if options.audio else None
    rate = frame_rate(result.pts_seconds)
    ranges = [
        shot_range(result.depth, result.valid, span, result.representation, result.ambiguity)
        for span in spans(result, "shot")
    ]
    with VideoWriter(target, wh=size, frame_rate=rate, encoding=options.encoding, audio_from=audio) as writer:
        for index, rgb in rgb_frames(result):
            nearness = ranges[shot_of(result, index)].nearness(np.asarray(result.depth[index]))
            nearness = _filled_nearness(nearness, np.asarray(result.valid[index]))
            left, right = _eyes(rgb, nearness, options)
            image = anaglyph(left, right) if options.layout == "anaglyph" else _side_by_side(left, right, eye_width)
            writer.write(image[None], np.asarray(result.pts_seconds[index : index + 1]))
    return [target]


def shifted_view(rgb: Uint8Array, nearness: Float32Array, shift_px: Float32Array) -> tuple[Uint8Array, BoolArray]:
    """The image with each pixel moved to x + shift, nearer surfaces in front, uncovered background filled.

    rgb: (H, W, 3) uint8. nearness, shift_px: (H, W) float32. Colours are sampled back from where the visible surface
    came from, so that edges stay smooth; what no pixel covers is mirrored from the farther side of the gap. Returns
    the view and (H, W) bool, True where it was filled.
    """
    landed, seen = _visible_surface(nearness, shift_px)
    holes = np.isnan(landed)
    source_x = np.arange(rgb.shape[1], dtype=np.float32)[None, :] - np.where(holes, np.float32(0), landed)
    source_x = _kept_on_surface(source_x, nearness, seen)
    rows = np.repeat(np.arange(rgb.shape[0], dtype=np.float32)[:, None], rgb.shape[1], axis=1)
    view = cv2.remap(rgb, source_x, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return _fill_from_behind(np.asarray(view, np.uint8), holes, seen), holes


def anaglyph(left: Uint8Array, right: Uint8Array) -> Uint8Array:
    """rgb = L left + R right with Dubois's matrices, for red (left) and cyan (right) glasses, on sRGB values."""
    mixed = left.astype(np.float32) @ _DUBOIS_LEFT.T + right.astype(np.float32) @ _DUBOIS_RIGHT.T
    return np.asarray(np.rint(np.clip(mixed, 0, 255)), np.uint8)


def _eyes(rgb: Uint8Array, nearness: Float32Array, options: Options) -> tuple[Uint8Array, Uint8Array]:
    # Half of the parallax for each eye: a near point lies further right in the left eye's image.
    parallax = (nearness - options.convergence) * (options.max_parallax_percent / 100 * rgb.shape[1])
    half = np.asarray(parallax / 2, np.float32)
    return shifted_view(rgb, nearness, half)[0], shifted_view(rgb, nearness, -half)[0]


def _visible_surface(nearness: Float32Array, shift_px: Float32Array) -> tuple[Float32Array, Float32Array]:
    """Shift and nearness of the nearest surface that lands on each pixel; NaN and infinity where none does."""
    height, width = nearness.shape
    rows = np.arange(height)[:, None]
    order = np.argsort(nearness, axis=1, kind="stable")  # far to near: the last write is the nearest
    moved, depth = np.take_along_axis(shift_px, order, axis=1), np.take_along_axis(nearness, order, axis=1)
    position = order.astype(np.float32) + moved
    landed = np.full((height, width), np.nan, np.float32)
    seen = np.full((height, width), -np.inf, np.float32)
    # A surface covers the pixels on both sides of where it lands, which closes the cracks of stretched surfaces.
    for cell in (np.floor(position + 1e-3), np.ceil(position - 1e-3)):
        shift = np.full((height, width + 2), np.nan, np.float32)
        front = np.full((height, width + 2), -np.inf, np.float32)
        column = np.clip(cell.astype(np.int64) + 1, 0, width + 1)
        shift[rows, column], front[rows, column] = moved, depth
        nearer = front[:, 1:-1] > seen
        landed, seen = np.where(nearer, shift[:, 1:-1], landed), np.where(nearer, front[:, 1:-1], seen)
    return landed, np.where(np.isnan(landed), np.float32(np.inf), seen)


def _kept_on_surface(source_x: Float32Array, nearness: Float32Array, seen: Float32Array) -> Float32Array:
    """Sample at the pixel of the surface that is seen where the sampling position straddles a depth edge."""
    last = nearness.shape[1] - 1
    low, high = (np.clip(edge(source_x), 0, last).astype(np.int64) for edge in (np.floor, np.ceil))
    at_low, at_high = np.take_along_axis(nearness, low, axis=1), np.take_along_axis(nearness, high, axis=1)
    own = np.where(np.abs(at_low - seen) <= np.abs(at_high - seen), low, high)
    return np.where(np.abs(at_low - at_high) > _EDGE_STEP, own, source_x).astype(np.float32)


def _fill_from_behind(view: Uint8Array, holes: BoolArray, seen: Float32Array) -> Uint8Array:
    """Mirror the farther of the two sides into every gap of a row, so that its texture goes on."""
    if not holes.any():
        return view
    width = view.shape[1]
    columns = np.arange(width)[None, :]
    left, right = _nearest_known(holes), width - 1 - _nearest_known(holes[:, ::-1])[:, ::-1]
    left_seen = np.where(left >= 0, np.take_along_axis(seen, left.clip(0), axis=1), np.inf)
    right_seen = np.where(right < width, np.take_along_axis(seen, right.clip(max=width - 1), axis=1), np.inf)
    from_left = left_seen <= right_seen
    # Two pixels inside: the outermost ones of the background carry colour of the surface before it.
    side = np.where(from_left, left - 2, right + 2).clip(0, width - 1)
    mirrored = (2 * side - columns).clip(0, width - 1)
    farther = np.take_along_axis(seen, mirrored, axis=1) <= np.minimum(left_seen, right_seen) + _EDGE_STEP
    origin = np.where(holes, np.where(farther, mirrored, side), columns)
    return np.take_along_axis(view, origin[..., None], axis=1)


def _nearest_known(holes: BoolArray) -> NDArray[np.int64]:
    """Column of the last pixel that is no hole at or before each pixel, -1 where there is none."""
    columns = np.where(holes, -1, np.arange(holes.shape[1])[None, :])
    return np.maximum.accumulate(columns, axis=1)


def _filled_nearness(nearness: Float32Array, valid: BoolArray) -> Float32Array:
    # Unknown pixels move with the farther of their neighbours, so that no hole opens inside a surface.
    if valid.all() or not valid.any():
        return nearness
    width = valid.shape[1]
    left, right = _nearest_known(~valid), width - 1 - _nearest_known(~valid[:, ::-1])[:, ::-1]
    sides = [np.take_along_axis(nearness, side.clip(0, width - 1), axis=1) for side in (left, right)]
    sides = [np.where(ok, side, np.inf) for ok, side in zip((left >= 0, right < width), sides, strict=True)]
    farther = np.minimum(*sides)
    return np.where(valid, nearness, np.where(np.isfinite(farther), farther, 0)).astype(np.float32)


def _side_by_side(left: Uint8Array, right: Uint8Array, eye_width: int) -> Uint8Array:
    eyes = [left, right]
    if eye_width != left.shape[1]:
        eyes = [np.asarray(cv2.resize(eye, (eye_width, eye.shape[0]), interpolation=cv2.INTER_AREA)) for eye in eyes]
    return np.concatenate(eyes, axis=1)
