"""Dense depth from motion on scenes with exact depth, and its parts against independent formulas."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from stf_depth.config import GeometryConfig
from stf_depth.geometry.camera import solve_camera
from stf_depth.geometry.camera_solve import CameraSolve
from stf_depth.geometry.fallback import depth_from_motion, fallback_shot
from stf_depth.geometry.fuse import Estimate, bring, fuse, normalised_rays
from stf_depth.geometry.points import FramePoints
from stf_depth.geometry.smoothing import EdgeAwareSmoother, complete
from stf_depth.geometry.sources import SourceChooser
from stf_depth.geometry.structure import structure_wh, triangulate_shot
from stf_depth.parallel import AHEAD_ITEMS
from stf_depth.synthetic import SyntheticClip, render_clip, scene
from stf_depth.types import CameraPath, Intrinsics, MotionKind, Role

CONFIG = GeometryConfig()
NEAR = CONFIG.with_values({"fusion_offsets": (1, 2), "source_reach_frames": 8})
WH = (192, 120)


def exact_solve(clip: SyntheticClip) -> CameraSolve:
    """What a perfect camera solve of the clip would be, with points on a grid of frame 0."""
    grid = np.indices(clip.depth[0].shape)[:, 4::8, 4::8].reshape(2, -1)
    count = len(clip.rgb)
    path = CameraPath(
        MotionKind.PARALLAX, clip.intrinsics, clip.world_from_cam, np.ones(count, bool), np.ones(count, np.float32)
    )
    seen = np.column_stack([grid[1], grid[0], 1 / clip.depth[0][grid[0], grid[1]]])
    return CameraSolve(path, FramePoints([seen] + [()] * (count - 1)), np.ones(count, np.float32))


@pytest.fixture(scope="module")
def walk() -> SyntheticClip:
    return render_clip(scene("room"), 26, WH, noise_sigma=1.0)


def errors(clip: SyntheticClip, maps: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Relative depth error after one scale for the clip, and confidence."""
    ratio = np.concatenate([disparity for disparity, _ in maps]) * clip.depth[: len(maps)]
    return np.abs(ratio / np.median(ratio) - 1), np.concatenate([confidence for _, confidence in maps])


def test_structure_is_near_the_truth_and_confidence_ranks_it(walk: SyntheticClip) -> None:
    maps = list(triangulate_shot(walk.rgb, exact_solve(walk), config=CONFIG))
    assert len(maps) == len(walk.rgb)
    assert all(d.shape == c.shape == (1, *walk.depth.shape[1:]) for d, c in maps)
    assert all(d.dtype == c.dtype == np.float32 and (d > 0).all() for d, c in maps)
    error, confidence = errors(walk, maps)
    assert confidence.min() >= 0
    assert confidence.max() <= 1
    assert np.median(error) < 0.06
    sure = confidence > np.median(confidence)
    assert error[sure].mean() < 0.7 * error[~sure].mean()


def test_wrong_poses_are_noticed(walk: SyntheticClip) -> None:
    # The planted bug: camera-from-world poses given as world-from-camera.
    solve = exact_solve(walk)
    wrong = replace(solve, path=replace(solve.path, world_from_cam=np.linalg.inv(walk.world_from_cam)))
    good = [c.mean() for _, c in itertools.islice(triangulate_shot(walk.rgb, solve, config=NEAR), 3)]
    bad = [c.mean() for _, c in itertools.islice(triangulate_shot(walk.rgb, wrong, config=NEAR), 3)]
    assert np.mean(bad) < 0.7 * np.mean(good)


def test_same_frames_give_the_same_bytes(walk: SyntheticClip) -> None:
    solve = exact_solve(walk)
    runs = [[next(triangulate_shot(walk.rgb, solve, config=NEAR)) for _ in range(1)] for _ in range(2)]
    assert runs[0][0][0].tobytes() == runs[1][0][0].tobytes()
    assert runs[0][0][1].tobytes() == runs[1][0][1].tobytes()


@pytest.mark.parametrize("count", [1, 2])
def test_shots_of_one_and_two_frames_fall_back(walk: SyntheticClip, count: int) -> None:
    rgb = walk.rgb[:count]
    maps = list(depth_from_motion(rgb, solve_camera(rgb, config=CONFIG), config=CONFIG))
    assert len(maps) == count
    assert max(c.max() for _, c in maps) < 0.1
    assert all(np.isfinite(d).all() for d, _ in maps)


