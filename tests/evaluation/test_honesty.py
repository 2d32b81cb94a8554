"""Leaving things out, breaking them or emptying them never helps."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from stf_depth.errors import AmbiguityError, DepthError, ShapeError, SpecError
from stf_depth.evaluation.boundary import boundary_f1, boundary_recall
from stf_depth.evaluation.clips import GroundTruthClip
from stf_depth.evaluation.consistency import flicker_measure, read_disparity
from stf_depth.evaluation.evaluate import ClipScores, ScoreOptions, score_prediction
from stf_depth.evaluation.metrics import Group, tae
from stf_depth.evaluation.predictions import ArrayPrediction, open_prediction
from stf_depth.evaluation.sequences import read_sequence

FRAMES = 12
LOWER_IS_BETTER = ("abs_rel", "rmse", "tae", "tgm", "scale_drift")
HIGHER_IS_BETTER = ("delta1", "delta2", "delta3", "boundary_f1")


@pytest.fixture(scope="module")
def truth(room_sequence: Path) -> GroundTruthClip:
    return read_sequence(room_sequence)


@pytest.fixture(scope="module")
def good(truth: GroundTruthClip) -> np.ndarray:
    """Disparity with 3 % of noise."""
    rng = np.random.default_rng(3)
    depth = np.stack([truth.full_truth_m(k) for k in range(len(truth))])
    return (1 / np.maximum(depth, 0.1) * (1 + 0.03 * rng.standard_normal(depth.shape))).astype(np.float32)


def score(p: np.ndarray, truth: GroundTruthClip, **how: object) -> ClipScores:
    return score_prediction(ArrayPrediction(p, "disparity", "metric"), truth, **how)  # type: ignore[arg-type]


def assert_worse(broken: ClipScores, intact: ClipScores, group: Group) -> None:
    """Worse or without value in every metric, and never better."""
    for name in LOWER_IS_BETTER:
        assert not broken.value(name, group) <= intact.value(name, group), (group, name)
    for name in HIGHER_IS_BETTER:
        assert not broken.value(name, group) >= intact.value(name, group), (group, name)


@pytest.mark.parametrize("group", list(Group))
def test_dropping_a_tenth_of_the_frames_is_worse(good: np.ndarray, truth: GroundTruthClip, group: Group) -> None:
    frame_map = list(range(FRAMES))
    frame_map[4] = -1
    dropped = score(good, truth, frame_map=frame_map)
    assert_worse(dropped, score(good, truth), group)
    assert dropped.counts["failed_frames"] == 1
    assert any("worst depth" in note for note in dropped.notes)


@pytest.mark.parametrize("group", list(Group))
def test_nan_pixels_are_worse(good: np.ndarray, truth: GroundTruthClip, group: Group) -> None:
    broken = good.copy()
    broken[:, 20:30, 30:60] = np.nan
    assert_worse(score(broken, truth), score(good, truth), group)


@pytest.mark.parametrize("group", list(Group))
def test_hiding_the_worst_pixels_does_not_pay(good: np.ndarray, truth: GroundTruthClip, group: Group) -> None:
    depth = np.stack([truth.full_truth_m(k) for k in range(FRAMES)])
    errors = np.abs(good * depth - 1)
    hidden = np.where(errors > np.quantile(errors, 0.95), np.nan, good).astype(np.float32)
    assert score(hidden, truth).value("abs_rel", group) > score(good, truth).value("abs_rel", group)
    assert score(hidden, truth).value("tae", group) > score(good, truth).value("tae", group)


@pytest.mark.parametrize("group", list(Group))
def test_an_empty_prediction_is_worst_of_all(good: np.ndarray, truth: GroundTruthClip, group: Group) -> None:
    empty = score(np.full_like(good, np.nan), truth)
    assert_worse(empty, score(good, truth), group)
    assert empty.value("abs_rel", group) > 1
    assert empty.value("delta3", group) == 0
    assert empty.value("tae", group) == 100
    assert empty.counts["failed_frames"] == FRAMES


@pytest.mark.parametrize("group", list(Group))
def test_a_constant_prediction_is_worse_and_named(good: np.ndarray, truth: GroundTruthClip, group: Group) -> None:
    constant, intact = score(np.full_like(good, 0.4), truth), score(good, truth)
    assert constant.value("abs_rel", group) > 2 * intact.value("abs_rel", group)
    assert constant.value("boundary_f1", group) == 0
    assert any("constant" in note for note in constant.notes)


def test_zero_overlap_has_no_value_but_a_reason(good: np.ndarray, truth: GroundTruthClip) -> None:
    from dataclasses import replace

    assert truth.world_from_cam is not None
    poses = truth.world_from_cam.copy()
    turn = np.diag([-1.0, 1, -1, 1])
    poses[6:] = turn @ poses[6:]
    apart = score(good, replace(truth, world_from_cam=poses), options=ScoreOptions(published_tae=True))
    measure = apart.groups[Group.AFFINE]["tae"]
    assert math.isnan(measure.value)
    assert "no overlap in 2 of 22 warps" in measure.reason
    # The published script scores the pair as perfect, which is why it is not the default.
    intact = score(good, truth, options=ScoreOptions(published_tae=True))
    assert apart.value("tae_vda", "affine") < intact.value("tae_vda", "affine")


def test_no_frame_with_ground_truth_has_no_value_but_a_reason(good: np.ndarray, truth: GroundTruthClip) -> None:
    from dataclasses import replace

    nothing = replace(truth, d_max_m=1e-3)
    scores = score(good, nothing)
    assert math.isnan(scores.value("abs_rel", "affine"))
    assert "ground truth" in scores.groups[Group.AFFINE]["abs_rel"].reason
    assert scores.counts["frames_without_truth"] == FRAMES


def test_differing_frame_counts_are_an_error(good: np.ndarray, truth: GroundTruthClip) -> None:
    with pytest.raises(ShapeError, match="differ in frames"):
        score(good[:-1], truth)
    with pytest.raises(ShapeError, match="frame map"):
        score(good, truth, frame_map=[0, 1])
    with pytest.raises(ShapeError, match="frame map"):
        score(good, truth, frame_map=[FRAMES] * FRAMES)
    assert score(good[:-1], truth, frame_map=[*range(FRAMES - 1), -1]).counts["failed_frames"] == 1


def test_a_frame_map_takes_the_right_frames(good: np.ndarray, truth: GroundTruthClip) -> None:
    mapped = score(good[::-1], truth, frame_map=list(range(FRAMES))[::-1])
    assert mapped.as_json()["groups"] == score(good, truth).as_json()["groups"]


def test_swapped_near_and_far_is_noted(good: np.ndarray, truth: GroundTruthClip) -> None:
    swapped = score(good.max() + 0.1 - good, truth)
    assert any("swapped" in note for note in swapped.notes)


def test_clamped_disparity_is_noted(good: np.ndarray, truth: GroundTruthClip) -> None:
    assert any("0.001" in note for note in score(good - 0.3, truth).notes)


def test_missing_predictions_make_flicker_worse(good: np.ndarray, truth: GroundTruthClip) -> None:
    rgb = np.stack([truth.rgb(k) for k in range(FRAMES)])
    broken = good.copy()
    broken[5] = np.nan
    assert flicker_measure(broken, rgb).value > flicker_measure(good, rgb).value + 5
    for useless in (np.full_like(good, 0.5), np.full_like(good, np.nan)):
        assert math.isnan(flicker_measure(useless, rgb).value)
        assert "constant or empty" in flicker_measure(useless, rgb).reason


def test_small_maps_are_enlarged_smoothly_and_large_ones_averaged() -> None:
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32), (1, 4, 8))
    grown = read_disparity(ramp, 0, (24, 12))
    np.testing.assert_allclose(grown[:, 1:-1], np.broadcast_to((np.arange(1, 23) + 0.5) / 3 - 0.5, (12, 22)), atol=1e-2)
    np.testing.assert_allclose(read_disparity(ramp, 0, (4, 2))[0], [0.5, 2.5, 4.5, 6.5])


def test_missing_predictions_never_sharpen(rng: np.random.Generator) -> None:
    truth = np.where(np.arange(24) < 12, 2.0, 4.0)[None].repeat(16, 0)
    predicted = truth * rng.uniform(0.9, 1.1, truth.shape)
    value = boundary_f1(predicted, truth).value
    for hidden in (predicted > 3, np.abs(predicted / truth - 1) > 0.05, rng.random(truth.shape) < 0.1):
        assert boundary_f1(np.where(hidden, np.nan, predicted), truth).value < value
    mask = (truth < 3).astype(np.float32)
    assert boundary_recall(np.full(truth.shape, np.nan), mask).value == 0
    assert math.isnan(boundary_f1(predicted, np.full(truth.shape, 2.0)).value)
    assert math.isnan(boundary_recall(predicted, np.ones(truth.shape)).value)


def test_true_depth_beats_every_flat_one_in_all_but_tae(truth: GroundTruthClip) -> None:
    depth = np.stack([truth.full_truth_m(k) for k in range(FRAMES)])
    assert truth.world_from_cam is not None
    assert truth.K is not None
    flat = tae(np.full_like(depth, 2.0), truth.world_from_cam, truth.K).value
    # Flat depth moves with the camera almost without error: TAE alone says nothing about accuracy.
    assert flat < tae(depth, truth.world_from_cam, truth.K).value + 2


def test_affine_z_depth_is_refused(good: np.ndarray) -> None:
    with pytest.raises(AmbiguityError):
        ArrayPrediction(good, "z_depth", "affine")


def test_unstated_meaning_is_refused(good: np.ndarray, tmp_path: Path) -> None:
    np.savez(tmp_path / "depth.npz", depth=good)
    with pytest.raises(SpecError, match="meaning"):
        open_prediction(tmp_path / "depth.npz")
    with pytest.raises(DepthError):
        open_prediction(tmp_path / "depth.npz", representation="z_depth", ambiguity="affine")
    assert len(open_prediction(tmp_path / "depth.npz", representation="disparity", ambiguity="affine")) == FRAMES
