"""Movers: where their masks are believed; what moves has no triangulated depth."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FusionConfig
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.reader import nearest
from stf_depth.types import BoolArray, Frames, Role

__all__ = ["with_believed_movers"]

_MEASURED = 0.3


def with_believed_movers(inputs: ShotInputs, config: FusionConfig) -> ShotInputs:
    """``inputs``, with movers as UNKNOWN where they were triangulated, and without structure on the others.

    What moves against the camera fits no depth, and triangulation is unsure of it. A segment whose share of well
    triangulated pixels is more than ``mover_max_measured`` of that of the frame's solid rest is a parked car, or a wall
    called a person. Without structure nothing tells, and the masks are believed.
    """
    roles, structure = inputs.roles, inputs.structure
    if roles is None or structure is None or config.mode != "full":
        return inputs
    judged = _Judged(roles, inputs.segments, structure.confidence, config.mover_max_measured)
    confidence = _ZeroWhere(structure.confidence, judged, moving=True)
    return replace(
        inputs,
        roles=_ZeroWhere(roles, judged, moving=False),
        structure=StructureMaps(structure.disparity, confidence),
    )


@dataclass(frozen=True)
class _Judged:
    """The movers of each frame, in two kinds."""

    roles: Frames
    segments: Frames | None
    confidence: Frames
    max_measured: float

    def movers(self, frame: int, *, moving: bool) -> BoolArray:
        """Movers that do move, or those that were triangulated, (h, w) at the size of the structure."""
        sure = np.asarray(self.confidence[frame]) > _MEASURED
        roles = nearest(np.asarray(self.roles[frame]), sure.shape)
        mover, rest = roles == Role.MOVER, ~np.isin(roles, (Role.MOVER, Role.SKY))
        measured = np.zeros_like(mover)
        for part in self._parts(frame, mover):
            measured |= part & (sure[part].mean() > self.max_measured * sure[rest].mean())
        kind: BoolArray = mover & (measured != moving)
        return kind

    def _parts(self, frame: int, mover: BoolArray) -> list[BoolArray]:
        """Movers by segment: one who walks past a parked car is judged alone."""
        if self.segments is None or not mover.any():
            return [mover] * bool(mover.any())
        segments = nearest(np.asarray(self.segments[frame]), mover.shape)
        return [mover & (segments == segment) for segment in np.unique(segments[mover])]


@dataclass(frozen=True)
class _ZeroWhere:
    """``values`` (T, h, w) with 0, which is UNKNOWN for roles, on movers of one kind."""

    values: Frames
    judged: _Judged
    moving: bool

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, frame: int) -> NDArray[Any]:
        values = np.asarray(self.values[frame])
        movers = nearest(self.judged.movers(frame, moving=self.moving), values.shape)
        return np.where(movers, values.dtype.type(0), values)
