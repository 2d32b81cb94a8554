"""Depth where the camera's motion shows none: a weak prior, labelled by a confidence near zero.

d = far + (near - far) y / H: in most pictures the lower part is nearer. Each pixel takes the ramp's mean over its own
segment's neighbourhood, sky is as far as can be. Nothing here is measured; it only keeps an honest run complete.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from stf_depth.config import GeometryConfig
from stf_depth.frames import nearest
from stf_depth.geometry.arrays import as_float32, as_uint8
from stf_depth.geometry.camera_solve import CameraSolve
from stf_depth.geometry.smoothing import EdgeAwareSmoother
from stf_depth.geometry.structure import structure_wh, triangulate_shot
from stf_depth.types import Float32Array, Frames, Role, Uint8Array

__all__ = ["depth_from_motion", "fallback_shot"]

_NEAR, _FAR = 1.5, 0.4  # of the inverse median depth, about what rooms and streets span


def depth_from_motion(
    rgb: Frames,
    solve: CameraSolve,
    *,
    config: GeometryConfig,
    roles: Frames | None = None,
    start: int = 0,
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """``triangulate_shot`` where the camera solve is reliable, ``fallback_shot`` where it is not, from ``start`` on.

    Which of the two it was is in ``solve.path.kind`` and ``solve.path.reason``.
    """
    if solve.path.is_reliable:
        return triangulate_shot(rgb, solve, config=config, start=start)
    return fallback_shot(rgb, config=config, roles=roles, start=start)


def fallback_shot(
    rgb: Frames, *, config: GeometryConfig, roles: Frames | None = None, start: int = 0
) -> Iterator[tuple[Float32Array, Float32Array]]:
    """Yield (disparity, confidence), each (1, h, w) float32, for the frames of a shot from ``start`` on, in order.

    rgb: (T, H, W, 3) uint8. roles: (T, h', w') uint8 of ``Role`` or None. disparity is positive, in an arbitrary
    unit; confidence is one small constant.
    """
    wh = structure_wh(int(rgb.shape[2]), int(rgb.shape[1]), config)
    for frame in range(start, len(rgb)):
        picture = as_uint8(cv2.resize(np.asarray(rgb[frame]), wh, interpolation=cv2.INTER_AREA))
        role = None if roles is None else nearest(np.asarray(roles[frame], np.uint8), wh[::-1])
        disparity = _ramp(picture, role, config)
        yield disparity[None], np.full((1, *wh[::-1]), config.fallback_confidence, np.float32)


def _ramp(picture: Uint8Array, roles: Uint8Array | None, config: GeometryConfig) -> Float32Array:
    height, width = picture.shape[:2]
    rows = np.linspace(_FAR, _NEAR, height, dtype=np.float32)
    ramp = np.repeat(rows[:, None], width, 1)
    smoother = EdgeAwareSmoother(picture, sigma_space_px=config.prior_px, sigma_color=config.smooth_color)
    smooth = smoother.filter(np.stack([ramp, np.ones_like(ramp)]))
    disparity = as_float32(smooth[0] / smooth[1])
    if roles is not None:
        disparity = np.where(roles == Role.SKY, np.float32(config.min_disparity), disparity)
    return disparity
