"""Sharpness of depth at object borders: Depth Pro's scale-invariant boundary F1, and its form for masks.

Inverse depth is compared between neighbours: a pair whose ratio exceeds a threshold is an edge, so a common factor
changes nothing. There is no tolerance: an edge one pixel off does not match (Bochkovskii et al., Depth Pro, 2024).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import ShapeError
from stf_depth.evaluation.metrics import Measure
from stf_depth.types import BoolArray, Float32Array, Float64Array

__all__ = ["boundary_f1", "boundary_recall", "boundary_thresholds", "segment_edge_recall"]

Array = NDArray[Any]
T = TypeVar("T", bound=np.generic)

INVERSE_FLOOR = 1e-6
MASK_THRESHOLD = 0.1


def boundary_thresholds() -> tuple[Float64Array, Float64Array]:
    """Ten ratios, linear from 1.05 to 1.25, and their weights, proportional to the ratios and summing to 1."""
    thresholds = np.linspace(1.05, 1.25, 10)
    return thresholds, thresholds / thresholds.sum()


def _pairs(values: NDArray[T]) -> tuple[tuple[NDArray[T], NDArray[T]], tuple[NDArray[T], NDArray[T]]]:
    """(left, right) and (upper, lower) neighbours."""
    return (values[:, :-1], values[:, 1:]), (values[:-1], values[1:])


def _neighbours(values: NDArray[T]) -> Iterator[tuple[NDArray[T], NDArray[T]]]:
    """(here, there) of the four directions: right, left, below, above."""
    for first, second in _pairs(values):
        yield first, second
        yield second, first


def _ratios(values: Float64Array) -> list[Float64Array]:
    with np.errstate(invalid="ignore"):
        return [there / here for here, there in _neighbours(values)]


def boundary_f1(depth: Array, truth: Array, *, valid: BoolArray | None = None) -> Measure:
    """sum_t w_t F1(t), F1 = 2PR/(P+R), P(t) and R(t) the means over four directions of matched / flagged pairs.

    depth, truth: (H, W), any common unit, q = 1 / max(depth, 1e-6); a pair is flagged where q_there / q_here > t.
    valid: pairs with a pixel outside are left out. A pair without a prediction is a false edge where the truth has
    none, and a missed one where it has. NaN and the reason when the truth has no edge at the lowest threshold.
    """
    if depth.shape != truth.shape or depth.ndim != 2:
        raise ShapeError("depth and truth must be frames of one size", expected=truth.shape, got=depth.shape)
    thresholds, weights = boundary_thresholds()
    candidates = _candidates(depth, truth, valid, float(thresholds[0]))
    if not any((theirs > thresholds[0]).any() for _, theirs in candidates):
        return Measure.without_support("no depth edge in the ground truth")
    return Measure(float(weights @ [_f1_at(candidates, float(t)) for t in thresholds]))


def _candidates(
    depth: Array, truth: Array, valid: BoolArray | None, lowest: float
) -> list[tuple[Float64Array, Float64Array]]:
    """Both inverse-depth ratios of each direction, where either may be an edge or ours is unknown: others never are."""
    floor = np.float32(INVERSE_FLOOR)
    ours, theirs = (np.maximum(np.asarray(values, np.float32), floor) for values in (depth, truth))
    out = []
    for axis in (1, 0):
        at = _may_be_edges(ours, theirs, valid, axis, lowest)
        beside = at + (1 if axis == 1 else depth.shape[1])
        here, there = (ours.ravel().take(side).astype(np.float64) for side in (at, beside))
        true_here, true_there = (theirs.ravel().take(side).astype(np.float64) for side in (at, beside))
        # q = 1 / depth, so q_there / q_here is depth_here / depth_there.
        out += [(here / there, true_here / true_there), (there / here, true_there / true_here)]
    return out


def _may_be_edges(
    ours: Float32Array, theirs: Float32Array, valid: BoolArray | None, axis: int, lowest: float
) -> NDArray[np.intp]:
    """Flat indices of the first pixel of every pair along ``axis`` that counts and may be an edge in either map."""
    keep = np.zeros(ours.shape, bool)
    inner = keep[:, :-1] if axis == 1 else keep[:-1]
    ours_pair, theirs_pair = _pairs(ours)[1 - axis], _pairs(theirs)[1 - axis]
    # Rounding of the quick test in float32 is far below the margin.
    np.logical_or(_may_be_edge(*ours_pair, lowest - 1e-3), _may_be_edge(*theirs_pair, lowest - 1e-3), out=inner)
    if valid is not None:
        here, beside = _pairs(valid)[1 - axis]
        inner &= here & beside
    return np.flatnonzero(keep)


def _may_be_edge(here: Float32Array, there: Float32Array, ratio: float) -> BoolArray:
    """Not surely below the ratio in both directions; so NaN may be an edge."""
    factor = np.float32(ratio)
    with np.errstate(invalid="ignore"):
        surely_flat: BoolArray = (here <= there * factor) & (there <= here * factor)
    return ~surely_flat


def _f1_at(candidates: list[tuple[Float64Array, Float64Array]], threshold: float) -> float:
    precision = recall = 0.0
    for ours, theirs in candidates:
        truth = theirs > threshold
        flagged = np.where(np.isfinite(ours), ours > threshold, ~truth)
        matched = int(np.count_nonzero(flagged & truth))
        precision += matched / max(int(np.count_nonzero(flagged)), 1) / 4
        recall += matched / max(int(np.count_nonzero(truth)), 1) / 4
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _thinned(ratio: Float64Array, threshold: float, axis: int) -> BoolArray:
    """In every run of ratios above the threshold along ``axis``, keep the largest (the first of equals)."""
    lines = np.moveaxis(ratio, axis, -1)
    with np.errstate(invalid="ignore"):
        flagged = lines > threshold
    padded = np.pad(flagged, ((0, 0), (1, 0)))
    starts = (padded[:, 1:] & ~padded[:, :-1]).ravel()
    flat = flagged.ravel()
    positions = np.flatnonzero(flat)
    kept = np.zeros(flat.size, bool)
    if positions.size:
        run = np.cumsum(starts)[positions]
        values = lines.ravel()[positions]
        order = np.lexsort((positions, -values, run))
        first = np.r_[True, np.diff(run[order]) > 0]
        kept[positions[order[first]]] = True
    return np.moveaxis(kept.reshape(flagged.shape), -1, axis)


def boundary_recall(disparity: Array, alpha: Array) -> Measure:
    """sum_t w_t R(t): share of the mask's edges that thinned edges of the disparity hit, mean over four directions.

    disparity: (H, W) inverse depth up to a factor. alpha: (H, W), foreground (the nearer side) where alpha > 0.1.
    Edges are thinned along rows and columns. A missing prediction hits nothing. NaN and the reason without a mask edge.
    """
    if disparity.shape != alpha.shape or disparity.ndim != 2:
        raise ShapeError("disparity and mask must be frames of one size", expected=alpha.shape, got=disparity.shape)
    foreground = np.asarray(alpha) > MASK_THRESHOLD
    edges = [there & ~here for here, there in _neighbours(foreground)]
    if not any(edge.any() for edge in edges):
        return Measure.without_support("no edge in the mask")
    ratios = _ratios(np.maximum(np.asarray(disparity, np.float64), INVERSE_FLOOR))
    thresholds, weights = boundary_thresholds()
    recalls = []
    for threshold in thresholds:
        thin = [_thinned(ratio, float(threshold), axis) for ratio, axis in zip(ratios, (1, 1, 0, 0), strict=True)]
        hits = [
            int(np.count_nonzero(a & b)) / max(int(np.count_nonzero(b)), 1) for a, b in zip(thin, edges, strict=True)
        ]
        recalls.append(sum(hits) / 4)
    return Measure(float(weights @ recalls))


def segment_edge_recall(disparity: Array, ids: Array) -> Measure:
    """As ``boundary_recall``, for segment ids (H, W) where either side may be the nearer; id 0 is unlabelled.

    A border between two labelled segments is hit by a thinned edge of either sign. Not every border is a depth edge,
    so values compare only between predictions for the same masks.
    """
    if disparity.shape != ids.shape or disparity.ndim != 2:
        raise ShapeError("disparity and ids must be frames of one size", expected=ids.shape, got=disparity.shape)
    pairs = _pairs(np.asarray(ids))
    edges = [(here != there) & (here != 0) & (there != 0) for here, there in pairs]
    if not any(edge.any() for edge in edges):
        return Measure.without_support("no border between two segments")
    ratios = _ratios(np.maximum(np.asarray(disparity, np.float64), INVERSE_FLOOR))
    thresholds, weights = boundary_thresholds()
    recalls = []
    for threshold in thresholds:
        thin = [_thinned(ratio, float(threshold), axis) for ratio, axis in zip(ratios, (1, 1, 0, 0), strict=True)]
        either = [thin[0] | thin[1], thin[2] | thin[3]]
        found = sum(int(np.count_nonzero(a & b)) for a, b in zip(either, edges, strict=True))
        recalls.append(found / sum(int(np.count_nonzero(edge)) for edge in edges))
    return Measure(float(weights @ recalls))
