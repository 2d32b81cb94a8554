"""Scores that grow frame by frame and merge: ``score + other`` is the score of both parts of a clip, in order.

The accumulator of the alignment itself is ``metrics.FitSums``. Parts of one clip can be scored in parallel: a pair of
frames belongs to the part that holds its first frame.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stf_depth.evaluation.boundary import boundary_f1
from stf_depth.evaluation.consistency import opw_nvds_pair, scale_drift, scale_of, tgm_pair
from stf_depth.evaluation.flow_links import FlowLink
from stf_depth.evaluation.metrics import ACCURACY, Measure, accuracy_of, tae_pair
from stf_depth.types import BoolArray, Float32Array, Float64Array, Uint8Array

__all__ = ["AccuracyScore", "BoundaryScore", "DriftScore", "MeanScore", "NvdsScore", "TaeScore", "TgmScore"]

Array = NDArray[Any]


@dataclass
class MeanScore:
    """Mean of measures; those without support are left out and counted by reason."""

    values: list[float] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    def update(self, measure: Measure) -> None:
        """Take one measure."""
        if math.isnan(measure.value):
            self.reasons[measure.reason or "no support"] += 1
        else:
            self.values.append(measure.value)

    def __add__(self, other: MeanScore) -> MeanScore:
        return MeanScore(self.values + other.values, self.reasons + other.reasons)

    def result(self) -> Measure:
        """Mean over what has support; NaN and the commonest reason where nothing has."""
        if self.values:
            return Measure(math.fsum(self.values) / len(self.values))
        if self.reasons:
            return Measure.without_support(self.reasons.most_common(1)[0][0])
        return Measure.without_support("no frames")


@dataclass
class AccuracyScore:
    """Mean over frames of AbsRel, RMSE and delta1-3; frames without ground truth are left out and counted."""

    frames: list[dict[str, float]] = field(default_factory=list)
    frames_without_truth: int = 0
    failed_frames: int = 0

    def update(self, depth_m: Array, truth_m: Array, valid: BoolArray, *, d_max_m: float) -> None:
        """Take one aligned frame; arrays (H, W), NaN = no prediction."""
        self.update_pixels(np.asarray(depth_m[valid], np.float64), truth_m[valid].astype(np.float64), d_max_m=d_max_m)

    def update_pixels(self, z: Float64Array, g: Float64Array, *, d_max_m: float) -> None:
        """Take the valid pixels of one frame, (N,) metres."""
        if not g.size:
            self.frames_without_truth += 1
            return
        values = accuracy_of(z, g, d_max_m=d_max_m)
        self.failed_frames += int(values["failed_pixels"] == g.size)
        self.frames.append(values)

    def __add__(self, other: AccuracyScore) -> AccuracyScore:
        return AccuracyScore(
            self.frames + other.frames,
            self.frames_without_truth + other.frames_without_truth,
            self.failed_frames + other.failed_frames,
        )

    @property
    def failed_pixels(self) -> int:
        """Pixels with ground truth and without a prediction."""
        return int(sum(frame["failed_pixels"] for frame in self.frames))

    def result(self) -> dict[str, Measure]:
        """One measure for each of ``ACCURACY``."""
        if not self.frames:
            return {name: Measure.without_support("no frame with ground truth") for name in ACCURACY}
        count = len(self.frames)
        return {name: Measure(math.fsum(frame[name] for frame in self.frames) / count) for name in ACCURACY}


@dataclass
class TaeScore:
    """100 sum of both directions' errors / (2 pairs), percent; one pair without overlap makes the clip NaN.

    With ``as_published``, no z-buffer and 0 for a pair without overlap, as in the scripts behind published tables.
    """

    as_published: bool = False
    errors: list[float] = field(default_factory=list)
    pairs_without_overlap: int = 0

    def update(
        self,
        depth_m: Array,
        next_depth_m: Array,
        K: Float64Array,
        pose: Float64Array,
        next_pose: Float64Array,
        *,
        valid: tuple[BoolArray, BoolArray] | None = None,
    ) -> None:
        """Take one pair of aligned frames (H, W) in metres; poses (4, 4) world_from_cam; K at the frames' size.

        valid: where each frame has ground truth and so must have a prediction; everywhere when None.
        """
        forward = np.asarray(np.linalg.inv(next_pose) @ pose, np.float64)
        backward = np.asarray(np.linalg.inv(forward), np.float64)
        swapped = None if valid is None else valid[::-1]
        directions = (
            (depth_m, next_depth_m, forward, valid),
            (next_depth_m, depth_m, backward, swapped),
        )
        for source, target, motion, known in directions:
            error = tae_pair(source, target, K, motion, valid=known, z_buffer=not self.as_published).value
            if math.isnan(error):
                self.pairs_without_overlap += 1
                error = 0.0
            self.errors.append(error)

    def __add__(self, other: TaeScore) -> TaeScore:
        missing = self.pairs_without_overlap + other.pairs_without_overlap
        return TaeScore(self.as_published, self.errors + other.errors, missing)

    def result(self) -> Measure:
        """Percent; NaN and the reason without pairs or with a pair that does not overlap."""
        if not self.errors:
            return Measure.without_support("fewer than two frames with poses")
        if self.pairs_without_overlap and not self.as_published:
            return Measure.without_support(f"no overlap in {self.pairs_without_overlap} of {len(self.errors)} warps")
        return Measure(100.0 * math.fsum(self.errors) / len(self.errors))


@dataclass
class TgmScore(MeanScore):
    """Mean over pairs of ``consistency.tgm_pair``, metres."""

    def update_pair(self, depth_m: Array, next_depth_m: Array, truth: Array, next_truth: Array, **bounds: Any) -> None:
        """Take one pair of aligned frames; ``bounds``: valid and d_max_m of ``tgm_pair``."""
        self.update(tgm_pair(depth_m, next_depth_m, truth, next_truth, **bounds))

    def __add__(self, other: MeanScore) -> TgmScore:
        return TgmScore(self.values + other.values, self.reasons + other.reasons)


@dataclass
class DriftScore:
    """std / mean of the per-frame scales to the ground truth; frames without ground truth are left out."""

    scales: list[float] = field(default_factory=list)
    predicted_shares: list[float] = field(default_factory=list)

    def update(self, aligned_disparity: Array, truth_m: Array, valid: BoolArray) -> None:
        """Take one frame; a frame without a prediction has scale 0."""
        self.update_pixels(np.asarray(aligned_disparity[valid], np.float64), truth_m[valid].astype(np.float64))

    def update_pixels(self, p: Float64Array, g: Float64Array) -> None:
        """Take the valid pixels of one frame, (N,): aligned disparity and depth."""
        if g.size:
            self.scales.append(scale_of(p, g))
            self.predicted_shares.append(int(np.count_nonzero(np.isfinite(p))) / g.size)

    def __add__(self, other: DriftScore) -> DriftScore:
        return DriftScore(self.scales + other.scales, self.predicted_shares + other.predicted_shares)

    def result(self) -> Measure:
        """See ``consistency.scale_drift``."""
        return scale_drift(self.scales, self.predicted_shares)


@dataclass
class BoundaryScore(MeanScore):
    """Mean over frames of ``boundary.boundary_f1``; frames whose ground truth has no edge are left out."""

    def update_frame(self, depth_m: Array, truth_m: Array, valid: BoolArray) -> None:
        """Take one aligned frame (H, W)."""
        self.update(boundary_f1(depth_m, truth_m, valid=valid))

    def __add__(self, other: MeanScore) -> BoundaryScore:
        return BoundaryScore(self.values + other.values, self.reasons + other.reasons)


@dataclass
class NvdsScore:
    """Sum over pairs of ``consistency.opw_nvds_pair`` / number of frames."""

    frame_count: int
    pairs: list[Measure] = field(default_factory=list)

    def update(
        self, previous: Float32Array, current: Float32Array, rgb: tuple[Uint8Array, Uint8Array], link: FlowLink
    ) -> None:
        """Take one pair: maps (H, W), their frames (H, W, 3), and the link from the previous to the current."""
        self.pairs.append(opw_nvds_pair(previous, current, rgb[0], rgb[1], link))

    def __add__(self, other: NvdsScore) -> NvdsScore:
        return NvdsScore(self.frame_count, self.pairs + other.pairs)

    def result(self) -> Measure:
        """NaN and the reason where any pair has no support."""
        return _strict_mean(self.pairs, self.frame_count)


def _strict_mean(measures: Iterable[Measure], divisor: int) -> Measure:
    found = list(measures)
    if not found:
        return Measure.without_support("fewer than two frames")
    for measure in found:
        if math.isnan(measure.value):
            return measure
    return Measure(math.fsum(measure.value for measure in found) / divisor)
