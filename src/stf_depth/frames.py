"""Frames made from other frames when they are asked for, and maps at another size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stf_depth.types import Frames

__all__ = ["MappedFrames", "nearest"]

Kind = TypeVar("Kind", bound=np.generic)


class MappedFrames:
    """A function of one or more frame stacks, applied frame by frame when a frame is asked for.

    The last frame is kept, not to be written to: several maps of one frame are often made from the same one.
    """

    def __init__(self, function: Callable[..., NDArray[Any]], *sources: Frames) -> None:
        self._function = function
        self._sources = sources
        self._last: tuple[int, NDArray[Any]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self._sources[0].shape

    def __len__(self) -> int:
        return len(self._sources[0])

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        if isinstance(index, slice):
            return np.stack([self[i] for i in range(*index.indices(len(self)))])
        last = self._last
        if last is None or last[0] != index:
            last = index, self._function(*(source[index] for source in self._sources))
            self._last = last
        return last[1]


def nearest(values: NDArray[Kind], size: tuple[int, ...]) -> NDArray[Kind]:
    """A map (h, w) at ``size``, edges aligned: each pixel is that of the nearest centre, so that no value is new."""
    rows = ((np.arange(size[0]) + 0.5) * (values.shape[0] / size[0])).astype(np.int64)
    columns = ((np.arange(size[1]) + 0.5) * (values.shape[1] / size[1])).astype(np.int64)
    found: NDArray[Kind] = values.take(rows, 0).take(columns, 1)
    return found
