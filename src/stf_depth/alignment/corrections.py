"""What alignment adds to the log disparity of each frame of a shot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stf_depth.types import Float32Array

__all__ = ["MAX_SHIFT_TERM", "Corrections", "shift_term"]

MAX_SHIFT_TERM = 4.0  # far pixels, where 1 / disparity grows without bound, must not rule the shift


def shift_term(log_disparity: Float32Array, level: float) -> Float32Array:
    """exp(level - u), limited: how log disparity answers to a small shift."""
    term: Float32Array = np.minimum(np.exp(level - log_disparity), MAX_SHIFT_TERM)
    return term


@dataclass(frozen=True)
class Corrections:
    """log d' = u + log_scale_t + shift_t shift_term(u) + B(x) grid_t, with u = log d.

    log_scale, shift: (T,) float32. grid: (T, rows, columns) float32, handles that B interpolates bilinearly.
    """

    log_scale: Float32Array
    shift: Float32Array
    grid: Float32Array

    @staticmethod
    def none(frame_count: int, rows: int, columns: int) -> Corrections:
        """Zeros."""
        log_scale, shift = np.zeros((2, frame_count), np.float32)
        return Corrections(log_scale, shift, np.zeros((frame_count, rows, columns), np.float32))

    def fade_in(self, frames: slice, solved: Corrections, count: int) -> None:
        """Write ``solved`` over ``frames``, growing from none of it to all over the first ``count`` of them."""
        share = np.ones(len(solved.log_scale))
        share[:count] = (np.arange(count) + 0.5) / max(count, 1)
        for kept, new in zip(self._parts(), solved._parts(), strict=True):
            here = kept[frames]
            here += (share.reshape(-1, *[1] * (new.ndim - 1)) * (new - here)).astype(np.float32)

    def towards(self, other: Corrections, share: float) -> Corrections:
        """(1 - share) self + share other, share in [0, 1]."""
        own, others = self._parts(), other._parts()
        return Corrections(*((1 - share) * a + share * b for a, b in zip(own, others, strict=True)))

    def of(self, frames: slice) -> Corrections:
        """Those of some of the frames."""
        return Corrections(*(part[frames] for part in self._parts()))

    def _parts(self) -> tuple[Float32Array, Float32Array, Float32Array]:
        return self.log_scale, self.shift, self.grid
