"""Frames made from other frames when they are asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.types import Frames

__all__ = ["MappedFrames"]


class MappedFrames:
    """A function of one or more frame stacks, applied frame by frame when a frame is asked for."""

    def __init__(self, function: Callable[..., NDArray[Any]], *sources: Frames) -> None:
        self._function = function
        self._sources = sources

    @property
    def shape(self) -> tuple[int, ...]:
        return self._sources[0].shape

    def __len__(self) -> int:
        return len(self._sources[0])

    def __getitem__(self, index: Any, /) -> NDArray[Any]:
        if isinstance(index, slice):
            return np.stack([self[i] for i in range(*index.indices(len(self)))])
        return self._function(*(source[index] for source in self._sources))