def test_fallback_grows_downwards_and_puts_sky_far() -> None:
    rgb = np.full((1, 90, 160, 3), 127, np.uint8)
    disparity, confidence = next(fallback_shot(rgb, config=CONFIG))
    assert (np.diff(disparity[0, :, 80]) > 0).all()
    assert confidence.max() < 0.1
    roles = np.zeros((1, 9, 16), np.uint8)
    roles[0, :3] = Role.SKY
    with_sky, _ = next(fallback_shot(rgb, config=CONFIG, roles=roles))
    assert with_sky[0, :25].max() < with_sky[0, 35:].min()


def test_sky_keeps_its_edges_at_every_size(rng: np.random.Generator) -> None:
    rgb = np.full((1, 90, 160, 3), 127, np.uint8)
    roles = rng.choice([Role.STATIC, Role.SKY], (1, 131, 217)).astype(np.uint8)
    skies = []
    for masks in (roles, roles[:, ::-1, ::-1]):
        disparity, _ = next(fallback_shot(rgb, config=CONFIG, roles=masks))
        skies.append(disparity[0] == np.float32(CONFIG.min_disparity))
    np.testing.assert_array_equal(skies[0], skies[1][::-1, ::-1])


def test_black_frames_with_a_solve_keep_no_confidence(walk: SyntheticClip) -> None:
    black = np.zeros_like(walk.rgb)
    disparity, confidence = next(triangulate_shot(black, exact_solve(walk), config=NEAR))
    assert np.isfinite(disparity).all()
    assert confidence.max() < 0.01


class CountedFrames:
    """Frames that remember how far they were read."""

    def __init__(self, rgb: np.ndarray) -> None:
        self.rgb, self.farthest = rgb, -1
        self.shape = rgb.shape

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, index: int) -> np.ndarray:
        self.farthest = max(self.farthest, index)
        return self.rgb[index]


def test_frames_are_read_no_further_than_the_window(walk: SyntheticClip) -> None:
    options = {"fusion_offsets": (1,), "source_reach_frames": 2, "coarse_offsets": (1,)}
    frames = CountedFrames(walk.rgb)
    next(triangulate_shot(frames, exact_solve(walk), config=CONFIG.with_values(options)))
    # Four fusions reach a frame each, sources 2, and each of the six stages works ahead.
    assert 4 + 2 <= frames.farthest <= 4 + 2 + 6 * AHEAD_ITEMS < len(walk.rgb) - 1


@pytest.mark.parametrize("coarse_min_px", [48, 4096])
def test_where_nothing_matches_the_sparse_points_remain(walk: SyntheticClip, coarse_min_px: int) -> None:
    # A slanted plane of points seen through black pictures, with and without the coarse pass.
    exact = exact_solve(walk)
    at = exact.points[0][:, :2]
    seen = np.column_stack([at, 0.3 + 0.002 * at[:, 0] + 0.001 * at[:, 1]])
    still = replace(exact.path, world_from_cam=np.tile(np.eye(4), (26, 1, 1)))
    solve = replace(exact, path=still, points=FramePoints([seen] * 26))
    config = NEAR.with_values({"coarse_min_px": coarse_min_px})
    disparity, _ = next(triangulate_shot(np.zeros_like(walk.rgb), solve, config=config))
    v, u = np.mgrid[0 : WH[1], 0 : WH[0]]
    assert np.abs(disparity[0] / (0.3 + 0.002 * u + 0.001 * v) - 1)[10:-10, 10:-10].max() < 0.08


def test_size_of_the_maps() -> None:
    assert structure_wh(640, 360, CONFIG) == (320, 180)
    assert structure_wh(200, 100, CONFIG) == (200, 100)
    assert structure_wh(360, 640, CONFIG) == (180, 320)


def test_sources_lie_at_the_wanted_baselines() -> None:
    # A camera that steps 1 % of the depth a frame, and a blurred frame where the best source would be.
    count = 41
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = 0.01 * np.arange(count)
    k = Intrinsics(100, 100, 49.5, 49.5, 100, 100)
    solved = np.ones(count, bool)
    path = CameraPath(MotionKind.PARALLAX, k, poses, solved, np.ones(count, np.float32))
    solve = CameraSolve(path, FramePoints([[(0, 0, 1)]] * count), np.ones(count, np.float32))
    assert SourceChooser(solve, CONFIG).choose(20).tolist() == [8, 16, 24, 32]
    sharpness = np.ones(count, np.float32)
    sharpness[24] = 0.2
    assert 24 not in SourceChooser(replace(solve, sharpness=sharpness), CONFIG).choose(20)
    solved[16] = False
    assert 16 not in SourceChooser(solve, CONFIG).choose(20)


