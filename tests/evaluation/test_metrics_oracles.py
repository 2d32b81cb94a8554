"""Metrics against outside implementations and slow, obvious twins."""

from __future__ import annotations

import math

import numpy as np
import pytest

from stf_depth.errors import ShapeError
from stf_depth.evaluation.metrics import (
    Fit,
    FitSums,
    Group,
    abs_rel,
    accuracy,
    aligned_depth_m,
    delta,
    fit_sums,
    groups_for,
    prepare_disparity,
    project_depth,
    rmse,
    score_clip,
    tae,
    tae_pair,
    truth_mask,
    worst_depth_m,
)

D_MAX_M = 10.0


def clip_of(rng: np.random.Generator, frames: int = 5, height: int = 12, width: int = 16) -> np.ndarray:
    return rng.uniform(0.8, 6.0, (frames, height, width)).astype(np.float32)


def rotation_about_y(radians: float) -> np.ndarray:
    c, s = math.cos(radians), math.sin(radians)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


class TestAlignment:
    def test_affine_fit_is_the_least_squares_of_scikit_learn(self, rng: np.random.Generator) -> None:
        from sklearn.linear_model import LinearRegression

        truth = clip_of(rng)
        p = rng.uniform(0.1, 2, truth.shape).astype(np.float32)
        valid = rng.random(truth.shape) < 0.7
        fit = sum((fit_sums(p[k], truth[k], valid[k]) for k in range(len(p))), FitSums()).solve("affine")
        model = LinearRegression().fit(
            p[valid].astype(np.float64)[:, None], 1 / (truth[valid] + 1e-8).astype(np.float64)
        )
        assert fit.scale == pytest.approx(model.coef_[0], rel=1e-6)
        assert fit.shift == pytest.approx(model.intercept_, rel=1e-6)

    def test_scale_fit_is_the_least_squares_of_numpy(self, rng: np.random.Generator) -> None:
        truth = clip_of(rng)
        p = rng.uniform(0.1, 2, truth.shape).astype(np.float32)
        every = np.ones(truth.shape, bool)
        fit = fit_sums(p, truth, every).solve("scale")
        expected = np.linalg.lstsq(
            p.astype(np.float64).reshape(-1, 1), 1 / truth.astype(np.float64).ravel(), rcond=None
        )
        assert fit.scale == pytest.approx(expected[0][0], rel=1e-6)
        assert fit.shift == 0.0

    def test_one_fit_holds_for_all_frames(self) -> None:
        # Two frames, each perfect up to its own scale: a fit per frame would score 0, one for the clip cannot.
        truth = np.array([[[1.0, 2.0]], [[1.0, 2.0]]], np.float32)
        p = (1 / truth) * np.array([1.0, 1.5], np.float32)[:, None, None]
        assert score_clip(p, truth, group="scale", d_max_m=D_MAX_M)["abs_rel"] > 0.1

    def test_merged_sums_equal_one_pass(self, rng: np.random.Generator) -> None:
        truth, p = clip_of(rng, 6), rng.uniform(0.1, 2, (6, 12, 16)).astype(np.float32)
        every = np.ones(truth.shape, bool)
        whole = fit_sums(p, truth, every)
        merged = fit_sums(p[:1], truth[:1], every[:1]) + fit_sums(p[1:], truth[1:], every[1:]) + FitSums()
        for name in ("count", "mean_p", "mean_q", "spread_pp", "spread_pq"):
            assert getattr(merged, name) == pytest.approx(getattr(whole, name), rel=1e-9)

    def test_large_offset_keeps_its_digits(self, rng: np.random.Generator) -> None:
        truth = clip_of(rng).astype(np.float64)
        p = 1e6 + 1 / truth
        fit = fit_sums(p, truth, np.ones(truth.shape, bool)).solve("affine")
        assert fit.scale == pytest.approx(1.0, rel=1e-4)

    def test_constant_prediction_is_degenerate_and_fits_the_mean(self) -> None:
        truth = np.array([[1.0, 4.0]], np.float32)
        fit = fit_sums(np.full((1, 2), 0.3, np.float32), truth, np.ones((1, 2), bool)).solve("affine")
        assert fit.is_degenerate
        assert fit.scale == 0.0
        assert fit.shift == pytest.approx((1 + 0.25) / 2, rel=1e-6)

    def test_failed_pixels_take_no_part_in_the_fit(self) -> None:
        truth = np.array([[1.0, 2.0, 4.0, 3.0]], np.float32)
        p = np.array([[2.0, 1.0, 0.5, np.nan]], np.float32)
        fit = fit_sums(p, truth, np.ones((1, 4), bool)).solve("affine")
        assert (fit.scale, fit.shift) == (pytest.approx(0.5, rel=1e-6), pytest.approx(0.0, abs=1e-7))

    def test_aligned_depth_is_clipped_at_both_ends(self) -> None:
        z = aligned_depth_m(np.array([1e9, -5.0, 0.5, np.nan]), Fit(1.0, 0.0), D_MAX_M)
        assert z[:3].tolist() == [1e-3, D_MAX_M, 2.0]
        assert np.isnan(z[3])

    @pytest.mark.parametrize(
        ("ambiguity", "expected"),
        [
            ("metric", [Group.METRIC, Group.SCALE, Group.AFFINE]),
            ("scale", [Group.SCALE, Group.AFFINE]),
            ("affine", [Group.AFFINE]),
        ],
    )
    def test_a_prediction_is_scored_under_what_it_promises_and_weaker(
        self, ambiguity: str, expected: list[Group]
    ) -> None:
        assert list(groups_for(ambiguity)) == expected


