"""Movers: where their masks are believed; what moves has no triangulated depth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FusionConfig
from stf_depth.frames import MappedFrames
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.perception.frames import nearest
from stf_depth.types import BoolArray, Role

__all__ = ["with_believed_movers"]

Array = NDArray[Any]

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

    def believed(roles: Array, confidence: Array, *segments: Array) -> Array:
        return _zero_on(roles, _movers(roles, confidence, *segments, limit=config.mover_max_measured)[1])

    def trusted(confidence: Array, roles: Array, *segments: Array) -> Array:
        return _zero_on(confidence, _movers(roles, confidence, *segments, limit=config.mover_max_measured)[0])

    segments = () if inputs.segments is None else (inputs.segments,)
    confidence = MappedFrames(trusted, structure.confidence, roles, *segments)
    return replace(
        inputs,
        roles=MappedFrames(believed, roles, structure.confidence, *segments),
        structure=StructureMaps(structure.disparity, confidence),
    )


def _zero_on(values: Array, mask: BoolArray) -> Array:
    """``values`` with 0, which is UNKNOWN for roles, where the mask of any size says so."""
    return np.where(nearest(mask, values.shape), values.dtype.type(0), values)


def _movers(roles: Array, confidence: Array, *segments: Array, limit: float) -> tuple[BoolArray, BoolArray]:
    """Movers that do move, and those that were triangulated, each (h, w) at the size of the structure."""
    sure = confidence > _MEASURED
    roles = nearest(roles, sure.shape)
    mover, rest = roles == Role.MOVER, ~np.isin(roles, (Role.MOVER, Role.SKY))
    triangulated = np.zeros_like(mover)
    if not rest.any():  # nothing solid to compare with
        return mover, triangulated
    for part in _parts(mover, *segments):
        triangulated |= part & (sure[part].mean() > limit * sure[rest].mean())
    return mover & ~triangulated, triangulated


def _parts(mover: BoolArray, *segments: Array) -> list[BoolArray]:
    """Movers by segment: one who walks past a parked car is judged alone."""
    if not mover.any():
        return []
    if not segments:
        return [mover]
    labels = nearest(segments[0], mover.shape)
    return [mover & (labels == label) for label in np.unique(labels[mover])]
