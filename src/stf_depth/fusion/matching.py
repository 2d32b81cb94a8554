"""Which pixels of two frames lie in the same segment, though each frame numbers its segments anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from stf_depth.fusion.reader import FrameCache
from stf_depth.fusion.trajectory import Place, Targets, Tolerance, at_nearest, at_size, is_inside, pixel_grid

__all__ = ["NearCounterparts", "SegmentMatches"]


class _Numbered(NamedTuple):
    """Numbers from 0 on in place of ids, (1, 1, H, W) int32, and the ids (N,) that they stand for."""

    numbers: Tensor
    ids: Tensor


class SegmentMatches:
    """Compares segments along given positions. A counterpart shares more than half of its union with a segment."""

    def __init__(self, segments: Callable[[int], Tensor], capacity: int) -> None:
        """segments: frame -> ids (1, 1, H, W) int32, 0 for none. capacity: of how many frames numbers are kept."""
        self._numbered = FrameCache(lambda frame: _numbered(segments(frame)), capacity)

    def __call__(self, frame: int, other: int, position: Tensor, known: Tensor) -> Tensor:
        """(1, 1, H, W) bool: whether a pixel's place in ``other`` lies in the counterpart of its own segment.

        position: that place, (1, 2, H, W). known: bool, where it is known. False where either place has no segment.
        """
        mine, theirs = self._numbered(frame), self._numbered(other)
        pair = at_nearest(theirs.numbers, position) * len(mine.ids) + mine.numbers
        return _read(_counterparts(pair, known, mine, theirs), pair) & known

    def widened(self, frame: int, narrow: Tensor, wide: Tensor) -> Tolerance:
        """``narrow``, and ``wide`` where a value comes from the counterpart of the pixel's own segment."""

        def tolerance(other: int, position: Tensor, known: Tensor) -> Tensor:
            return torch.where(self(frame, other, position, known), wide, narrow)

        return tolerance


class NearCounterparts:
    """Compares segments of a frame and of those close to it; counterparts are told once for each pair of frames.

    That is done along flow, and at the pixels of the flow alone, of which there may be fewer.
    """

    def __init__(
        self, segments: Callable[[int], Tensor], near: Callable[[int], Sequence[Place]], capacity: int
    ) -> None:
        """segments: frame -> ids (1, 1, H, W) int32, 0 for none. near: frame -> where its pixels are in the others.

        capacity: of how many frames results are kept.
        """
        self._near = near
        self._numbered = FrameCache(lambda frame: _numbered(segments(frame)), capacity)
        self._tables = FrameCache(self._made, capacity)

    def __call__(self, frame: int, other: int, position: Tensor, targets: Targets) -> Tensor:
        """Whether the targets' places in ``other``, (1, 2, ...), lie in the counterparts of their segments: bool."""
        return _read(self._tables(frame)[other], self._pairs(frame, other, position, targets))

    def widened(self, frame: int, narrow: float, wide: float, pixels: Tensor | None = None) -> Tolerance:
        """``narrow``, and ``wide`` where a value comes from the counterpart of the pixel's own segment.

        pixels: flat indices (N,), where it is asked for those alone.
        """
        targets = Targets(self._numbered(frame).numbers.shape[-2:], pixels)

        def tolerance(other: int, position: Tensor, known: Tensor) -> Tensor:
            del known
            # Choosing in the small table is many times faster than at the pixels.
            chosen = torch.where(self._tables(frame)[other], wide, narrow)
            return _read(chosen, self._pairs(frame, other, position, targets))

        return tolerance

    def _pairs(self, frame: int, other: int, position: Tensor, targets: Targets) -> Tensor:
        mine, theirs = self._numbered(frame), self._numbered(other)
        return at_nearest(theirs.numbers, position) * len(mine.ids) + targets.of(mine.numbers)

    def _made(self, frame: int) -> dict[int, Tensor]:
        mine, tables = self._numbered(frame), {}
        for other, position, alive in self._near(frame):
            theirs = self._numbered(other)
            own, their = (
                at_nearest(numbered.numbers, at_size(there, position.shape[-2:], numbered.numbers.shape[-2:]))
                for numbered, there in ((mine, pixel_grid(position)), (theirs, position))
            )
            known = (alive > 0.5) & is_inside(position, position.shape[-2:])
            tables[other] = _counterparts(their * len(mine.ids) + own, known, mine, theirs)
        return tables


def _numbered(segments: Tensor) -> _Numbered:
    ids, numbers = torch.unique(segments, return_inverse=True)
    return _Numbered(numbers.int(), ids)


def _counterparts(pair: Tensor, known: Tensor, mine: _Numbered, theirs: _Numbered) -> Tensor:
    """Which pairs, (their number) * (count of mine) + (my number), are one thing by the pixels that are known: bool."""
    shape = (len(theirs.ids), len(mine.ids))
    # Place 0 takes the others.
    counts = torch.bincount(((pair + 1) * known).flatten(), minlength=1 + shape[0] * shape[1])
    shared = counts[1:].view(shape)
    union = shared.sum(0) + shared.sum(1, keepdim=True) - shared
    return ((2 * shared > union) & (theirs.ids != 0)[:, None] & (mine.ids != 0)).flatten()


def _read(table: Tensor, index: Tensor) -> Tensor:
    return table.index_select(0, index.flatten()).view(index.shape)
