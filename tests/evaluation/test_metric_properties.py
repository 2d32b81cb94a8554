"""Laws that every score keeps, for whatever input."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stf_depth.evaluation.accumulate import (
    AccuracyScore,
    BoundaryScore,
    DriftScore,
    MeanScore,
    NvdsScore,
    TaeScore,
    TgmScore,
)
from stf_depth.evaluation.boundary import boundary_f1, boundary_recall
from stf_depth.evaluation.consistency import scale_drift
from stf_depth.evaluation.flow_links import link_from_flow
from stf_depth.evaluation.metrics import Measure, delta, score_clip

D_MAX_M = 10.0
K = np.array([[20.0, 0, 7.5], [0, 20.0, 5.5], [0, 0, 1.0]])

seeds = st.integers(0, 2**32 - 1)
factors = st.floats(0.2, 20.0)
fast = settings(max_examples=25, deadline=None)


def truth_of(seed: int, frames: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.8, 6.0, (frames, 12, 16)).astype(np.float32)


def noisy(truth: np.ndarray, seed: int, sigma: float) -> np.ndarray:
    noise = np.random.default_rng(seed + 1).standard_normal(truth.shape)
    return (np.maximum(1 / truth * (1 + sigma * noise), 0.02)).astype(np.float32)


def poses_of(frames: int) -> np.ndarray:
    poses = np.stack([np.eye(4)] * frames)
    poses[:, 0, 3] = 0.02 * np.arange(frames)
    return poses


def score(p: np.ndarray, truth: np.ndarray, group: str) -> dict[str, float]:
    return score_clip(p, truth, group=group, d_max_m=D_MAX_M, world_from_cam=poses_of(len(truth)), K=K)


@fast
@given(seeds, factors, st.floats(0, 5.0))
def test_affine_scores_ignore_scale_and_shift(seed: int, scale: float, shift: float) -> None:
    truth = truth_of(seed)
    p = noisy(truth, seed, 0.1)
    before, after = score(p, truth, "affine"), score((scale * p + shift).astype(np.float32), truth, "affine")
    for name, value in before.items():
        assert after[name] == pytest.approx(value, rel=2e-3, abs=2e-3), name


@fast
@given(seeds, factors)
def test_scale_scores_ignore_scale(seed: int, scale: float) -> None:
    truth = truth_of(seed)
    p = noisy(truth, seed, 0.1)
    before, after = score(p, truth, "scale"), score((scale * p).astype(np.float32), truth, "scale")
    for name, value in before.items():
        assert after[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


@fast
@given(seeds, st.floats(1.3, 4.0))
def test_metric_scores_see_scale_and_scale_scores_see_shift(seed: int, factor: float) -> None:
    truth = truth_of(seed)
    p = (1 / truth).astype(np.float32)
    assert score(p, truth, "metric")["abs_rel"] < 1e-5
    assert score(p * np.float32(factor), truth, "metric")["abs_rel"] > 0.05
    assert score(p + np.float32(factor), truth, "scale")["abs_rel"] > 0.05


@fast
@given(seeds)
def test_weaker_groups_never_fit_worse_in_disparity(seed: int) -> None:
    truth = truth_of(seed)
    p = noisy(truth, seed, 0.3)
    q = 1 / truth.astype(np.float64)
    from stf_depth.evaluation.metrics import fit_sums

    sums = fit_sums(p, truth, np.ones(truth.shape, bool))
    residuals = []
    for group in ("metric", "scale", "affine"):
        fit = sums.solve(group)
        residuals.append(float(np.sum((fit.scale * p + fit.shift - q) ** 2)))
    assert residuals[0] >= residuals[1] - 1e-6 >= residuals[2] - 2e-6


@fast
@given(seeds)
def test_more_noise_scores_worse(seed: int) -> None:
    truth = truth_of(seed)
    scores = [score(noisy(truth, seed, sigma), truth, "affine") for sigma in (0.0, 0.05, 0.15, 0.4)]
    for better, worse in pairwise(scores):
        assert better["abs_rel"] < worse["abs_rel"]
        assert better["delta1"] >= worse["delta1"]


@fast
@given(seeds)
def test_delta_is_symmetric_and_grows_with_its_power(seed: int) -> None:
    a, b = truth_of(seed, 2)
    every = np.ones(a.shape, bool)
    values = [delta(a, b, every, power=power, d_max_m=D_MAX_M) for power in (1, 2, 3)]
    assert values == sorted(values)
    assert values == [delta(b, a, every, power=power, d_max_m=D_MAX_M) for power in (1, 2, 3)]


@fast
@given(seeds, factors)
def test_boundary_f1_ignores_scale_and_is_symmetric(seed: int, scale: float) -> None:
    a, b = truth_of(seed, 2)
    value = boundary_f1(a, b).value
    assert boundary_f1(a * np.float32(scale), b).value == pytest.approx(value, abs=2e-3)
    assert boundary_f1(b, a).value == pytest.approx(value, rel=1e-9)
    assert boundary_f1(a, a).value == pytest.approx(1.0)


@fast
@given(seeds, factors)
def test_boundary_recall_ignores_scale(seed: int, scale: float) -> None:
    disparity = 1 / truth_of(seed, 1)[0]
    mask = np.zeros(disparity.shape, np.float32)
    mask[3:9, 4:12] = 1
    value = boundary_recall(disparity, mask).value
    assert 0 <= value <= 1
    assert boundary_recall(disparity * scale, mask).value == pytest.approx(value, abs=1e-6)


@fast
@given(st.lists(st.floats(0.1, 10), min_size=2, max_size=30), factors)
def test_scale_drift_ignores_a_common_factor(scales: list[float], factor: float) -> None:
    drift = scale_drift(scales).value
    assert scale_drift([factor * s for s in scales]).value == pytest.approx(drift, rel=1e-9, abs=1e-12)


@fast
@given(seeds, st.integers(1, 3))
def test_scores_of_parts_merge_to_the_score_of_the_whole(seed: int, cut: int) -> None:
    truth = truth_of(seed).astype(np.float64)
    depth = truth * np.random.default_rng(seed).uniform(0.8, 1.2, truth.shape)
    depth[1, 0] = np.nan
    poses, every = poses_of(4), np.ones(truth.shape[1:], bool)

    def scores(start: int, stop: int) -> tuple[AccuracyScore, TaeScore, DriftScore]:
        parts = AccuracyScore(), TaeScore(), DriftScore()
        for k in range(start, stop):
            parts[0].update(depth[k], truth[k], every, d_max_m=D_MAX_M)
            parts[2].update(1 / depth[k], truth[k], every)
            if k + 1 < len(truth):
                parts[1].update(depth[k], depth[k + 1], K, poses[k], poses[k + 1])
        return parts

    whole, first, second = scores(0, 4), scores(0, cut), scores(cut, 4)
    for all_at_once, a, b in zip(whole, first, second, strict=True):
        assert (a + b).result() == all_at_once.result()


def test_means_leave_out_what_has_no_support_and_say_so() -> None:
    score = MeanScore()
    assert score.result().reason == "no frames"
    score.update(Measure.without_support("dark"))
    assert score.result().reason == "dark"
    score.update(Measure(2.0))
    assert (score.result().value, score.reasons["dark"]) == (2.0, 1)


def test_pairwise_scores_merge_and_divide_as_published(rng: np.random.Generator) -> None:
    truth = truth_of(5).astype(np.float64)
    depth = truth * rng.uniform(0.9, 1.1, truth.shape)
    every = np.ones(truth.shape[1:], bool)
    link = link_from_flow(np.zeros((12, 16, 2), np.float32), np.zeros((12, 16, 2), np.float32))
    rgb = (np.zeros((12, 16, 3), np.uint8),) * 2

    def scores(pairs: range) -> tuple[TgmScore, BoundaryScore, NvdsScore]:
        parts = TgmScore(), BoundaryScore(), NvdsScore(frame_count=4)
        for k in pairs:
            parts[0].update_pair(depth[k], depth[k + 1], truth[k], truth[k] + 0.01, valid=every, d_max_m=D_MAX_M)
            parts[1].update_frame(depth[k], truth[k], every)
            parts[2].update(depth[k].astype(np.float32), depth[k + 1].astype(np.float32), rgb, link)
        return parts

    whole, first, second = scores(range(3)), scores(range(1)), scores(range(1, 3))
    for all_at_once, a, b in zip(whole, first, second, strict=True):
        assert (a + b).result() == all_at_once.result()
        assert all_at_once.result().value > 0
    pairs = [measure.value for measure in whole[2].pairs]
    # The published sum over pairs is divided by the number of frames.
    assert whole[2].result().value == pytest.approx(sum(pairs) / 4)
    whole[2].update(np.ones((12, 16), np.float32), depth[0].astype(np.float32), rgb, link)
    assert "constant" in whole[2].result().reason
