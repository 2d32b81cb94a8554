"""Say what OpenCV returns: its stubs only promise an array of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.types import Float32Array, Uint8Array

__all__ = ["as_float32", "as_uint8"]


def as_float32(array: NDArray[Any]) -> Float32Array:
    """The array as float32, copied only where it is not."""
    return np.asarray(array, np.float32)


def as_uint8(array: NDArray[Any]) -> Uint8Array:
    """The array as uint8, copied only where it is not."""
    return np.asarray(array, np.uint8)
