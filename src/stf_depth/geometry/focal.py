"""The focal length that the tracks of a map tell, weighed against what cameras usually have."""

from __future__ import annotations

import math
from typing import Any

from stf_depth.config import GeometryConfig
from stf_depth.geometry.mapping import bounded_error_px, with_focal

__all__ = ["likeliest_focal"]

_RATIO = 1.15  # between focal lengths that are compared
_MOST_STEPS = 12


def likeliest_focal(map_: Any, usual_px: float, config: GeometryConfig) -> tuple[Any, bool]:
    """``map_`` adjusted to the likeliest focal length f, and whether its tracks tell one.

    f = argmin n ln e(f) + ln^2(f / usual) / (2 focal_spread^2), e the mean reprojection error of the map adjusted to f,
    each point's bounded, as one that comes to lie behind a camera must not decide, n = focal_views (K - 2)^2 for K key
    frames: the few of a short shot see one and the same error, of a thing that moves or a shutter that rolls, and fit
    it best at an odd focal length. Where the cost bends less by the tracks than by the spread, they tell nothing, and
    the map has the usual focal length.
    """
    profile = _Profile(map_, usual_px, config)
    best = 0
    for _ in range(_MOST_STEPS):
        lowest = min((best - 1, best, best + 1), key=profile.cost)
        if lowest == best:
            break
        best = lowest
    bend = profile.tracks_cost(best - 1) + profile.tracks_cost(best + 1) - 2 * profile.tracks_cost(best)
    if bend < (math.log(_RATIO) / config.focal_spread) ** 2:
        return profile.map_at(0), False
    around = [profile.cost(best + step) for step in (-1, 0, 1)]
    curve = around[0] + around[2] - 2 * around[1]
    offset = 0.5 * (around[0] - around[2]) / curve if curve > 0 else 0.0
    return with_focal(profile.map_at(best), usual_px * _RATIO ** (best + min(0.5, max(-0.5, offset)))), True


class _Profile:
    """The cost of focal lengths ``usual * ratio^step``; each map is adjusted from that of the step nearer to usual."""

    def __init__(self, map_: Any, usual_px: float, config: GeometryConfig) -> None:
        self._usual_px, self._spread = usual_px, config.focal_spread
        self._views: float = config.focal_views * max(0, map_.num_reg_images() - 2) ** 2
        self._maps = {0: with_focal(map_, usual_px)}

    def map_at(self, step: int) -> Any:
        """The map adjusted to the focal length of ``step``."""
        if step not in self._maps:
            nearer = self.map_at(step - 1 if step > 0 else step + 1)
            self._maps[step] = with_focal(nearer, self._usual_px * _RATIO**step)
        return self._maps[step]

    def tracks_cost(self, step: int) -> float:
        """n ln e(f)."""
        return self._views * math.log(max(bounded_error_px(self.map_at(step)), 1e-6))

    def cost(self, step: int) -> float:
        """``tracks_cost`` and what the distance from the usual focal length costs."""
        return self.tracks_cost(step) + 0.5 * (step * math.log(_RATIO) / self._spread) ** 2
