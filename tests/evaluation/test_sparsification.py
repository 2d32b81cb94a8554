"""Whether confidence ranks errors: hand-made orders, a slow twin, and the way through a scored prediction."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stf_depth.evaluation.evaluate import score_prediction
from stf_depth.evaluation.predictions import ArrayPrediction
from stf_depth.evaluation.sequences import read_sequence
from stf_depth.evaluation.sparsification import STEPS, sparsification_area
from stf_depth.synthetic import render_clip, scene, write_sequence


def slow_area(error: np.ndarray, confidence: np.ndarray) -> float:
    def curve(order: np.ndarray) -> list[float]:
        return [float(error[order[len(order) * k // STEPS :]].mean()) for k in range(STEPS)]

    by_confidence, by_error = curve(np.argsort(confidence)), curve(np.argsort(-error))
    gaps = [mine - best for mine, best in zip(by_confidence, by_error, strict=True)]
    return sum(gaps) / STEPS / float(error.mean())


def test_a_perfect_order_scores_zero_and_the_reverse_worst(rng: np.random.Generator) -> None:
    error = rng.exponential(1, 5000)
    perfect, reverse = (sparsification_area(error, sign * error).value for sign in (-1, 1))
    constant = sparsification_area(error, np.ones(5000, np.float32)).value
    shuffled = sparsification_area(error, rng.random(5000)).value
    assert perfect == pytest.approx(0, abs=1e-12)
    assert perfect < constant < reverse
    assert shuffled == pytest.approx(constant, abs=0.05)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(30, 400))
def test_agrees_with_the_slow_twin(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    error, confidence = rng.exponential(1, count) + 1e-6, rng.permutation(count).astype(np.float32)
    assert sparsification_area(error, confidence).value == pytest.approx(slow_area(error, confidence), abs=1e-9)


def test_no_pixels_and_no_error_have_no_support() -> None:
    for error in (np.zeros(0), np.zeros(9)):
        found = sparsification_area(error, np.ones(error.shape, np.float32))
        assert math.isnan(found.value)
        assert found.reason


def test_a_scored_prediction_reports_it_when_it_has_confidence(tmp_path: Path, rng: np.random.Generator) -> None:
    clip = render_clip(scene("room"), frames=3, wh=(96, 64))
    truth = read_sequence(write_sequence(clip, tmp_path / "room"))
    noise = rng.normal(0, 0.05, clip.depth.shape).astype(np.float32)
    depth = clip.depth * np.exp(noise)
    scores = {}
    for name, confidence in {"right": -np.abs(noise), "wrong": np.abs(noise), "none": None}.items():
        found = ArrayPrediction(depth, "z_depth", "metric", confidence=confidence)
        scores[name] = score_prediction(found, truth).groups
    for group, measures in scores["right"].items():
        # The clip's fit moves errors a little, so the order is not perfect under every group.
        assert measures["ause"].value < 0.25
        assert scores["wrong"][group]["ause"].value > 0.5
        assert "ause" not in scores["none"][group]


def test_what_was_not_predicted_has_no_confidence(tmp_path: Path) -> None:
    clip = render_clip(scene("room"), frames=2, wh=(96, 64))
    truth = read_sequence(write_sequence(clip, tmp_path / "room"))
    depth = clip.depth.copy()
    depth[:, :20] = np.nan
    sure = np.ones(depth.shape, np.float32)
    sure[:, 20:] = 0.5  # claims to know best what it has not predicted
    found = ArrayPrediction(depth, "z_depth", "metric", confidence=sure)
    assert score_prediction(found, truth).value("ause", "metric") < 0.05
