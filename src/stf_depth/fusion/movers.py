"""Movers: whether their masks are believed; what moves has no triangulated depth.

A shot's masks are believed or not as a whole, so that no frame of it flips.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.config import FusionConfig
from stf_depth.fusion.inputs import ShotInputs, StructureMaps, sampled_frames
from stf_depth.fusion.reader import nearest
from stf_depth.fusion.sky import measured_share
from stf_depth.types import Frames, Role

__all__ = ["with_believed_movers"]


def with_believed_movers(inputs: ShotInputs, config: FusionConfig) -> ShotInputs:
    """``inputs``, with movers as UNKNOWN where they stand as still as the rest, else without structure on them.

    The share of their pixels that was triangulated well, over a few frames of the shot, is compared with that of what
    is neither mover nor sky: more than ``mover_max_measured`` of it shows that they are parked cars, or a wall called a
    person. Without structure nothing tells, and the masks are believed.
    """
    roles, structure = inputs.roles, inputs.structure
    if roles is None or structure is None or config.mode != "full":
        return inputs
    seen = {frame: np.asarray(roles[frame]) for frame in sampled_frames(len(inputs))}
    movers = measured_share(inputs, {frame: role == Role.MOVER for frame, role in seen.items()})
    rest = measured_share(inputs, {frame: ~np.isin(role, (Role.MOVER, Role.SKY)) for frame, role in seen.items()})
    if movers > config.mover_max_measured * rest:
        return replace(inputs, roles=_ZeroOnMovers(roles, roles))
    return replace(inputs, structure=StructureMaps(structure.disparity, _ZeroOnMovers(structure.confidence, roles)))


@dataclass(frozen=True)
class _ZeroOnMovers:
    """``values`` (T, h, w) with 0, which is UNKNOWN for roles, where ``roles`` (T, h', w') say MOVER."""

    values: Frames
    roles: Frames

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, frame: int) -> NDArray[Any]:
        values = np.asarray(self.values[frame])
        movers = nearest(np.asarray(self.roles[frame]) == Role.MOVER, values.shape)
        return np.where(movers, values.dtype.type(0), values)
