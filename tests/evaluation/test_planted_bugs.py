"""Every planted bug in the numeric cores must be noticed by these hand-computed checks."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

D_MAX_M = 10.0
K = np.array([[10.0, 0, 2.0], [0, 10.0, 1.0], [0, 0, 1.0]])


def close(value: float, expected: float) -> None:
    assert math.isclose(value, expected, rel_tol=1e-6, abs_tol=1e-9), (value, expected)


def check_metrics(m: Any) -> None:
    check_alignment(m)
    check_accuracy(m)
    check_projection(m)


def check_alignment(m: Any) -> None:
    # q = 2 p + 0.1 exactly, over two frames of unlike size, merged.
    p = [np.array([[0.1, 0.4]]), np.array([[0.2, 0.3, 0.7]])]
    truths = [1 / (2 * values + 0.1) - 1e-8 for values in p]
    parts = [m.fit_sums(a, g, np.ones(a.shape, bool)) for a, g in zip(p, truths, strict=True)]
    fit = (parts[0] + parts[1]).solve("affine")
    close(fit.scale, 2.0)
    close(fit.shift, 0.1)
    # With noise the two groups differ: scale is sum pq / sum pp.
    p, g = np.array([[1.0, 2.0, 4.0]]), np.array([[1.0, 1.0, 0.2]])
    sums = m.fit_sums(p, g, np.array([[True, True, True]]))
    close(sums.solve("scale").scale, (1 + 2 + 20) / (1 + 4 + 16) / (1 + 0))
    masked = m.fit_sums(p, g, np.array([[True, True, False]])).solve("affine")
    close(masked.scale, 0.0)
    close(masked.shift, 1 / (1 + 1e-8))
    z = m.aligned_depth_m(np.array([0.5, -9.0, 1e9]), m.Fit(2.0, 1.0), D_MAX_M)
    assert z.tolist() == [0.5, 10.0, 0.001]
    assert m.truth_mask(np.array([0.001, 0.002, 9.9, 10.0]), D_MAX_M).tolist() == [False, True, True, False]


def check_accuracy(m: Any) -> None:
    g = np.array([1.0, 2.0, 4.0, 8.0])
    z = np.array([1.2, 2.8, 4.0, np.nan])
    values = m.accuracy_of(z, g, d_max_m=D_MAX_M)
    # The pixel without a prediction is scored at 0.001: |0.001 - 8| / 8 is more than |10 - 8| / 8.
    close(values["abs_rel"], (0.2 + 0.4 + 0 + 7.999 / 8) / 4)
    close(values["rmse"], math.sqrt((0.04 + 0.64 + 0 + 7.999**2) / 4))
    close(values["delta1"], 2 / 4)
    close(values["delta2"], 3 / 4)
    close(m.accuracy_of(np.array([1.9, 1 / 1.9]), np.ones(2), d_max_m=D_MAX_M)["delta3"], 1.0)
    close(m.accuracy_of(np.array([1.9, 1 / 1.9]), np.ones(2), d_max_m=D_MAX_M)["delta2"], 0.0)
    close(m.accuracy_of(np.array([1.24, 1 / 1.24]), np.ones(2), d_max_m=D_MAX_M)["delta1"], 1.0)
    close(m.accuracy_of(np.array([1.26, 1 / 1.26]), np.ones(2), d_max_m=D_MAX_M)["delta1"], 0.0)


def check_projection(m: Any) -> None:
    # One pixel moves: depth 2 at u = 1, camera shifted so that u' = 1 + 10 * 0.8 / 2 = 5, v' = 0 + 10 * 0.4 / 2 = 2.
    depth = np.full((3, 6), np.nan)
    depth[0, 1] = 2.0
    motion = np.eye(4)
    motion[:3, 3] = 0.8, 0.4, 0.0
    landed = m.project_depth(depth, K, motion, z_buffer=True)
    assert np.argwhere(np.isfinite(landed)).tolist() == [[2, 5]]
    # Two surfaces meet in one pixel, the nearer one first in row order: u' = 1 + 8 / 2 = 5 and 3 + 8 / 4 = 5.
    depth[0, 3], motion[1, 3] = 4.0, 0.0
    close(m.project_depth(depth, K, motion, z_buffer=True)[0, 5], 2.0)
    close(m.project_depth(depth, K, motion, z_buffer=False)[0, 5], 4.0)
    # A quarter turn about z and a step back, by hand: (u, v) = (3, 1) at z = 2 is (0.2, 0, 2) -> (0, 0.2, 3).
    depth = np.full((3, 6), np.nan)
    depth[1, 3] = 2.0
    turn = np.array([[0, -1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 1.0, 1.0], [0, 0, 0, 1.0]])
    landed = m.project_depth(depth, K, turn, z_buffer=True)
    assert np.argwhere(np.isfinite(landed)).tolist() == [[2, 2]]
    close(landed[2, 2], 3.0)
    # Error relative to the target's own depth; both directions; walls at 4 and 3 m after one metre forward.
    close(m.tae_pair(np.full((3, 6), 2.0), np.full((3, 6), 2.5), K, np.eye(4)).value, 0.2)
    poses = np.stack([np.eye(4), np.eye(4)])
    poses[1, 2, 3] = 1.0
    walls = np.stack([np.full((3, 6), 4.0), np.full((3, 6), 3.0)])
    close(m.tae(walls, poses, K).value, 0.0)
    close(m.tae(walls * [[[1.0]], [[1.1]]], poses, K).value, 100 * (0.3 / 3.3 + 0.3 / 4) / 2)
    assert math.isnan(m.tae_pair(walls[0], walls[1], K, np.diag([1.0, 1, -1, 1])).value)


def check_boundary(m: Any) -> None:
    truth = np.full((4, 8), 2.0)
    truth[:, 4:] = 4.0
    close(m.boundary_f1(truth, truth).value, 2 * 0.25 * 0.25 / 0.5)
    wrong_side = truth[:, ::-1]
    close(m.boundary_f1(wrong_side, truth).value, 0.0)
    shifted = np.roll(truth, 1, axis=1)
    shifted[:, 0] = 2.0
    close(m.boundary_f1(shifted, truth).value, 0.0)
    # A step of 1.15 counts at the thresholds below it, which are 1.05 to 1.138 of ten.
    soft = np.where(truth > 3, 2.3, 2.0)
    thresholds = np.linspace(1.05, 1.25, 10)
    weight = thresholds[thresholds < 1.15].sum() / thresholds.sum()
    close(m.boundary_f1(soft, truth).value, weight * 0.25)
    close(m.boundary_f1(soft.T, truth.T).value, weight * 0.25)
    # Half of the edges found, none false: P = 1, R = 1/2 in one direction.
    half = truth.copy()
    half[2:] = 2.0
    half[1] = 2.0
    half[0] = truth[0]
    check_half(m, half, truth)
    mask = (truth < 3).astype(np.float32)
    close(m.boundary_recall(1 / truth, mask).value, 0.25)
    ramp = np.repeat(np.array([[1.0, 1.0, 1.1, 1.4, 2.0, 2.1, 2.1, 2.1]]), 4, axis=0)
    # Thinning keeps the largest step of the ramp only, 1.4 -> 2.0.
    here, beside = (np.repeat(np.arange(8)[None] >= at, 4, axis=0).astype(np.float32) for at in (4, 3))
    close(m.boundary_recall(ramp, here).value, 0.25)
    close(m.boundary_recall(ramp, beside).value, 0.0)
    ids = np.repeat(np.array([[1, 1, 1, 1, 2, 2, 2, 2]]), 4, axis=0)
    close(m.segment_edge_recall(ramp, ids).value, 1.0)
    close(m.segment_edge_recall(1 / ramp, ids).value, 1.0)


def check_half(m: Any, half: np.ndarray, truth: np.ndarray) -> None:
    # Row 0 keeps its step; its lower border is a false edge right of the middle, in one vertical direction.
    precision, recall = 0.25, 0.25 / 4
    close(m.boundary_f1(half, truth).value, 2 * precision * recall / (precision + recall))


def check_consistency(m: Any) -> None:
    links = importlib.import_module("stf_depth.evaluation.flow_links")
    flow = np.zeros((4, 6, 2), np.float32)
    flow[..., 0] = 1
    link = links.link_from_flow(flow, -flow)
    assert not link.consistent[:, 5].any()
    assert link.consistent[:, :5].all()
    first = np.tile(np.arange(1, 7, dtype=np.float32), (4, 1))
    moved = np.tile(np.array([9, 1, 2, 3, 4, 5], np.float32), (4, 1))
    close(m.opw_abs_rel_pair(first, moved, link).value, 0.0)
    close(m.opw_abs_rel_pair(first, moved * np.float32(1.5), link).value, 0.5)
    close(m.flow_scale(first, moved * np.float32(1.5), link), 1 / 1.5)
    every = np.ones((1, 3), bool)
    g, g_next = np.array([[1.0, 1.0, 2.0]]), np.array([[1.02, 1.2, 2.0]])
    z, z_next = np.array([[1.0, 5.0, 2.0]]), np.array([[1.1, 9.0, 1.7]])
    close(m.tgm_pair(z, z_next, g, g_next, every, d_max_m=D_MAX_M).value, (0.08 + 0.3) / 2)
    close(m.scale_drift([1.0, 3.0]).value, 0.5)
    close(m.scale_drift([2.0, 2.0], [1.0, 0.5]).value, math.sqrt(0.75) / 1.5)
    close(m.scale_of(np.array([0.5, 1.0]), np.array([1.0, 0.5])), (0.5 + 2) / 1.25)
    grey = np.full((4, 6, 3), 7, np.uint8)
    still = links.link_from_flow(flow * 0, flow * 0)
    before = np.tile(np.array([0, 0, 0, 2, 2, 2], np.float32), (4, 1))
    after = before.copy()
    after[0, 0] = 1
    # Medians are 1 and 1.5, mean deviations 1 and 23/24; colours agree, so every weight is 3.
    difference = np.abs((before - 1.0) / 1 - (after - 1.5) / (23 / 24)).astype(np.float64)
    close(m.opw_nvds_pair(before, after, grey, grey, still).value, 10 * 3 * difference.mean())
    recoloured = grey.copy()
    recoloured[..., 0] = 8
    weight = 2 + math.exp(-50)
    close(m.opw_nvds_pair(before, after, grey, recoloured, still).value, 10 * weight * difference.mean())


# fmt: off
# ruff: noqa: E501
BUGS: list[tuple[str, str, str]] = [
    # Alignment.
    ("metrics", "self.spread_pp + other.spread_pp + dp * dp * weight", "self.spread_pp + other.spread_pp"),
    ("metrics", "self.spread_pq + other.spread_pq + dp * dq * weight", "self.spread_pq + other.spread_pq"),
    ("metrics", "self.mean_p + dp * other.count / count", "self.mean_p + dp * self.count / count"),
    ("metrics", "self.mean_q - scale * self.mean_p", "self.mean_q - self.mean_p"),
    ("metrics", "scale = self.spread_pq / self.spread_pp", "scale = self.spread_pp / self.spread_pq"),
    ("metrics", "raw_pp = self.spread_pp + self.count * self.mean_p**2", "raw_pp = self.spread_pp"),
    ("metrics", "p, g = disparity[valid].astype(np.float64), truth_m[valid]", "p, g = disparity.ravel(), truth_m.ravel()"),
    ("metrics", "np.clip(depth, DEPTH_FLOOR_M, d_max_m, out=depth)", "np.clip(depth, DEPTH_FLOOR_M, None, out=depth)"),
    ("metrics", "fit.scale * np.asarray(disparity, np.float64) + fit.shift, DISP", "fit.scale * disparity, DISP"),
    ("metrics", "(truth_m < d_max_m)", "(truth_m <= d_max_m)"),
    # Accuracy and thresholds.
    ("metrics", "np.divide(np.abs(error, out=error), g, out=error)", "np.divide(np.abs(error, out=error), z, out=error)"),
    ("metrics", "1.25**power", "1.25*power"),
    ("metrics", "np.maximum(z / g, g / z)", "z / g"),
    ("metrics", "ratio[failed] = np.inf", "ratio[failed] = 1.0"),
    ("metrics", "z = np.where(failed, worst_depth_m(g, d_max_m), z)", "z = np.where(failed, g, z)"),
    ("metrics", "d_max_m - truth >= truth - DEPTH_FLOOR_M", "d_max_m - truth <= truth - DEPTH_FLOOR_M"),
    ("metrics", "math.sqrt(squares / z.size)", "squares / z.size"),
    # Projection and z-buffer.
    ("metrics", "np.minimum.at(out, index, z)", "out[index] = z"),
    ("metrics", "np.minimum.at(out, index, z)", "np.minimum.at(out, index, -z)"),
    ("metrics", "K @ target_from_source[:3, :3] @ np.linalg.inv(K)", "np.linalg.inv(K) @ target_from_source[:3, :3] @ K"),
    ("metrics", "target_from_source[:3, :3] @", "target_from_source[:3, :3].T @"),
    ("metrics", "offset = K @ target_from_source[:3, 3]", "offset = target_from_source[:3, 3]"),
    ("metrics", "y * width + x", "x * height + y"),
    ("metrics", "lands = (qz > 0) & ", "lands = "),
    ("metrics", "error = np.divide(np.abs(error, out=error), target", "error = np.divide(np.abs(error, out=error), projected"),
    ("metrics", "np.linalg.inv(world_from_cam[k + 1]) @ world_from_cam[k]", "np.linalg.inv(world_from_cam[k]) @ world_from_cam[k + 1]"),
    ("metrics", "(k + 1, k, np.linalg.inv(forward))", "(k, k + 1, forward)"),
    ("metrics", "100.0 * total / (2 * (len(depth_m) - 1))", "100.0 * total / (2 * len(depth_m))"),
    ("metrics", 'return Measure.without_support("no overlap")', "return Measure(0.0)"),
    # Threshold loops of the boundary.
    ("boundary", "np.linspace(1.05, 1.25, 10)", "np.linspace(1.05, 1.25, 9)"),
    ("boundary", "thresholds / thresholds.sum()", "np.full(10, 0.1)"),
    ("boundary", "weights @ [_f1_at(candidates, float(t)) for t in thresholds]", "weights @ [_f1_at(candidates, 1.05) for t in thresholds]"),
    ("boundary", "matched = int(np.count_nonzero(flagged & truth))", "matched = int(np.count_nonzero(flagged))"),
    ("boundary", "recall += matched / max(int(np.count_nonzero(truth)), 1) / 4", "recall += matched / max(int(np.count_nonzero(flagged)), 1) / 4"),
    ("boundary", "(here / there, true_here / true_there)", "(here / there, true_there / true_here)"),
    ("boundary", "order = np.lexsort((positions, -values, run))", "order = np.lexsort((positions, values, run))"),
    ("boundary", "there & ~here for here, there", "here & ~there for here, there"),
    ("boundary", "either = [thin[0] | thin[1], thin[2] | thin[3]]", "either = [thin[0], thin[2]]"),
    # Consistency.
    ("consistency", "error = np.abs(after - before) / before", "error = np.abs(after - before) / after"),
    ("consistency", "change < TGM_STATIC_M", "change > TGM_STATIC_M"),
    ("consistency", "np.abs(np.abs(next_depth_m - depth_m) - change)", "np.abs(next_depth_m - depth_m)"),
    ("consistency", "math.sqrt(variance) / mean", "math.sqrt(variance)"),
    ("consistency", "link.backward_xy_px, outside=0.0)\n    warped_rgb", "link.xy_px * 0, outside=0.0)\n    warped_rgb"),
    ("consistency", "NVDS_COLOUR_WEIGHT * (current", "1.0 * (current"),
    ("consistency", "np.mean(np.abs(finite - median))", "finite.std()"),
]
# fmt: on

CHECKS: dict[str, Callable[[Any], None]] = {
    "metrics": check_metrics,
    "boundary": check_boundary,
    "consistency": check_consistency,
}


def load(name: str, old: str = "", new: str = "") -> ModuleType:
    """The module as it is, or with one piece of its source replaced."""
    original = importlib.import_module(f"stf_depth.evaluation.{name}")
    source = Path(original.__file__ or "").read_text(encoding="utf-8")
    assert old in source, f"the planted bug does not fit {name} any more: {old}"
    module = ModuleType(f"planted_{name}")
    sys.modules[module.__name__] = module
    try:
        exec(compile(source.replace(old, new), module.__name__, "exec"), module.__dict__)
    finally:
        del sys.modules[module.__name__]
    return module


@pytest.mark.parametrize("name", list(CHECKS))
def test_checks_pass_on_the_real_module(name: str) -> None:
    CHECKS[name](importlib.import_module(f"stf_depth.evaluation.{name}"))


@pytest.mark.parametrize(("name", "old", "new"), BUGS, ids=[f"{name}-{k}" for k, (name, _, _) in enumerate(BUGS)])
def test_planted_bug_is_caught(name: str, old: str, new: str) -> None:
    module = load(name, old, new)
    with np.errstate(all="ignore"), pytest.raises((AssertionError, RuntimeWarning, ValueError, IndexError)):
        CHECKS[name](module)
