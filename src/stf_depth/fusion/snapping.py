"""What snapping adds to a frame's edges, made steady over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from stf_depth.fusion.trajectory import Steps, look_up, places

__all__ = ["voted_along_flow"]


def voted_along_flow(
    values: Callable[[int], Tensor],
    labels: Callable[[int], Tensor],
    steps: Steps,
    frame: int,
    frame_count: int,
    *,
    reach: int,
) -> Tensor:
    """What most frames within ``reach`` say of each pixel, followed along checked flow: (1, 1, H, W).

    Where more than half of them have it in the segment that ``frame`` has it in, the mean of their values, so that
    values of the two sides of a border are not mixed; elsewhere the border trembles, and the median of all values
    counts. values: (1, 1, H, W). labels: (1, 1, H, W) int32. steps: of any size (h, w).
    """
    own = labels(frame)
    found = [(values(frame), torch.ones_like(own, dtype=torch.bool), torch.ones_like(own, dtype=torch.bool))]
    size = (int(own.shape[-2]), int(own.shape[-1]))
    for other, _, there, alive in places(size, steps, frame, frame_count, reach):
        value, inside = look_up(values(other), there)
        known = (alive > 0.5) & (inside > 0)
        found.append((value, known, known & _in_same_segment(own, _label_at(labels(other), there), known)))
    value, known, same = (torch.cat(part, 1) for part in zip(*found, strict=True))
    mean = (value * same).sum(1, keepdim=True) / same.sum(1, keepdim=True)
    return torch.where(2 * same.sum(1, keepdim=True) > known.sum(1, keepdim=True), mean, _median(value, known))


def _in_same_segment(own: Tensor, theirs: Tensor, known: Tensor) -> Tensor:
    """Where a pixel lies in the counterpart of its own segment: one that shares more than half of their union.

    Most masks number their segments frame by frame. All (1, 1, H, W); known: where theirs is.
    """
    own_ids, mine = torch.unique(own, return_inverse=True)
    their_ids, other = torch.unique(theirs, return_inverse=True)
    shape = (len(their_ids), len(own_ids))
    shared = torch.bincount((other * shape[1] + mine)[known], minlength=shape[0] * shape[1]).view(shape)
    union = shared.sum(0) + shared.sum(1, keepdim=True) - shared
    return (2 * shared > union)[other, mine]


def _median(values: Tensor, known: Tensor) -> Tensor:
    """The median of those known of values (1, N, H, W), one at least; of an even number the mean of the middle two."""
    ordered, count = torch.where(known, values, torch.inf).sort(1).values, known.sum(1, keepdim=True)
    return (ordered.gather(1, (count - 1) // 2) + ordered.gather(1, count // 2)) / 2


def _label_at(labels: Tensor, position: Tensor) -> Tensor:
    height, width = labels.shape[-2:]
    x = position[:, 0].round().long().clamp(0, width - 1)
    y = position[:, 1].round().long().clamp(0, height - 1)
    return labels[0, 0][y, x][None]
