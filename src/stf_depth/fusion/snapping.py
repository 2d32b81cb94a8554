"""What snapping adds to a frame's edges, made steady over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stf_depth.fusion.matching import NearCounterparts
from stf_depth.fusion.trajectory import Place, Targets, is_inside, look_up

__all__ = ["Snap", "snap_of", "voted_along_flow"]

_MARGIN_PX = 2  # of the low band: what rounding its positions may miss


class Snap(NamedTuple):
    """What snapping adds to a frame, (1, 1, H, W), and a mask of where that may be something, (1, 1, h, w)."""

    added: Tensor
    touched: Tensor


def snap_of(added: Tensor, low_size: tuple[int, int]) -> Snap:
    """``added`` with its mask on the low band."""
    cells = F.adaptive_max_pool2d(added.abs(), low_size)
    return Snap(added, F.max_pool2d(cells, 2 * _MARGIN_PX + 1, stride=1, padding=_MARGIN_PX))


def voted_along_flow(
    snaps: Callable[[int], Snap], matches: NearCounterparts, frame: int, places: Sequence[Place]
) -> Tensor:
    """What most of the frames that ``places`` follow each pixel to say of it: (1, 1, H, W).

    Where more than half of them have it in the segment that ``frame`` has it in, the mean of their values, so that
    values of the two sides of a border are not mixed; elsewhere the border trembles, and the median of all values
    counts.
    """
    own, touched = snaps(frame)
    for place in places:
        touched = torch.maximum(touched, look_up(snaps(place.other).touched, place.position, "nearest"))
    # Edges are few of a picture's pixels, and elsewhere all say 0.
    voted = F.interpolate(touched, own.shape[-2:]).flatten().nonzero()[:, 0]
    targets = Targets(own.shape[-2:], voted)
    here = targets.of(own)
    always = torch.ones_like(here, dtype=torch.bool)
    found = [(here, always, always)]
    for other, position, alive in places:
        there = targets.moved(position)
        known = (targets.brought(alive) > 0.5) & is_inside(there, targets.size)
        found.append((look_up(snaps(other).added, there), known, matches(frame, other, there, targets) & known))
    value, known, same = (torch.cat(part) for part in zip(*found, strict=True))
    agree = same.sum(0)
    mean = (value * same).sum(0) / agree
    return targets.put(own, torch.where(2 * agree > known.sum(0), mean, _median(value, known)))


def _median(values: Tensor, known: Tensor) -> Tensor:
    """The median of those known of each column of values (K, ...), one at least; of an even number the mean of two."""
    ordered, count = torch.where(known, values, torch.inf).sort(0).values, known.sum(0, keepdim=True)
    return ((ordered.gather(0, (count - 1) // 2) + ordered.gather(0, count // 2)) / 2)[0]