class TestAccuracy:
    @pytest.mark.slow
    def test_matches_torchmetrics(self, rng: np.random.Generator) -> None:
        import torch
        from torchmetrics.functional.regression import mean_absolute_percentage_error, mean_squared_error

        z, g = clip_of(rng)[0].astype(np.float64), clip_of(rng)[0]
        valid = rng.random(g.shape) < 0.6
        zt, gt = torch.from_numpy(z[valid]), torch.from_numpy(g[valid].astype(np.float64))
        assert abs_rel(z, g, valid, d_max_m=D_MAX_M) == pytest.approx(float(mean_absolute_percentage_error(zt, gt)))
        assert rmse(z, g, valid, d_max_m=D_MAX_M) == pytest.approx(float(mean_squared_error(zt, gt, squared=False)))

    def test_delta_matches_a_plain_loop(self, rng: np.random.Generator) -> None:
        z, g = clip_of(rng)[0].astype(np.float64), clip_of(rng)[0]
        valid = rng.random(g.shape) < 0.6
        for power in (1, 2, 3):
            inside = [max(a / b, b / a) < 1.25**power for a, b in zip(z[valid], g[valid], strict=True)]
            assert delta(z, g, valid, power=power, d_max_m=D_MAX_M) == pytest.approx(np.mean(inside))

    def test_hand_computed_frame(self) -> None:
        g = np.array([[1.0, 2.0, 4.0]], np.float32)
        z = np.array([[1.2, 2.0, 2.0]])
        values = accuracy(z, g, np.ones((1, 3), bool), d_max_m=D_MAX_M)
        assert values["abs_rel"] == pytest.approx((0.2 + 0 + 0.5) / 3)
        assert values["rmse"] == pytest.approx(math.sqrt((0.04 + 0 + 4) / 3))
        assert [values[f"delta{k}"] for k in (1, 2, 3)] == [pytest.approx(2 / 3)] * 3

    def test_delta_is_strict_at_its_threshold(self) -> None:
        g, z = np.ones((1, 1), np.float32), np.full((1, 1), 1.25)
        assert delta(z, g, np.ones((1, 1), bool), power=1, d_max_m=D_MAX_M) == 0.0

    def test_frames_weigh_the_same_whatever_their_valid_pixels(self) -> None:
        truth = np.zeros((2, 2, 2), np.float32)
        truth[0, 0, 0] = 2.0
        truth[1] = 2.0
        p = np.full((2, 2, 2), 0.5, np.float32)
        p[0] = 1 / 3
        # Unaligned: frame 0 is 50 % too far in its only pixel, frame 1 exact in all four.
        assert score_clip(p, truth, group="metric", d_max_m=D_MAX_M)["abs_rel"] == pytest.approx(0.25, rel=1e-6)

    def test_truth_is_valid_strictly_between_floor_and_cap(self) -> None:
        truth = np.array([0, 1e-3, 1.1e-3, 9.99, 10.0, np.nan, np.inf], np.float32)
        assert truth_mask(truth, D_MAX_M).tolist() == [False, False, True, True, False, False, False]

    def test_resizing_keeps_pixel_edges_aligned_like_torch(self, rng: np.random.Generator) -> None:
        import torch

        p = rng.uniform(0.5, 2, (6, 9)).astype(np.float32)
        expected = torch.nn.functional.interpolate(
            torch.from_numpy(p)[None, None], (14, 20), mode="bilinear", align_corners=False
        )[0, 0].numpy()
        np.testing.assert_allclose(prepare_disparity(p, 14, 20), expected, atol=1e-5)

    def test_disparity_is_raised_to_its_floor_and_nan_stays(self) -> None:
        out = prepare_disparity(np.array([[-1.0, 0.0, 0.5, np.nan, np.inf]], np.float32), 1, 5)
        assert out[0, :3].tolist() == pytest.approx([1e-3, 1e-3, 0.5])
        assert np.isnan(out[0, 3:]).all()

    def test_worst_depth_is_the_farther_end_relative_to_the_truth(self) -> None:
        assert worst_depth_m(np.array([1.0, 9.0]), D_MAX_M).tolist() == [D_MAX_M, 1e-3]

    def test_shapes_must_agree(self) -> None:
        with pytest.raises(ShapeError):
            accuracy(np.ones((2, 2)), np.ones((2, 3)), np.ones((2, 3), bool), d_max_m=D_MAX_M)
        with pytest.raises(ShapeError, match="differ in frames"):
            score_clip(np.ones((2, 4, 4)), np.ones((3, 4, 4)), group="affine", d_max_m=D_MAX_M)


