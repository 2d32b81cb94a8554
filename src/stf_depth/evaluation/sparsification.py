"""Whether confidence ranks errors: the area between two sparsification curves (Ilg et al., ECCV 2018).

Pixels are taken away in steps, the least confident first, and the mean error of the rest is followed; the oracle takes
the largest errors away first.
"""

from __future__ import annotations

import numpy as np

from stf_depth.evaluation.metrics import Measure
from stf_depth.types import Float32Array, Float64Array

__all__ = ["MOST_PIXELS", "sparsification_area"]

STEPS = 20
# A frame has far more pixels than a curve of STEPS points needs.
MOST_PIXELS = 20_000


def sparsification_area(error: Float64Array, confidence: Float32Array) -> Measure:
    """(1 / n) sum over k < n of (C(k / n) - O(k / n)) / mean error, n = ``STEPS``.

    C(f) is the mean error of what is left without the share f of the lowest confidence, O(f) without that of the
    largest errors. 0 for a confidence that orders the errors perfectly; pixels of one confidence count with their
    mean error, so a constant confidence gets what a random order is expected to. error, confidence: (N,), finite.
    NaN and the reason without pixels or without error.
    """
    if not error.size:
        return Measure.without_support("no pixel with ground truth")
    mean = float(error.mean())
    if mean <= 0:
        return Measure.without_support("no error to rank")
    _, rank, count = np.unique(confidence, return_inverse=True, return_counts=True)
    shared = np.bincount(rank, weights=error) / count
    by_confidence = np.repeat(shared, count)
    area = np.mean(_rest(by_confidence) - _rest(np.sort(error)[::-1])) / mean
    return Measure(float(area))


def _rest(ordered: Float64Array) -> Float64Array:
    """Mean of what is left after the first k / STEPS of ``ordered``, (STEPS,)."""
    total = np.cumsum(ordered[::-1])[::-1]
    starts = np.arange(STEPS) * ordered.size // STEPS
    return np.asarray(total[starts] / (ordered.size - starts), np.float64)
