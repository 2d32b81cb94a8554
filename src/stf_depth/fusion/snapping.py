"""What snapping adds to a frame's edges, made steady over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stf_depth.fusion.matching import SegmentMatches
from stf_depth.fusion.trajectory import Steps, look_up, places

__all__ = ["voted_along_flow"]


def voted_along_flow(
    values: Callable[[int], Tensor],
    matches: SegmentMatches,
    steps: Steps,
    frame: int,
    frame_count: int,
    *,
    reach: int,
) -> Tensor:
    """What most frames within ``reach`` say of each pixel, followed along checked flow: (1, 1, H, W).

    Where more than half of them have it in the segment that ``frame`` has it in, the mean of their values, so that
    values of the two sides of a border are not mixed; elsewhere the border trembles, and the median of all values
    counts. values: (1, 1, H, W). steps: of any size (h, w).
    """
    own = values(frame)
    found = [(own, torch.ones_like(own, dtype=torch.bool), torch.ones_like(own, dtype=torch.bool))]
    size = (int(own.shape[-2]), int(own.shape[-1]))
    for other, _, there, alive in places(size, steps, frame, frame_count, reach):
        value, inside = look_up(values(other), there)
        known = (alive > 0.5) & (inside > 0)
        found.append((value, known, matches(frame, other, there, known)))
    value, known, same = (torch.cat(part, 1) for part in zip(*found, strict=True))
    mean = (value * same).sum(1, keepdim=True) / same.sum(1, keepdim=True)
    return torch.where(2 * same.sum(1, keepdim=True) > known.sum(1, keepdim=True), mean, _median(value, known))


def _median(values: Tensor, known: Tensor) -> Tensor:
    """The median of those known of values (1, N, H, W), one at least; of an even number the mean of the middle two."""
    ordered, count = torch.where(known, values, torch.inf).sort(1).values, known.sum(1, keepdim=True)
    return (ordered.gather(1, (count - 1) // 2) + ordered.gather(1, count // 2)) / 2
