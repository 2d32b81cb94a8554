"""All metrics of a few consecutive frames, mergeable with those of the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from stf_depth.evaluation.accumulate import (
    AccuracyScore,
    BoundaryScore,
    DriftScore,
    MeanScore,
    TaeScore,
    TgmScore,
)
from stf_depth.evaluation.clips import GroundTruthClip
from stf_depth.evaluation.metrics import DISPARITY_FLOOR, Fit, Group, Measure, aligned_depth_m, worst_depth_m
from stf_depth.evaluation.sparsification import MOST_PIXELS, sparsification_area
from stf_depth.types import BoolArray, Float32Array, Float64Array

__all__ = ["GroupScore", "SpanOptions", "SpanScore", "score_span"]

SPAN_FRAMES = 16


class SpanOptions(Protocol):
    """What ``score_span`` needs to know."""

    @property
    def published_tae(self) -> bool: ...

    @property
    def boundaries(self) -> bool: ...


@dataclass
class GroupScore:
    """Every metric of one clip under one alignment group."""

    accuracy: AccuracyScore = field(default_factory=AccuracyScore)
    tae: TaeScore = field(default_factory=TaeScore)
    tae_vda: TaeScore | None = None
    tgm: TgmScore = field(default_factory=TgmScore)
    drift: DriftScore = field(default_factory=DriftScore)
    boundary: BoundaryScore | None = None
    ranking: MeanScore | None = None

    def __add__(self, other: GroupScore) -> GroupScore:
        return GroupScore(
            self.accuracy + other.accuracy,
            self.tae + other.tae,
            None if self.tae_vda is None or other.tae_vda is None else self.tae_vda + other.tae_vda,
            self.tgm + other.tgm,
            self.drift + other.drift,
            None if self.boundary is None or other.boundary is None else self.boundary + other.boundary,
            None if self.ranking is None or other.ranking is None else self.ranking + other.ranking,
        )

    def result(self) -> dict[str, Measure]:
        """Metric -> measure."""
        out = {**self.accuracy.result(), "tae": self.tae.result()}
        if self.tae_vda is not None:
            out["tae_vda"] = self.tae_vda.result()
        if self.boundary is not None:
            out["boundary_f1"] = self.boundary.result()
        if self.ranking is not None:
            out["ause"] = self.ranking.result()
        return {**out, "tgm": self.tgm.result(), "scale_drift": self.drift.result()}


@dataclass
class SpanScore:
    """Scores of some frames under each group, and what was met on the way."""

    groups: dict[Group, GroupScore]
    pairs_without_poses: int = 0
    clamped_pixels: int = 0
    predicted_pixels: int = 0

    def __add__(self, other: SpanScore) -> SpanScore:
        return SpanScore(
            {group: score + other.groups[group] for group, score in self.groups.items()},
            self.pairs_without_poses + other.pairs_without_poses,
            self.clamped_pixels + other.clamped_pixels,
            self.predicted_pixels + other.predicted_pixels,
        )

    @property
    def clamped_share(self) -> float:
        """Share of the predicted pixels that lay below the disparity floor."""
        return self.clamped_pixels / max(self.predicted_pixels, 1)


def score_span(
    clip: GroundTruthClip,
    start: int,
    disparity: Sequence[Float32Array],
    truth_m: Sequence[Float32Array],
    valid: Sequence[BoolArray],
    fits: Mapping[Group, Fit],
    options: SpanOptions,
    confidence: Sequence[Float32Array] | None = None,
) -> SpanScore:
    """Score frames ``start`` to ``start + SPAN_FRAMES``; one frame more is there only for the last pair."""
    out = SpanScore({group: _empty(options, has_confidence=confidence is not None) for group in fits})
    frames = min(SPAN_FRAMES, len(disparity))
    for k in range(frames):
        out.predicted_pixels += int(np.count_nonzero(np.isfinite(disparity[k])))
        out.clamped_pixels += int(np.count_nonzero(disparity[k] == np.float32(DISPARITY_FLOOR)))
    for group, fit in fits.items():
        depth_m = [aligned_depth_m(frame, fit, clip.d_max_m) for frame in disparity]
        score = out.groups[group]
        for k in range(frames):
            _score_frame(score, depth_m[k], truth_m[k], valid[k], clip.d_max_m)
            if score.ranking is not None and confidence is not None:
                score.ranking.update(_ranking(depth_m[k], truth_m[k], valid[k], confidence[k], clip.d_max_m))
        for k in range(len(disparity) - 1):
            bounds = {"valid": valid[k] & valid[k + 1], "d_max_m": clip.d_max_m}
            score.tgm.update_pair(depth_m[k], depth_m[k + 1], truth_m[k], truth_m[k + 1], **bounds)
            motion = _motion(clip, start + k)
            if motion is not None:
                _score_motion(score, depth_m[k : k + 2], valid[k : k + 2], motion)
    out.pairs_without_poses = sum(_motion(clip, start + k) is None for k in range(len(disparity) - 1))
    return out


def _empty(options: SpanOptions, *, has_confidence: bool) -> GroupScore:
    published = TaeScore(as_published=True) if options.published_tae else None
    boundary = BoundaryScore() if options.boundaries else None
    return GroupScore(tae_vda=published, boundary=boundary, ranking=MeanScore() if has_confidence else None)


def _score_frame(
    score: GroupScore, depth_m: Float64Array, truth_m: Float32Array, valid: BoolArray, d_max_m: float
) -> None:
    z, g = depth_m[valid], truth_m[valid].astype(np.float64)
    score.accuracy.update_pixels(z, g, d_max_m=d_max_m)
    # Per-frame scales are fitted in disparity, where the clip was aligned.
    score.drift.update_pixels(1.0 / z, g)
    if score.boundary is not None and g.size:
        score.boundary.update_frame(depth_m, truth_m, valid)


def _ranking(
    depth_m: Float64Array, truth_m: Float32Array, valid: BoolArray, confidence: Float32Array, d_max_m: float
) -> Measure:
    """Of relative errors; a pixel without a prediction has the worst depth and no confidence."""
    step = max(1, int(np.count_nonzero(valid)) // MOST_PIXELS)
    z, g = depth_m[valid][::step], truth_m[valid][::step].astype(np.float64)
    failed = ~np.isfinite(z)
    sure = np.where(failed | ~np.isfinite(confidence[valid][::step]), np.float32(0), confidence[valid][::step])
    z = np.where(failed, worst_depth_m(g, d_max_m), z)
    return sparsification_area(np.abs(z - g) / g, sure)


def _motion(clip: GroundTruthClip, index: int) -> tuple[Float64Array, Float64Array, Float64Array] | None:
    if clip.world_from_cam is None or clip.cropped_K is None:
        return None
    poses = clip.world_from_cam[index : index + 2]
    return (clip.cropped_K, poses[0], poses[1]) if np.isfinite(poses).all() else None


def _score_motion(
    score: GroupScore,
    depth_m: Sequence[Float64Array],
    valid: Sequence[BoolArray],
    motion: tuple[Float64Array, Float64Array, Float64Array],
) -> None:
    for tae in (score.tae, score.tae_vda):
        if tae is not None:
            tae.update(depth_m[0], depth_m[1], *motion, valid=(valid[0], valid[1]))
