"""What snapping adds to a frame's edges, made steady over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from stf_depth.fusion.resampling import resize
from stf_depth.fusion.trajectory import Steps, followed, look_up, pixel_grid

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

    Where more than half of them give it the label that ``frame`` does, the mean of the values under that label, so that
    values of the two sides of a border are not mixed; elsewhere the border trembles, and the median of all values
    counts. values: (1, 1, H, W). labels: (1, 1, H, W) int32. steps: of any size (h, w).
    """
    own = labels(frame)
    found = [(values(frame), torch.ones_like(own, dtype=torch.bool), torch.ones_like(own, dtype=torch.bool))]
    for other, there, known in _places(own.shape[-2:], steps, frame, frame_count, reach):
        value, inside = look_up(values(other), there)
        known = known & (inside > 0)
        found.append((value, known, known & (_label_at(labels(other), there) == own)))
    value, known, same = (torch.cat(part, 1) for part in zip(*found, strict=True))
    mean = (value * same).sum(1, keepdim=True) / same.sum(1, keepdim=True)
    median = torch.nanmedian(torch.where(known, value, torch.nan), 1, keepdim=True).values
    return torch.where(2 * same.sum(1, keepdim=True) > known.sum(1, keepdim=True), mean, median)


def _places(
    size: torch.Size, steps: Steps, frame: int, frame_count: int, reach: int
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Other frames, where the pixels of ``frame`` are in them, (1, 2, H, W), and where that is known."""
    height, width = size
    for direction in (1, -1):
        for other, position, alive in followed(steps, frame, frame_count, direction, reach):
            x, y = resize(position - pixel_grid(position), (height, width)).chunk(2, 1)
            moved = torch.cat([x * (width / position.shape[-1]), y * (height / position.shape[-2])], 1)
            yield other, pixel_grid(moved) + moved, resize(alive, (height, width)) > 0.5


def _label_at(labels: Tensor, position: Tensor) -> Tensor:
    height, width = labels.shape[-2:]
    x = position[:, 0].round().long().clamp(0, width - 1)
    y = position[:, 1].round().long().clamp(0, height - 1)
    return labels[0, 0][y, x][None]
