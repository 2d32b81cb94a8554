"""Which pixels of two frames lie in the same segment, though each frame numbers its segments anew."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stf_depth.fusion.reader import FrameCache
from stf_depth.fusion.trajectory import Tolerance, at_nearest

__all__ = ["SegmentMatches"]

_Numbered = tuple[Tensor, Tensor]


class SegmentMatches:
    """Compares segments along given positions. A counterpart shares more than half of its union with a segment."""

    def __init__(self, segments: Callable[[int], Tensor], capacity: int) -> None:
        """segments: frame -> ids (1, 1, H, W) int32, 0 for none. capacity: of how many frames numbers are kept."""
        self._numbered = FrameCache(lambda frame: _numbered(segments(frame)), capacity)

    def __call__(self, frame: int, other: int, position: Tensor, known: Tensor) -> Tensor:
        """(1, 1, H, W) bool: whether a pixel's place in ``other`` lies in the counterpart of its own segment.

        position: that place, (1, 2, H, W). known: bool, where it is known. False where either place has no segment.
        """
        (mine, own_ids), (there, their_ids) = self._numbered(frame), self._numbered(other)
        shape = (len(their_ids), len(own_ids))
        nowhere = shape[0] * shape[1]
        pair = torch.where(known, at_nearest(there, position) * shape[1] + mine, nowhere).flatten()
        shared = torch.bincount(pair, minlength=nowhere + 1)[:nowhere].view(shape)
        union = shared.sum(0) + shared.sum(1, keepdim=True) - shared
        is_counterpart = (2 * shared > union) & (their_ids != 0)[:, None] & (own_ids != 0)
        return F.pad(is_counterpart.flatten(), (0, 1)).index_select(0, pair).view(known.shape)

    def widened(self, frame: int, narrow: float | Tensor, wide: float | Tensor) -> Tolerance:
        """``narrow``, and ``wide`` where a value comes from the counterpart of the pixel's own segment."""

        def tolerance(other: int, position: Tensor, known: Tensor) -> Tensor:
            return torch.where(self(frame, other, position, known), wide, narrow)

        return tolerance


def _numbered(segments: Tensor) -> _Numbered:
    """Numbers from 0 on in place of ids, (1, 1, H, W) int32, and the ids that they stand for."""
    ids, numbers = torch.unique(segments, return_inverse=True)
    return numbers.int(), ids
