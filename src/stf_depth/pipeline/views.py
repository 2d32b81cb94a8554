"""Cached stages as fusion and visualisation want to see them: lazy, one shot at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stf_depth.frames import MappedFrames
from stf_depth.types import NEAREST_Z, Frames, Representation, Shot

__all__ = ["CountedFrames", "ShotFrames", "as_disparity", "merge_roles"]


class ShotFrames:
    """Frames of one shot, numbered from its start."""

    def __init__(self, frames: Frames, shot: Shot) -> None:
        self._frames = frames
        self._shot = shot

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self._shot), *self._frames.shape[1:])

    def __len__(self) -> int:
        return len(self._shot)

    def __getitem__(self, index: Any, /) -> Any:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._frames[start + self._shot.start : stop + self._shot.start : step]
        position = int(index) + (len(self) if index < 0 else 0)
        if not 0 <= position < len(self):
            raise IndexError(f"frame {index} of a shot of {len(self)}")
        return self._frames[position + self._shot.start]


class CountedFrames:
    """Frames that tell how many of them were read for the first time, for a reader that goes through them in order."""

    def __init__(self, frames: Frames, advance: Callable[[int], None]) -> None:
        self._frames, self._advance = frames, advance
        self._read = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self._frames.shape

    def __len__(self) -> int:
        return len(self._frames)

    def __getitem__(self, index: int, /) -> Any:
        if index >= self._read:
            self._advance(index + 1 - self._read)
            self._read = index + 1
        return self._frames[index]


def as_disparity(depth: Frames, representation: Representation) -> Frames:
    """Disparity of cached depth: itself, or 1 / z with 0 where z is not positive."""
    if representation is Representation.DISPARITY:
        return depth

    def invert(z: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.divide(1, np.maximum(z, NEAREST_Z), out=np.zeros_like(z), where=z > 0)

    return MappedFrames(invert, depth)


def merge_roles(detailed: Frames | None, coarse: Frames | None) -> Frames | None:
    """Roles of the detailed segmentation, completed by the coarse one where it says nothing."""
    if detailed is None or coarse is None:
        return detailed if coarse is None else coarse

    def merge(fine: NDArray[np.uint8], rough: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size_wh = fine.shape[1], fine.shape[0]
        return np.where(fine > 0, fine, cv2.resize(rough, size_wh, interpolation=cv2.INTER_NEAREST_EXACT))

    return MappedFrames(merge, detailed, coarse)
