"""The sparse points that each frame of a shot sees, in a temporary file: a shot may last for hours."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from stf_depth.types import Float32Array

__all__ = ["FramePoints"]

_COLUMNS = 3


class FramePoints:
    """Rows (x_px, y_px, disparity) of every frame, (n, 3) float32; frames are appended in order and read in any.

    The rows lie in a temporary file without a name that ends with this object. Any thread may read. Indexing raises
    IndexError past the last frame.
    """

    def __init__(self, frames: Iterable[ArrayLike] = ()) -> None:
        # Closed with the object, not with a block.
        self._file = tempfile.TemporaryFile(prefix="stf-depth-")  # noqa: SIM115
        self._lock = threading.Lock()
        self._offsets = [0]
        for rows in frames:
            self.append(rows)

    def __del__(self) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def append(self, rows: ArrayLike) -> None:
        """Take the points of the next frame."""
        values = np.asarray(rows, np.float32).reshape(-1, _COLUMNS)
        with self._lock:
            self._file.seek(self._offsets[-1])
            self._file.write(values.tobytes())
        self._offsets.append(self._offsets[-1] + values.nbytes)

    def __getitem__(self, frame: int) -> Float32Array:
        if not 0 <= frame < len(self):
            raise IndexError(f"frame {frame} of {len(self)}")
        start, stop = self._offsets[frame], self._offsets[frame + 1]
        with self._lock:
            self._file.seek(start)
            content = self._file.read(stop - start)
        return np.frombuffer(content, np.float32).reshape(-1, _COLUMNS)
