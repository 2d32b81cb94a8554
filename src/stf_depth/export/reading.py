"""What exporters read from a result, a few frames at a time."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from stf_depth.result import DepthResult
from stf_depth.types import Ambiguity, DepthMaps, Float64Array, Representation, Shot

__all__ = ["depth_chunks", "frame_rate", "shot_of", "spans", "unit_name"]

_CHUNK_BYTES = 32 * 2**20


def depth_chunks(result: DepthResult, span: Shot | None = None) -> Iterator[tuple[int, DepthMaps]]:
    """Yield (index of the first frame, depth of consecutive frames) over the result or ``span``.

    A chunk holds at least one frame and about 32 MiB at most, whatever the length of the video.
    """
    span = span or Shot(0, len(result))
    frame_bytes = 4 * int(np.prod(result.depth.shape[1:]))
    step = max(1, _CHUNK_BYTES // frame_bytes)
    for start in range(span.start, span.stop, step):
        rows = slice(start, min(start + step, span.stop))
        depth = np.asarray(result.depth[rows], np.float32)
        valid = np.asarray(result.valid[rows], bool)
        yield start, DepthMaps(depth, valid, result.representation, result.ambiguity)


def spans(result: DepthResult, over: str) -> list[Shot]:
    """The parts of a result that share one range: each ``shot``, or the whole ``clip``."""
    return list(result.shots) if over == "shot" else [Shot(0, len(result))]


def shot_of(result: DepthResult, index: int) -> int:
    """Number of the shot that holds a frame."""
    return next(number for number, shot in enumerate(result.shots) if shot.start <= index < shot.stop)


def unit_name(representation: Representation, ambiguity: Ambiguity) -> str:
    """Unit of a depth value in words, as printed into files."""
    if ambiguity is Ambiguity.METRIC:
        return "m" if representation is Representation.Z_DEPTH else "1/m"
    if ambiguity is Ambiguity.SCALE:
        return "unknown unit, one factor per shot"
    return "unknown unit, one factor and one offset per shot"


def frame_rate(pts_seconds: Float64Array) -> Fraction:
    """Mean frame rate of (T,) times; 25 for a single frame, which has none.

    >>> import numpy as np
    >>> frame_rate(np.arange(10) * 1001 / 30000)
    Fraction(30000, 1001)
    """
    if len(pts_seconds) < 2:
        return Fraction(25)
    return Fraction((len(pts_seconds) - 1) / float(pts_seconds[-1] - pts_seconds[0])).limit_denominator(1001)
