"""Movers: where their masks are believed; what moves has no triangulated depth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FusionConfig
from stf_depth.frames import MappedFrames, nearest
from stf_depth.fusion.inputs import ShotInputs, StructureMaps, sampled_frames
from stf_depth.fusion.prelook import Prelook
from stf_depth.types import BoolArray, Frames, Role

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
    clearly more than the rest of the shot: what crosses the way of a camera that moves ahead is triangulated well, at a
    wrong place. Without structure nothing tells, and the masks are believed. prelook: of the inputs.
    """
    roles, structure = inputs.roles, inputs.structure
    if roles is None or structure is None or config.mode != "full":
        return inputs
    segments = () if inputs.segments is None else (inputs.segments,)
    maps = (structure.confidence, structure.disparity, inputs.disparity, *segments)
    usual_gap = cache(partial(_usual_gap, roles, structure, inputs.disparity, prelook, config))

    def judged(roles: Array, confidence: Array, triangulated: Array, disparity: Array, *segments: Array) -> _Judged:
        if not (roles == Role.MOVER).any():  # most frames of most shots
            return np.zeros(confidence.shape, bool), np.zeros(confidence.shape, bool)
        gap = _gap(triangulated, nearest(disparity, triangulated.shape), prelook)
        sure = ~np.isnan(gap) & (confidence > _MEASURED)
        return _movers(roles, sure, gap, *segments, most_gap=usual_gap(), config=config)

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


def _usual_gap(
    roles: Frames, structure: StructureMaps, disparity: Frames, prelook: Prelook, config: FusionConfig
) -> float:
    """What the shot's solid pixels differ by at most from the median gap of their frame; ``mover_max_gap`` at least."""
    gaps = [np.zeros(0, np.float32)]
    for frame in sampled_frames(len(roles)):
        triangulated = np.asarray(structure.disparity[frame])
        gap = _gap(triangulated, nearest(np.asarray(disparity[frame]), triangulated.shape), prelook)
        sure = ~np.isnan(gap) & (np.asarray(structure.confidence[frame]) > _MEASURED)
        found = gap[sure & _solid(np.asarray(roles[frame]), gap.shape)]
        gaps.append(np.abs(found - (np.median(found) if len(found) else 0)))
    pooled = np.concatenate(gaps)
    return max(config.mover_max_gap, _CLEARLY * 1.48 * float(np.median(pooled)) if len(pooled) else 0.0)


def _solid(roles: Array, shape: tuple[int, ...]) -> BoolArray:
    """What is neither mover nor sky, at another size."""
    return ~np.isin(nearest(roles, shape), (Role.MOVER, Role.SKY))


def _movers(
    roles: Array, sure: BoolArray, gap: Array, *segments: Array, most_gap: float, config: FusionConfig
) -> _Judged:
    """Movers that do move, and those that were triangulated, each (h, w) at the size of the structure."""
    mover, rest = nearest(roles, sure.shape) == Role.MOVER, _solid(roles, sure.shape)
    triangulated = np.zeros_like(mover)
    if not rest.any():  # nothing solid to compare with
        return mover, triangulated
    level = float(np.median(gap[rest & sure])) if (rest & sure).any() else 0.0
    for part in _parts(mover, *segments):
        is_measured = sure[part].mean() > config.mover_max_measured * sure[rest].mean()
        if is_measured and abs(np.median(gap[part & sure]) - level) < most_gap:
            triangulated |= part
    return mover & ~triangulated, triangulated


def _parts(mover: BoolArray, *segments: Array) -> list[BoolArray]:
    """Movers by segment: one who walks past a parked car is judged alone."""
    if not mover.any():
        return []
    if not segments:
        return [mover]
    labels = nearest(segments[0], mover.shape)
    return [mover & (labels == label) for label in np.unique(labels[mover])]
