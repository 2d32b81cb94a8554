"""Labels made steady over time, filled in where they are missing, and distrusted where the image contradicts them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stf_depth.config import FusionConfig
from stf_depth.fusion.reader import LowFrame, LowReader
from stf_depth.fusion.resampling import resize
from stf_depth.fusion.sky import move_border_to_colours
from stf_depth.fusion.trajectory import Place, Targets, at_nearest, look_up
from stf_depth.fusion.upsample import joint_upsample
from stf_depth.types import Role

__all__ = ["Labels", "vote_role"]

_VOTES = 2  # frames asked on each side
_UNLABELLED = 0.9  # above this share, a frame's mask counts as missing
# A frame's own label needs few votes beside it; one made up from the neighbours must be sure, solid made sky is worse.
_SOME_VOTES, _ALL_VOTES = 0.2, 0.9
_MIN_SKY = 1e-3


class Labels:
    """Segments and sky of a frame at the working size, with the help of its neighbours."""

    def __init__(
        self,
        reader: LowReader,
        places: Callable[[int, int], Sequence[Place]],
        full: tuple[int, int],
        config: FusionConfig,
    ) -> None:
        """places: frame and reach -> where the frame's pixels are in those around it. full: (H, W)."""
        self._reader = reader
        self._places = places
        self._full = full
        self._config = config

    def segments(self, frame: int) -> Tensor:
        """Segment ids (1, 1, H, W) int32; a frame without them takes the nearest neighbour's, moved along the flow."""
        own = self._reader.segments(frame, self._full)
        if not _is_missing(own):
            return own
        for place in sorted(self._places(frame, _VOTES), key=lambda place: (abs(place.other - frame), place.other)):
            theirs = self._reader.segments(place.other, self._full)
            if not _is_missing(theirs):
                return at_nearest(theirs, Targets(self._full).moved(place.position))
        return own

    def sky(self, frame: int, image: Tensor) -> Tensor | None:
        """1 where there is sky, (1, 1, H, W); None where no frame around shows any."""
        near = range(max(0, frame - _VOTES), min(len(self._reader), frame + _VOTES + 1))
        if not any(bool((self._reader.frame(other).roles == int(Role.SKY)).any()) for other in near):
            return None
        vote = vote_role(self._reader.frame, frame, self._places(frame, _VOTES), Role.SKY)
        if float(vote.mean()) < _MIN_SKY:
            return None
        roles = self._reader.roles(frame, self._full)
        around = resize(F.max_pool2d(vote, 5, stride=1, padding=2), self._full)
        own = (roles == int(Role.SKY)) & (around > _SOME_VOTES)
        unknown = roles == int(Role.UNKNOWN)
        if bool((unknown & (around > _ALL_VOTES)).any()):
            filled = joint_upsample(vote, image, colour_spread=self._config.sky_colour_spread)
            own = own | (unknown & (filled > _ALL_VOTES))
        band_px = 1 + max(1, round(self._config.snap_radius * max(self._full)))
        return move_border_to_colours(own.to(image), image, band_px=band_px)


def _is_missing(segments: Tensor) -> bool:
    return float((segments == 0).float().mean()) > _UNLABELLED


def vote_role(frames: Callable[[int], LowFrame], frame: int, places: Sequence[Place], role: Role) -> Tensor:
    """Share of the frames that ``places`` follow each pixel to, and its own, that give it ``role``: (1, 1, h, w).

    A frame without any label has no vote, so a missing mask is filled in by its neighbours.
    """
    here = _mask(frames(frame), role)
    yes, votes = here[:, :1] * here[:, 1:], here[:, 1:].clone()
    for other, position, alive in places:
        found = look_up(_mask(frames(other), role), position)
        yes = yes + alive * found[:, :1] * found[:, 1:]
        votes = votes + alive * found[:, 1:]
    return yes / votes.clamp(min=1e-6)


def _mask(low: LowFrame, role: Role) -> Tensor:
    labelled = (low.roles > 0).any().to(low.valid)
    is_role = (low.roles == int(role)).to(low.valid)
    return torch.cat([is_role, torch.ones_like(is_role) * labelled], 1)
