"""Movers: where their masks are believed; what moves has no triangulated depth."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FusionConfig
from stf_depth.frames import MappedFrames, nearest
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.prelook import Prelook
from stf_depth.types import BoolArray, Role

__all__ = ["with_believed_movers"]

Array = NDArray[Any]

_MEASURED = 0.3
_CLEARLY = 3.0  # standard deviations

_Judged = tuple[BoolArray, BoolArray]


def with_believed_movers(inputs: ShotInputs, config: FusionConfig, prelook: Prelook) -> ShotInputs:
    """``inputs``, with movers as UNKNOWN where they were triangulated, and without structure on the others.

    What moves against the camera fits no depth, and triangulation is unsure of it. A segment whose share of well
    triangulated pixels is more than ``mover_max_measured`` of that of the frame's solid rest is a parked car, or a wall
    called a person; unless the network contradicts it there by more than ``mover_max_gap`` in log disparity, and
    clearly more than on the rest: what crosses the way of a camera that moves ahead is triangulated well, at a wrong
    place. Without structure nothing tells, and the masks are believed. prelook: of the inputs.
    """
    roles, structure = inputs.roles, inputs.structure
    if roles is None or structure is None or config.mode != "full":
        return inputs
    segments = () if inputs.segments is None else (inputs.segments,)
    maps = (structure.confidence, structure.disparity, inputs.disparity, *segments)

    def judged(roles: Array, confidence: Array, triangulated: Array, disparity: Array, *segments: Array) -> _Judged:
        if not (roles == Role.MOVER).any():  # most frames of most shots
            return np.zeros(confidence.shape, bool), np.zeros(confidence.shape, bool)
        gap = _gap(triangulated, nearest(disparity, triangulated.shape), prelook)
        return _movers(roles, np.where(np.isnan(gap), 0, confidence), gap, *segments, config=config)

    def believed(roles: Array, *maps: Array) -> Array:
        return _zero_on(roles, judged(roles, *maps)[1])

    def trusted(confidence: Array, roles: Array, *maps: Array) -> Array:
        return _zero_on(confidence, judged(roles, confidence, *maps)[0])

    confidence = MappedFrames(trusted, maps[0], roles, *maps[1:])
    return replace(
        inputs, roles=MappedFrames(believed, roles, *maps), structure=StructureMaps(structure.disparity, confidence)
    )


def _gap(triangulated: Array, disparity: Array, prelook: Prelook) -> Array:
    """log(unit q / (p - offset)), (h, w); NaN where either is unknown, zero without a unit."""
    if prelook.structure_unit is None:
        return np.zeros_like(triangulated)
    offset, floor = prelook.logmap.offset, prelook.logmap.floor
    known = (triangulated > 0) & (disparity - offset > floor)
    ratio = prelook.structure_unit * triangulated / np.where(known, disparity - offset, 1)
    return np.where(known, np.log(np.where(known, ratio, 1)), np.nan)


def _zero_on(values: Array, mask: BoolArray) -> Array:
    """``values`` with 0, which is UNKNOWN for roles, where the mask of any size says so."""
    return np.where(nearest(mask, values.shape), values.dtype.type(0), values)


def _movers(roles: Array, confidence: Array, gap: Array, *segments: Array, config: FusionConfig) -> _Judged:
    """Movers that do move, and those that were triangulated, each (h, w) at the size of the structure."""
    sure = confidence > _MEASURED
    roles = nearest(roles, sure.shape)
    mover, rest = roles == Role.MOVER, ~np.isin(roles, (Role.MOVER, Role.SKY))
    triangulated = np.zeros_like(mover)
    if not rest.any():  # nothing solid to compare with
        return mover, triangulated
    level, limit = _usual_gap(gap[rest & sure], config.mover_max_gap)
    for part in _parts(mover, *segments):
        is_measured = sure[part].mean() > config.mover_max_measured * sure[rest].mean()
        if is_measured and abs(np.median(gap[part & sure]) - level) < limit:
            triangulated |= part
    return mover & ~triangulated, triangulated


def _usual_gap(gaps: Array, least: float) -> tuple[float, float]:
    """Median of the rest's gaps, and how far from it a gap is none of a network as wrong as this one."""
    if not len(gaps):
        return 0.0, least
    level = float(np.median(gaps))
    return level, max(least, _CLEARLY * 1.48 * float(np.median(np.abs(gaps - level))))


def _parts(mover: BoolArray, *segments: Array) -> list[BoolArray]:
    """Movers by segment: one who walks past a parked car is judged alone."""
    if not mover.any():
        return []
    if not segments:
        return [mover]
    labels = nearest(segments[0], mover.shape)
    return [mover & (labels == label) for label in np.unique(labels[mover])]