def brute_force_projection(depth: np.ndarray, K: np.ndarray, motion: np.ndarray, z_buffer: bool) -> np.ndarray:
    out = np.full(depth.shape, np.nan)
    for v in range(depth.shape[0]):
        for u in range(depth.shape[1]):
            point = depth[v, u] * (np.linalg.inv(K) @ [u, v, 1.0])
            x, y, z = motion[:3, :3] @ point + motion[:3, 3]
            if not z > 0:
                continue
            pixel = K @ [x / z, y / z, 1.0]
            c, r = round(pixel[0]), round(pixel[1])
            if 0 <= c < depth.shape[1] and 0 <= r < depth.shape[0] and not (z_buffer and out[r, c] <= z):
                out[r, c] = z
    return out


class TestTae:
    K = np.array([[20.0, 0, 8.0], [0, 21.0, 6.0], [0, 0, 1.0]])

    def motion(self, radians: float = 0.05, t: tuple[float, float, float] = (0.3, -0.1, 0.2)) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation_about_y(radians), t
        return pose

    @pytest.mark.parametrize("z_buffer", [True, False])
    def test_projection_equals_the_brute_force(self, rng: np.random.Generator, z_buffer: bool) -> None:
        # More rows than are projected at once, and depth that occludes itself.
        depth = rng.choice([1.0, 3.0, 5.0], (40, 16)).astype(np.float64)
        depth[3, 4] = np.nan
        got = project_depth(depth, self.K, self.motion(), z_buffer=z_buffer)
        np.testing.assert_allclose(got, brute_force_projection(depth, self.K, self.motion(), z_buffer), rtol=1e-9)

    def test_z_buffer_keeps_the_nearest_surface_and_scatter_does_not(self, rng: np.random.Generator) -> None:
        depth = rng.choice([1.0, 3.0, 5.0], (40, 16)).astype(np.float64)
        near, last = (project_depth(depth, self.K, self.motion(), z_buffer=flag) for flag in (True, False))
        both = np.isfinite(near)
        assert (near[both] <= last[both]).all()
        assert (near[both] < last[both]).any()

    def test_a_point_behind_the_target_camera_lands_nowhere(self) -> None:
        depth = np.ones((4, 4))
        assert np.isnan(project_depth(depth, self.K, self.motion(0, (0, 0, -2)), z_buffer=True)).all()

    def test_true_depth_of_a_plane_has_no_error(self) -> None:
        # A plane facing both cameras: depth is constant in each, also after rounding to pixels.
        poses = np.stack([np.eye(4), self.motion(0, (0.4, 0.2, 0.5)), self.motion(0, (-0.3, 0.1, 1.0))])
        depth = np.stack([np.full((30, 40), 4.0 - pose[2, 3]) for pose in poses])
        assert tae(depth, poses, self.K).value == pytest.approx(0.0, abs=1e-9)

    def test_scale_jump_gives_the_hand_computed_value(self) -> None:
        depth = np.stack([np.full((6, 8), 2.0), np.full((6, 8), 2.5)])
        poses = np.stack([np.eye(4)] * 2)
        # Forward: |2.5 - 2| / 2.5; backward: |2 - 2.5| / 2.
        assert tae(depth, poses, self.K).value == pytest.approx(100 * (0.2 + 0.25) / 2)

    def test_forward_motion_is_target_inverse_times_source(self) -> None:
        # The camera advances by 1 m towards a wall at 4 m.
        poses = np.stack([np.eye(4), self.motion(0, (0, 0, 1))])
        depth = np.stack([np.full((30, 40), 4.0), np.full((30, 40), 3.0)])
        swapped = depth[::-1]
        assert tae(depth, poses, self.K).value == pytest.approx(0, abs=1e-9)
        assert tae(swapped, poses, self.K).value > 20

    def test_no_overlap_is_nan_with_a_reason(self) -> None:
        far = self.motion(math.pi, (0, 0, 0))
        result = tae(np.full((2, 6, 8), 2.0), np.stack([np.eye(4), far]), self.K)
        assert math.isnan(result.value)
        assert "no overlap" in result.reason

    def test_one_frame_is_nan_with_a_reason(self) -> None:
        result = tae(np.full((1, 6, 8), 2.0), np.eye(4)[None], self.K)
        assert math.isnan(result.value)
        assert "fewer than two frames" in result.reason

    def test_missing_pixels_count_as_full_errors(self) -> None:
        source, target = np.full((6, 8), 2.0), np.full((6, 8), 2.0)
        target[0, :] = np.nan
        # 40 pixels agree, 8 are missing in the target.
        assert tae_pair(source, target, self.K, np.eye(4)).value == pytest.approx(8 / 48)
        known = np.ones((6, 8), bool)
        known[0, :4] = False
        # Half of the missing pixels have no ground truth, so nothing was to be predicted there.
        assert tae_pair(source, target, self.K, np.eye(4), valid=(known, known)).value == pytest.approx(4 / 44)
        assert tae_pair(np.full((6, 8), np.nan), target * np.nan, self.K, np.eye(4)).value == 1.0
