"""What fusion sees of one shot, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stf_depth.types import Ambiguity, BoolArray, CameraPath, Float32Array, Frames

__all__ = ["FusedChunk", "ShotInputs", "StructureMaps", "sampled_frames"]

_SAMPLED = 12


@dataclass(frozen=True)
class StructureMaps:
    """Depth triangulated from camera motion: (T, h, w) float32 inverse z in the camera path's unit.

    confidence: (T, h, w) float32 in [0, 1]; 0 where nothing was triangulated.
    """

    disparity: Frames
    confidence: Frames


@dataclass(frozen=True)
class ShotInputs:
    """One shot, read lazily; index 0 is the first frame of the shot.

    rgb: (T, H, W, 3) uint8 at the working size. disparity, valid: (T, h, w) float32 and bool from the per-frame
    network at its own size. roles: (T, h', w') uint8 of ``Role``. segments: (T, h', w') int32 ids.
    segments_are_classes: whether these are semantic classes, of which one may stand for many surfaces. camera: at the
    working size. trust: factor of the confidence, below 1 where the disparity itself is a guess. sees_sky: whether the
    disparity can tell sky from what is near, as a triangulated one cannot. Absent inputs are None.
    """

    rgb: Frames
    disparity: Frames
    valid: Frames
    ambiguity: Ambiguity
    roles: Frames | None = None
    segments: Frames | None = None
    segments_are_classes: bool = False
    camera: CameraPath | None = None
    structure: StructureMaps | None = None
    trust: float = 1.0
    sees_sky: bool = True

    def __len__(self) -> int:
        return len(self.rgb)


@dataclass(frozen=True)
class FusedChunk:
    """Frames ``start`` to ``start + len(disparity)`` of the shot at the working size.

    disparity: (n, H, W) float32, in the input's unit. valid: (n, H, W) bool. confidence: (n, H, W) float32 in [0, 1].
    ambiguity: that of the input, except that an affine input whose offset the structure gave comes back as ``scale``;
    the same for every chunk of a shot.
    """

    start: int
    disparity: Float32Array
    valid: BoolArray
    confidence: Float32Array
    ambiguity: Ambiguity

    def __len__(self) -> int:
        return len(self.disparity)


def sampled_frames(count: int) -> list[int]:
    """A few frames spread over a shot, to judge it as a whole before it is read."""
    return [int(frame) for frame in np.unique(np.linspace(0, count - 1, _SAMPLED).astype(int))]