def test_sources_that_turn_too_far_are_left_out() -> None:
    poses = np.tile(np.eye(4), (3, 1, 1))
    poses[:, 0, 3] = (0, 0.07, 0.07)
    c, s = math.cos(0.5), math.sin(0.5)
    poses[2, :3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    k = Intrinsics(100, 100, 49.5, 49.5, 100, 100)
    ones = np.ones(3, np.float32)
    path = CameraPath(MotionKind.PARALLAX, k, poses, np.ones(3, bool), ones)
    solve = CameraSolve(path, FramePoints([[(0, 0, 1)], (), ()]), ones)
    assert SourceChooser(solve, CONFIG).choose(0).tolist() == [1]


def through(motion: np.ndarray, matrix: np.ndarray, u: float, v: float, disparity: float) -> np.ndarray:
    """Position (x, y) and depth, after the motion, of what lies at a pixel: the definition."""
    point = motion[:3, :3] @ (np.linalg.inv(matrix) @ [u, v, 1] / disparity) + motion[:3, 3]
    return np.array([*(matrix @ point / point[2])[:2], point[2]])


def between_pixels(values: np.ndarray, u: float, v: float) -> float:
    column, row = min(int(u), values.shape[1] - 2), min(int(v), values.shape[0] - 2)
    right, below = u - column, v - row
    (a, b), (c, d) = values[row : row + 2, column : column + 2]
    return float((1 - below) * ((1 - right) * a + right * b) + below * ((1 - right) * c + right * d))


def brought_pixel_by_pixel(
    own: np.ndarray, other: np.ndarray, motion: np.ndarray, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What the neighbour says at each pixel, and how many pixels off its surface is; NaN where it sees nothing."""
    found, miss = np.full(own.shape, np.nan), np.full(own.shape, np.nan)
    for (v, u), disparity in np.ndenumerate(own):
        x, y, z = through(motion, matrix, u, v, disparity)
        if z <= 0 or not (0 <= x <= own.shape[1] - 1 and 0 <= y <= own.shape[0] - 1):
            continue
        back = through(np.linalg.inv(motion), matrix, x, y, between_pixels(other, x, y))
        found[v, u], miss[v, u] = 1 / back[2], np.hypot(*(back[:2] - [u, v]))
    return found, miss


def test_bringing_a_neighbour_equals_the_definition(rng: np.random.Generator) -> None:
    k = Intrinsics(40, 42, 19.5, 14.5, 40, 30)
    motion = np.eye(4)
    motion[:3, :3] = [[math.cos(0.05), 0, math.sin(0.05)], [0, 1, 0], [-math.sin(0.05), 0, math.cos(0.05)]]
    motion[:3, 3] = (0.1, -0.05, 0.08)
    own, other = (rng.uniform(0.5, 0.9, (30, 40)).astype(np.float32) for _ in range(2))
    neighbour = Estimate(other, np.ones_like(other))
    found, trust = bring(neighbour, own, motion, normalised_rays(k), k, miss_px=1e6, floor=0.0)
    expected, miss = brought_pixel_by_pixel(own, other, motion, k.matrix())
    valid = np.isfinite(expected)
    assert valid.mean() > 0.5
    assert np.array_equal(trust > 0.5, valid)
    # OpenCV interpolates with positions rounded to 1/32 pixel.
    assert np.median(np.abs(found - expected)[valid]) < 4e-3
    strict = bring(neighbour, own, motion, normalised_rays(k), k, miss_px=1.0, floor=0.0)[1]
    assert np.allclose(strict[valid], 1 / (1 + miss[valid] ** 4), atol=0.08)


def test_fusion_outvotes_one_wrong_neighbour_and_trusts_confidence() -> None:
    one = np.ones((2, 2), np.float32)
    own = Estimate(1.02 * one, 0.5 * one)
    agreeing = [(1.0 * one, 0.8 * one), (0.99 * one, 0.8 * one)]
    fused = fuse(own, [*agreeing, (3.0 * one, 0.8 * one)], CONFIG)
    assert np.allclose(fused.disparity, 1.0, atol=0.015)
    weak = fuse(own, [(1.3 * one, 0.01 * one)], CONFIG)
    assert np.allclose(weak.disparity, 1.02, atol=1e-3)
    assert (fuse(own, agreeing, CONFIG).confidence > fused.confidence).all()


def test_weak_measurements_are_averaged_where_strong_ones_are_chosen_from() -> None:
    one = np.ones((4, 6), np.float32)

    def fused_of(confidence: float) -> np.ndarray:
        trust = (confidence + CONFIG.fusion_floor) * one
        others = [(value * one, trust) for value in (1.0, 1.02, 1.3, 1.3)]
        return fuse(Estimate(one, confidence * one), others, CONFIG).disparity

    assert np.abs(fused_of(0.9) - 1.01).max() < 0.01
    assert (fused_of(0.03) > 1.05).all()


def test_a_plane_is_carried_where_nothing_is_measured() -> None:
    v, u = np.mgrid[0:60, 0:80].astype(np.float32)
    plane = 1 + 0.004 * u + 0.002 * v
    gray = np.full((60, 80, 3), 90, np.uint8)
    weight = np.zeros((60, 80), np.float32)
    weight[10:50, 5:40] = 1
    damaged = np.where(weight > 0, plane, 0).astype(np.float32)
    completed = complete(gray, damaged, weight, CONFIG, near_px=8)
    assert np.abs(completed - plane)[10:50, 5:40].max() < 0.02
    assert np.abs(completed - plane)[10:50, 40:60].max() < 0.08


def test_smoothing_stops_at_colour_edges() -> None:
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[:, 30:] = 255
    values = np.where(rgb[..., 0] > 0, 2, 1).astype(np.float32)
    smoother = EdgeAwareSmoother(rgb, sigma_space_px=8, sigma_color=0.2)
    fitted = smoother.plane(values, np.ones_like(values), min_spread=0.05)
    assert np.abs(fitted - values).max() < 0.02
    flat = EdgeAwareSmoother(np.zeros_like(rgb), sigma_space_px=8, sigma_color=0.2)
    assert np.abs(flat.filter(values[None])[0] - values).max() > 0.3


def test_noise_below_the_given_difference_is_no_edge(rng: np.random.Generator) -> None:
    step = np.repeat(np.where(np.arange(60) < 30, 60, 160)[None], 40, 0)
    noisy = np.repeat((step + rng.integers(0, 4, step.shape))[..., None], 3, 2).astype(np.uint8)
    clean = np.repeat(step[..., None], 3, 2).astype(np.uint8)
    values = rng.random((1, 40, 60), dtype=np.float32)
    options = {"sigma_space_px": 20.0, "sigma_color": 0.05, "noise_color": 0.06}
    # Noise changes the height of the step, but nothing passes it either way.
    ours = EdgeAwareSmoother(noisy, **options).filter(values)[0]  # type: ignore[arg-type]
    wanted = EdgeAwareSmoother(clean, **options).filter(values)[0]  # type: ignore[arg-type]
    stopped = EdgeAwareSmoother(noisy, sigma_space_px=20, sigma_color=0.05).filter(values)[0]
    assert np.abs(ours - wanted).max() < 1e-3
    assert np.abs(stopped - wanted).max() > 0.05


def test_a_plain_wall_is_continued_behind_what_stands_before_it(rng: np.random.Generator) -> None:
    v, u = np.mgrid[0:120, 0:160].astype(np.float32)
    wall = 0.5 + 0.001 * u + 0.0005 * v
    front = (u > 60) & (u < 100) & (v > 20) & (v < 100)
    rgb = np.where(front[..., None], (110, 80, 60), (120, 20, 25)) + rng.integers(-3, 4, (120, 160, 3))
    disparity = np.where(front, 1, wall).astype(np.float32)
    seams = (v < 8) | (v > 112) | (u < 4)
    weight = np.where(front, 1, np.where(seams, 0.1, 0)).astype(np.float32)
    measured = np.where(weight > 0, disparity, 0).astype(np.float32)
    completed = complete(rgb.astype(np.uint8), measured, weight, CONFIG, near_px=CONFIG.smooth_px)
    ring = ~front & (u > 40) & (u < 120) & (v > 12) & (v < 108)
    assert np.abs(np.log(completed / wall))[ring].mean() < 0.12
    assert np.abs(completed - 1)[front].mean() < 0.05


def test_filter_keeps_constants_and_mass(rng: np.random.Generator) -> None:
    rgb = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
    smoother = EdgeAwareSmoother(rgb, sigma_space_px=6, sigma_color=0.5)
    assert np.allclose(smoother.filter(np.full((1, 30, 40), 3, np.float32)), 3, atol=1e-5)
