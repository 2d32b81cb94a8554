"""Score predictions against ground truth: two passes over the frames, a few at a time, on several threads.

The first pass accumulates the least squares of the alignment, the second scores. Spans of frames are scored apart
and merged in order, so the number of threads changes nothing but the time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from stf_depth.config import FrozenConfig
from stf_depth.errors import ShapeError
from stf_depth.evaluation.clips import GroundTruthClip
from stf_depth.evaluation.datasets import Setting, dataset
from stf_depth.evaluation.metrics import (
    Fit,
    FitSums,
    Group,
    Measure,
    fit_sums,
    groups_for,
    prepare_disparity,
    resize_map,
    truth_mask,
)
from stf_depth.evaluation.predictions import Confident, MissingPrediction, Prediction, open_prediction
from stf_depth.evaluation.report import markdown_table, measure_to_json, terminal_table, write_json
from stf_depth.evaluation.sequences import read_sequence
from stf_depth.evaluation.span import SPAN_FRAMES, SpanScore, score_span
from stf_depth.types import Ambiguity, BoolArray, Float32Array, Representation

__all__ = ["ClipScores", "ScoreOptions", "evaluate_dataset", "evaluate_sequence", "score_prediction"]

T = TypeVar("T")


class ScoreOptions(FrozenConfig):
    """published_tae: also the alignment error as published scripts compute it. boundaries: also boundary F1.

    view: whether predictions cover the whole frame or only the dataset's crop. workers: threads.
    """

    published_tae: bool = False
    boundaries: bool = True
    view: Literal["full", "cropped"] = "full"
    workers: int = 2


@dataclass(frozen=True)
class ClipScores:
    """Scores of one clip, or the mean over ``clips``, under each alignment group.

    groups: group -> metric -> measure. counts: frames, failed frames and pixels, what was left out. notes: anything
    a reader of the numbers should know.
    """

    name: str
    groups: Mapping[Group, Mapping[str, Measure]]
    counts: Mapping[str, int]
    fits: Mapping[Group, Fit] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    clips: tuple[ClipScores, ...] = ()

    def value(self, metric: str, group: Group | str) -> float:
        """One number."""
        return self.groups[Group(group)][metric].value

    def as_json(self) -> dict[str, Any]:
        """Plain values; a measure without support is null with its reason."""
        return {
            "name": self.name,
            "counts": dict(self.counts),
            "groups": {
                group.value: {metric: measure_to_json(measure) for metric, measure in measures.items()}
                for group, measures in self.groups.items()
            },
            "fits": {group.value: [fit.scale, fit.shift] for group, fit in self.fits.items()},
            "notes": list(self.notes),
            "clips": [clip.as_json() for clip in self.clips],
        }

    def write_json(self, path: Path) -> None:
        """Write ``as_json`` to a file; raises OutputError."""
        write_json(self.as_json(), path)

    def rows(self) -> list[tuple[list[str], Mapping[str, Measure]]]:
        """One row for each clip and group, those of the mean last."""
        own = [([self.name, group.value], measures) for group, measures in self.groups.items()]
        return [row for clip in self.clips for row in clip.rows()] + own

    def markdown(self) -> str:
        """A Markdown table."""
        return markdown_table(["Clip", "Alignment"], self.rows())

    def text(self) -> str:
        """A table for terminals, with notes."""
        counts = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in self.counts.items() if count)
        return terminal_table(self.name, ["Clip", "Alignment"], self.rows(), [counts, *self.notes])


def evaluate_sequence(
    prediction: Path,
    sequence: Path,
    *,
    representation: Representation | str | None = None,
    ambiguity: Ambiguity | str | None = None,
    frame_map: Sequence[int] | None = None,
    d_max_m: float = 10.0,
    options: ScoreOptions | None = None,
) -> ClipScores:
    """Score a prediction against a sequence folder, under every alignment group that it promises and all weaker ones.

    prediction: result folder, depth.npz, or anything that ``precomputed`` reads. frame_map: for each frame of the
    sequence the number of the predicted frame, -1 for none.

    Raises ShapeError when the frame counts differ and no ``frame_map`` is given, and what ``open_prediction`` and
    ``read_sequence`` raise.
    """
    clip = read_sequence(sequence, d_max_m=d_max_m)
    found = open_prediction(prediction, representation=representation, ambiguity=ambiguity)
    return score_prediction(found, clip, frame_map=frame_map, options=options)


def evaluate_dataset(
    name: str,
    root: Path,
    predictions: Path,
    *,
    setting: Setting | str | None = None,
    representation: Representation | str | None = None,
    ambiguity: Ambiguity | str | None = None,
    options: ScoreOptions | None = None,
) -> ClipScores:
    """Score the clips of a dataset; ``predictions`` holds a result folder, an .npz or a folder of maps for each.

    Predictions are named as the clips are. A clip without one fails in every pixel. Values are means over clips.

    Raises UsageError for an unknown dataset or setting, and what ``evaluate_sequence`` raises.
    """
    entry = dataset(name)
    clips = entry.clips(root, setting)
    scores = []
    for clip in clips:
        path = _prediction_path(predictions, clip.name)
        if path is None:
            found: Prediction = MissingPrediction(clip.name, len(clip), Ambiguity(ambiguity or "metric"))
        else:
            found = open_prediction(path, representation=representation, ambiguity=ambiguity)
        scores.append(score_prediction(found, clip, options=options))
    return mean_scores(entry.name if setting is None else f"{entry.name} {Setting(setting)}", scores)


def _prediction_path(folder: Path, clip: str) -> Path | None:
    candidates = (folder / clip, folder / f"{clip}.npz", folder / clip / "depth.npz", folder / f"{clip}.npy")
    return next((path for path in candidates if path.exists()), None)


def mean_scores(name: str, clips: Sequence[ClipScores]) -> ClipScores:
    """Mean of every metric over clips, under the groups that all clips have; clips without support are left out."""
    shared = [group for group in Group if all(group in clip.groups for clip in clips)]
    groups = {group: _mean_measures([clip.groups[group] for clip in clips]) for group in shared}
    names = {key for clip in clips for key in clip.counts}
    counts = {key: sum(clip.counts.get(key, 0) for clip in clips) for key in sorted(names)}
    notes = tuple(f"{clip.name}: {note}" for clip in clips for note in clip.notes)
    return ClipScores(name, groups, {"clips": len(clips), **counts}, notes=notes, clips=tuple(clips))


def _mean_measures(clips: Sequence[Mapping[str, Measure]]) -> dict[str, Measure]:
    out = {}
    for metric in dict.fromkeys(name for clip in clips for name in clip):
        found = [clip[metric] for clip in clips if metric in clip]
        known = [measure.value for measure in found if not np.isnan(measure.value)]
        left_out = len(found) - len(known)
        reason = f"{left_out} of {len(found)} clips without: {_first_reason(found)}" if left_out else ""
        out[metric] = Measure(float(np.mean(known)) if known else np.nan, reason)
    return out


def _first_reason(measures: Iterable[Measure]) -> str:
    return next((measure.reason for measure in measures if measure.reason), "")


def score_prediction(
    prediction: Prediction,
    clip: GroundTruthClip,
    *,
    frame_map: Sequence[int] | None = None,
    options: ScoreOptions | None = None,
) -> ClipScores:
    """Score one clip under the whole-clip protocol; see ``evaluate_sequence``."""
    options = options or ScoreOptions()
    indices = _frame_indices(prediction, clip, frame_map)
    with ThreadPoolExecutor(max(1, options.workers)) as pool:
        runner = _Runner(prediction, clip, indices, options, pool)
        sums = runner.fit()
        fits = {group: sums.solve(group) for group in groups_for(prediction.ambiguity)}
        span = runner.score(fits)
    groups = {group: scores.result() for group, scores in span.groups.items()}
    first = next(iter(span.groups.values()))
    counts = {
        "frames": len(clip),
        "frames_without_truth": first.accuracy.frames_without_truth,
        "failed_frames": first.accuracy.failed_frames,
        "failed_pixels": first.accuracy.failed_pixels,
        "pairs_without_poses": span.pairs_without_poses,
    }
    return ClipScores(clip.name, groups, counts, fits, _notes(fits, counts, span, clip))


def _notes(
    fits: Mapping[Group, Fit], counts: Mapping[str, int], span: SpanScore, clip: GroundTruthClip
) -> tuple[str, ...]:
    notes = [f"{group}: the prediction is constant or empty" for group, fit in fits.items() if fit.is_degenerate]
    notes += [
        f"{group}: negative scale, nearer and farther are swapped" for group, fit in fits.items() if fit.scale < 0
    ]
    if counts["failed_pixels"]:
        notes.append(f"{counts['failed_pixels']} pixels without a prediction count as the worst depth")
    if span.clamped_share > 0.01:
        notes.append(f"{span.clamped_share:.0%} of the predicted disparities were raised to 0.001")
    if clip.world_from_cam is None:
        notes.append(f"no temporal alignment error: {clip.poses_absent}")
    return tuple(notes)


def _frame_indices(prediction: Prediction, clip: GroundTruthClip, frame_map: Sequence[int] | None) -> list[int]:
    if frame_map is None:
        if len(prediction) != len(clip):
            raise ShapeError(
                "prediction and ground truth differ in frames",
                where=prediction.name,
                expected=len(clip),
                got=len(prediction),
                hint="State which predicted frame belongs to which with a frame map",
            )
        return list(range(len(clip)))
    indices = [int(k) for k in frame_map]
    if len(indices) != len(clip) or not all(-1 <= k < len(prediction) for k in indices):
        expected = f"{len(clip)} numbers from -1 to {len(prediction) - 1}"
        raise ShapeError("the frame map does not fit", where=prediction.name, expected=expected, got=len(indices))
    return indices


@dataclass(frozen=True)
class _Runner:
    """Reads predictions in order on this thread, and works on spans of them in the pool."""

    prediction: Prediction
    clip: GroundTruthClip
    indices: Sequence[int]
    options: ScoreOptions
    pool: ThreadPoolExecutor

    def fit(self) -> FitSums:
        """First pass: moments over the whole clip."""

        def work(start: int, frames: list[Float32Array]) -> Callable[[], FitSums]:
            return lambda: self._fit_span(start, frames)

        return reduce(FitSums.__add__, self._map(work, overlap=0), FitSums())

    def score(self, fits: Mapping[Group, Fit]) -> SpanScore:
        """Second pass."""

        def work(start: int, frames: list[Float32Array]) -> Callable[[], SpanScore]:
            sure = self._read_confidence(start, len(frames))
            return lambda: self._score_span(start, frames, sure, fits)

        return reduce(SpanScore.__add__, self._map(work, overlap=1))

    def _map(self, work: Callable[[int, list[Float32Array]], Callable[[], T]], *, overlap: int) -> Iterator[T]:
        """What ``work(start, frames)`` returns, called in the pool, for every span in order.

        ``work`` itself runs on this thread, which alone reads. Each span also gets the first ``overlap`` frames after
        it.
        """
        waiting: deque[Future[T]] = deque()
        count = len(self.indices)
        for start in range(0, count, SPAN_FRAMES):
            frames = self.prediction.read(self.indices[start : min(start + SPAN_FRAMES + overlap, count)])
            waiting.append(self.pool.submit(work(start, frames)))
            if len(waiting) > self.options.workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _read_confidence(self, start: int, count: int) -> list[Float32Array] | None:
        if not isinstance(self.prediction, Confident):
            return None
        return self.prediction.read_confidence(self.indices[start : start + count])

    def _score_span(
        self, start: int, frames: list[Float32Array], sure: list[Float32Array] | None, fits: Mapping[Group, Fit]
    ) -> SpanScore:
        prepared, truth, valid, confidence = self._prepare(start, frames, sure)
        return score_span(self.clip, start, prepared, truth, valid, fits, self.options, confidence)

    def _fit_span(self, start: int, frames: list[Float32Array]) -> FitSums:
        prepared, truth, valid, _ = self._prepare(start, frames)
        return reduce(FitSums.__add__, map(fit_sums, prepared, truth, valid), FitSums())

    def _prepare(
        self, start: int, frames: list[Float32Array], sure: list[Float32Array] | None = None
    ) -> tuple[list[Float32Array], list[Float32Array], list[BoolArray], list[Float32Array] | None]:
        """Disparity, ground truth, where it counts, and confidence, all at the pixels of the cropped ground truth."""
        prepared, truths = [], []
        confidence: list[Float32Array] | None = None if sure is None else []
        for offset, frame in enumerate(frames):
            full = self.clip.full_truth_m(start + offset)
            prepared.append(self._fitted(frame, full, prepare_disparity))
            if sure is not None and confidence is not None:
                confidence.append(self._fitted(sure[offset], full, resize_map))
            truths.append(self.clip.crop.of(full))
        return prepared, truths, [truth_mask(truth, self.clip.d_max_m) for truth in truths], confidence

    def _fitted(
        self, values: Float32Array, full: Float32Array, resize: Callable[[Float32Array, int, int], Float32Array]
    ) -> Float32Array:
        crop = self.clip.crop
        if self.options.view == "full":
            return crop.of(resize(values, *full.shape))
        return resize(values, *crop.of(full).shape)
