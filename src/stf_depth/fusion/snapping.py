"""What snapping adds to a frame's edges, made steady over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stf_depth.fusion.matching import SegmentMatches
from stf_depth.fusion.trajectory import Steps, is_inside, look_up, places

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
    always = torch.ones_like(own, dtype=torch.bool)
    found = [(own, always, always)]
    size = (int(own.shape[-2]), int(own.shape[-1]))
    for other, _, there, alive in places(size, steps, frame, frame_count, reach):
        known = (alive > 0.5) & is_inside(there, size)
        found.append((look_up(values(other), there), known, matches(frame, other, there, known)))
    # Edges are few of a picture's pixels, and elsewhere all say 0.
    voted = sum(value.abs() for value, _, _ in found).flatten().nonzero()[:, 0]
    value, known, same = (torch.stack([one.flatten()[voted] for one in part]) for part in zip(*found, strict=True))
    agree = same.sum(0)
    mean = (value * same).sum(0) / agree
    chosen = torch.where(2 * agree > known.sum(0), mean, _median(value, known))
    return torch.zeros_like(own).flatten().index_copy(0, voted, chosen).view(own.shape)


def _median(values: Tensor, known: Tensor) -> Tensor:
    """The median of those known of each column of values (K, N), one at least; of an even number the mean of two."""
    ordered, count = torch.where(known, values, torch.inf).sort(0).values, known.sum(0, keepdim=True)
    return ((ordered.gather(0, (count - 1) // 2) + ordered.gather(0, count // 2)) / 2)[0]
