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
        pair, is_counterpart = self._pairs(frame, other, position, known)
        return _read(is_counterpart, pair)

    def widened(self, frame: int, narrow: float | Tensor, wide: float | Tensor) -> Tolerance:
        """``narrow``, and ``wide`` where a value comes from the counterpart of the pixel's own segment."""

        def tolerance(other: int, position: Tensor, known: Tensor) -> Tensor:
            pair, is_counterpart = self._pairs(frame, other, position, known)
            if isinstance(narrow, Tensor) or isinstance(wide, Tensor):
                return torch.where(_read(is_counterpart, pair), wide, narrow)
            # Choosing in the small table is many times faster than at the pixels.
            return _read(torch.where(is_counterpart, wide, narrow), pair)

        return tolerance

    def _pairs(self, frame: int, other: int, position: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Each pixel's pair of segments, (1, 1, H, W) int32, 0 where it is not known, and which pairs are one thing."""
        (mine, own_ids), (there, their_ids) = self._numbered(frame), self._numbered(other)
        shape = (len(their_ids), len(own_ids))
        pair = (at_nearest(there, position) * shape[1] + (mine + 1)) * known
        shared = torch.bincount(pair.flatten(), minlength=1 + shape[0] * shape[1])[1:].view(shape)
        union = shared.sum(0) + shared.sum(1, keepdim=True) - shared
        is_counterpart = (2 * shared > union) & (their_ids != 0)[:, None] & (own_ids != 0)
        return pair, F.pad(is_counterpart.flatten(), (1, 0))


def _read(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.flatten()).view(index.shape)


def _numbered(segments: Tensor) -> _Numbered:
    """Numbers from 0 on in place of ids, (1, 1, H, W) int32, and the ids that they stand for."""
    ids, numbers = torch.unique(segments, return_inverse=True)
    return numbers.int(), ids
