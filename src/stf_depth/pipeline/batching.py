"""As many frames at once as the device has room for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from stf_depth.errors import DeviceMemoryError
from stf_depth.types import Uint8Array

__all__ = ["HalvingBatch"]

Maps = TypeVar("Maps")


class HalvingBatch(Generic[Maps]):
    """Calls ``infer`` on whole batches, and on halves from the moment that the device runs out of memory.

    tell: receives a line for the user each time the batch is halved. Raises DeviceMemoryError when one frame alone
    does not fit.
    """

    def __init__(self, infer: Callable[[Uint8Array], Maps], tell: Callable[[str], None]) -> None:
        self._infer, self._tell = infer, tell
        self._limit: int | None = None

    def __call__(self, rgb: Uint8Array) -> list[Maps]:
        """rgb (N, H, W, 3) uint8 -> results that together cover the N frames in order."""
        parts: list[Maps] = []
        done = 0
        while done < len(rgb):
            size = min(self._limit or len(rgb), len(rgb) - done)
            try:
                parts.append(self._infer(rgb[done : done + size]))
            except DeviceMemoryError as error:
                if size == 1:
                    raise
                self._limit = size // 2
                self._tell(f"{error.what}: going on with {self._limit} frames at once")
            else:
                done += size
        return parts
