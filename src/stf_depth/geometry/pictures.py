"""The grey pictures of a shot, and where points of them may be tracked."""

from __future__ import annotations

import cv2
import numpy as np

from stf_depth.errors import ShapeError
from stf_depth.frames import nearest
from stf_depth.geometry.arrays import as_uint8
from stf_depth.types import Frames, Role, Uint8Array

__all__ = ["GrayFrames", "trackable_mask"]


class GrayFrames:
    """Grey pictures of RGB frames, made when they are asked for.

    rgb: (T, H, W, 3) uint8. roles: (T, h, w) uint8 of ``Role`` at any size, or None. Raises ShapeError for other
    shapes.
    """

    def __init__(self, rgb: Frames, roles: Frames | None) -> None:
        if len(rgb.shape) != 4 or rgb.shape[-1] != 3:
            raise ShapeError("tracking needs RGB frames", expected="(T, H, W, 3) uint8", got=rgb.shape)
        if roles is not None and len(roles) != len(rgb):
            raise ShapeError("one role map for each frame", expected=len(rgb), got=len(roles))
        self._rgb, self._roles = rgb, roles
        self.wh = int(rgb.shape[2]), int(rgb.shape[1])

    def __len__(self) -> int:
        return len(self._rgb)

    def gray(self, frame: int) -> Uint8Array:
        """(H, W) uint8."""
        return as_uint8(cv2.cvtColor(np.asarray(self._rgb[frame]), cv2.COLOR_RGB2GRAY))

    def mask(self, frame: int) -> Uint8Array | None:
        """(H, W) uint8, 0 where no point may be tracked; None where all may."""
        return None if self._roles is None else trackable_mask(np.asarray(self._roles[frame]), *self.wh)


def trackable_mask(roles: Uint8Array, width: int, height: int) -> Uint8Array:
    """255 where points may be tracked, 0 on sky and movers and close to them; (height, width) uint8."""
    banned = np.isin(roles, (Role.SKY, Role.MOVER)).astype(np.uint8)
    banned = nearest(banned, (height, width))
    margin = 2 * max(2, round(max(width, height) / 160)) + 1
    grown = cv2.dilate(banned, np.ones((margin, margin), np.uint8))
    return (255 * (1 - grown)).astype(np.uint8)
