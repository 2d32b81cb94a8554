"""Long shots: tracks in parts, one camera path from the parts, points that stay out of memory."""

from __future__ import annotations

import itertools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stf_depth.config import GeometryConfig
from stf_depth.geometry import camera as camera_module
from stf_depth.geometry import tracks as tracks_module
from stf_depth.geometry.camera import solve_camera
from stf_depth.geometry.camera_solve import CameraSolve, save_solve
from stf_depth.geometry.chain import StoredPart, chained
from stf_depth.geometry.features import FrameFeatures
from stf_depth.geometry.points import FramePoints
from stf_depth.geometry.solve import ASSUMED_FOCAL, TracksSolve, solve_tracks
from stf_depth.geometry.tracks import Tracks, track_parts
from stf_depth.synthetic import SyntheticClip, render_clip, scene
from stf_depth.types import CameraPath, Intrinsics, MotionKind

# Many key frames from a short clip: they come for every few pixels of motion.
CONFIG = GeometryConfig(part_key_frames=8, keyframe_motion=0.006)
WHOLE = CONFIG.with_values({"part_key_frames": 64})
K = Intrinsics(100, 100, 49.5, 39.5, 100, 80)


@pytest.fixture(scope="module")
def walk() -> SyntheticClip:
    return render_clip(scene("room"), 60, (240, 150), noise_sigma=1.0)


@pytest.fixture(scope="module")
def parts(walk: SyntheticClip) -> list[Tracks]:
    return list(track_parts(walk.rgb, None, CONFIG))


def test_parts_cover_the_shot_with_the_same_tracks(walk: SyntheticClip, parts: list[Tracks]) -> None:
    (whole,) = track_parts(walk.rgb, None, WHOLE)
    assert len(parts) >= 2
    assert parts[0].start == 0 and parts[-1].start + len(parts[-1]) == len(walk.rgb)
    assert np.array_equal(np.concatenate([part.sharpness for part in parts])[:23], whole.sharpness[:23])
    for frame in range(len(parts[0])):
        assert_same(parts[0].frame(frame), whole.frame(frame))
    for first, second in itertools.pairwise(parts):
        for frame in range(second.start, first.start + len(first)):
            assert_same(first.frame(frame - first.start), second.frame(frame - second.start))
    for part in parts:
        assert part.key_frames[0] == 0 and part.key_frames[-1] == len(part) - 1


def assert_same(first: tuple[np.ndarray, ...], second: tuple[np.ndarray, ...]) -> None:
    for ours, theirs in zip(first, second, strict=True):
        assert np.array_equal(ours, theirs)


def test_points_are_not_followed_for_ever(walk: SyntheticClip, parts: list[Tracks]) -> None:
    early = parts[0].frame(0)[0]
    assert np.isin(early, next(track_parts(walk.rgb, None, WHOLE)).frame(59)[0]).sum() > 20
    assert not np.isin(early, parts[-1].frame(len(parts[-1]) - 1)[0]).any()


def test_parts_overlap_by_some_key_frames(parts: list[Tracks]) -> None:
    for first, second in itertools.pairwise(parts):
        common = np.intersect1d(first.start + first.key_frames, second.start + second.key_frames)
        assert len(first.key_frames) == CONFIG.part_key_frames
        assert len(common) == 3  # a quarter of 8 is fewer than the least


def test_a_camera_that_stands_still_for_long_ends_a_part_too(
    walk: SyntheticClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracks_module, "_PART_FRAMES", 10)
    still = np.repeat(walk.rgb[:1], 35, axis=0)
    parts = list(track_parts(still, None, CONFIG))
    assert [(part.start, len(part)) for part in parts] == [(5 * n, 10) for n in range(6)] + [(30, 5)]
    solve = solve_camera(still, config=CONFIG)
    assert solve.path.kind is MotionKind.STATIC
    assert len(solve.path) == len(solve.points) == len(solve.sharpness) == 35


@pytest.mark.parametrize("known", [True, False])
def test_a_solve_in_parts_is_as_good_as_a_solve_at_once(walk: SyntheticClip, *, known: bool) -> None:
    focal = {"focal_px": walk.intrinsics.fx_px if known else None}
    whole, parts = (solve_camera(walk.rgb, config=config.with_values(focal)) for config in (WHOLE, CONFIG))
    assert parts.path.is_reliable and parts.path.solved.all()
    assert parts.path.intrinsics.fx_px == pytest.approx(whole.path.intrinsics.fx_px, rel=0.1)
    if known:
        assert parts.path.intrinsics == whole.path.intrinsics
        assert parts.path.reason == whole.path.reason
    errors = [centre_error(solve.path.world_from_cam, walk.world_from_cam) for solve in (whole, parts)]
    assert errors[1] < 1.3 * errors[0] + 0.01
    steps = np.linalg.norm(np.diff(parts.path.world_from_cam[:, :3, 3], axis=0), axis=1)
    assert steps.max() < 3 * np.median(steps)  # no jump where the parts meet
    for frame in (0, 20, 40, 59):
        assert_points_agree(parts, whole, frame)


def centre_error(found: np.ndarray, true: np.ndarray) -> float:
    """RMS distance of camera centres after the best similarity, as a share of the path's spread."""
    a, b = (path[:, :3, 3] - path[:, :3, 3].mean(0) for path in (found, true))
    rotation, _ = Rotation.align_vectors(b, a)
    moved = rotation.apply(a)
    return float(np.sqrt(((moved * (moved * b).sum() / (moved**2).sum() - b) ** 2).sum() / (b**2).sum()))


def assert_points_agree(first: CameraSolve, second: CameraSolve, frame: int) -> None:
    """The same tracked points at the same depths, but for one factor near 1."""
    seen = [{(x, y): d for x, y, d in solve.points[frame].tolist()} for solve in (first, second)]
    ratios = np.log([seen[0][key] / seen[1][key] for key in seen[0].keys() & seen[1].keys()])
    assert len(ratios) > 50
    assert abs(np.median(ratios)) < 0.05
    assert np.median(np.abs(ratios - np.median(ratios))) < 0.02


def test_masked_parts_give_the_same_solve_twice(walk: SyntheticClip) -> None:
    first, second = (solve_camera(walk.rgb, roles=walk.roles, config=CONFIG) for _ in range(2))
    assert first.path.world_from_cam.tobytes() == second.path.world_from_cam.tobytes()
    assert all(first.points[frame].tobytes() == second.points[frame].tobytes() for frame in range(60))


def test_all_parts_take_the_focal_length_that_the_motion_tells(
    walk: SyntheticClip, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_part_tells(tracks: Tracks, config: GeometryConfig, features: FrameFeatures) -> TracksSolve:
        found = solve_tracks(tracks, config, features)
        path = replace(found.solve.path, reason=ASSUMED_FOCAL)
        if tracks.start == 0:
            path = replace(path, reason="", intrinsics=replace(path.intrinsics, fx_px=190.0))
        return replace(found, solve=replace(found.solve, path=path))

    monkeypatch.setattr(camera_module, "solve_tracks", one_part_tells)
    solve = solve_camera(walk.rgb, config=CONFIG)
    assert solve.path.is_reliable and solve.path.solved.all()
    assert solve.path.intrinsics.fx_px == 190.0
    assert solve.path.reason == ""


def true_path(count: int) -> np.ndarray:
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(np.outer(0.5 * np.arange(count), (0, 1, 0)), degrees=True).as_matrix()
    poses[:, :3, 3] = np.stack([0.05 * np.arange(count), 0.2 * np.sin(0.1 * np.arange(count)), np.zeros(count)], 1)
    return poses


def part_of(
    folder: Path, start: int, stop: int, scale: float, *, kind: MotionKind = MotionKind.PARALLAX, bend: float = 0.0
) -> StoredPart:
    """Frames of a known path with made-up points, in a unit and frame of the part's own; bend: wrong depths."""
    count = stop - start
    poses = true_path(stop)[start:]
    turn = Rotation.from_euler("xyz", [start, 2 * start, -start], degrees=True).as_matrix()
    moved = poses.copy()
    moved[:, :3, :3] = turn @ poses[:, :3, :3]
    moved[:, :3, 3] = scale * poses[:, :3, 3] @ turn.T + start
    solved = np.full(count, kind is MotionKind.PARALLAX)
    path = CameraPath(kind, K, moved, solved, solved.astype(np.float32), 0.9, 3.0, 0.4, "" if solved.any() else "lost")
    rng = np.random.default_rng(7)
    xy, disparity = rng.uniform(0, 99, (40, 2)), rng.uniform(0.4, 2, 40)
    factor = np.exp(bend * rng.standard_normal(40))
    frames = [np.column_stack([xy + 0.01 * frame, disparity / scale * factor]) for frame in range(start, stop)]
    file = folder / f"{start}.npz"
    save_solve(file, CameraSolve(path, FramePoints(frames), np.ones(count, np.float32)))
    return StoredPart(start, path, np.ones(count, np.float32), file)


def test_parts_in_units_of_their_own_become_one_path(tmp_path: Path) -> None:
    parts = [part_of(tmp_path, *row) for row in ((0, 30, 1.0), (20, 55, 3.0), (45, 70, 0.2))]
    solve = chained(parts)
    truth = true_path(70)
    unit = solve.path.world_from_cam[1, 0, 3] / truth[1, 0, 3]
    assert unit == pytest.approx(1 / np.median([1, 1 / 3, 5]))
    assert np.allclose(solve.path.world_from_cam[:, :3, :3], truth[:, :3, :3], atol=1e-5)
    assert np.allclose(solve.path.world_from_cam[:, :3, 3], unit * truth[:, :3, 3], atol=1e-4)
    assert solve.path.solved.all() and solve.path.reliability.min() == pytest.approx(1)
    for frame in range(70):
        assert np.allclose(solve.points[frame][:, 2], solve.points[0][:, 2], rtol=1e-5)
        assert solve.points[frame][0, 0] - solve.points[0][0, 0] == pytest.approx(0.01 * frame, abs=1e-4)
    quality = solve.path.inlier_fraction, solve.path.triangulation_angle_degrees, solve.path.reprojection_error_px
    assert quality == (pytest.approx(0.9), 3.0, 0.4)


def test_poses_go_over_from_part_to_part_little_by_little(tmp_path: Path) -> None:
    first, second = part_of(tmp_path, 0, 30, 1.0), part_of(tmp_path, 20, 50, 1.0)
    poses = second.path.world_from_cam.copy()
    drift = np.linspace(-0.04, 0.04, 10)  # the later part sees the shared frames a little differently
    poses[:10, :3, 3] += drift[:, None] * poses[:10, :3, 0]
    shifted = replace(second, path=replace(second.path, world_from_cam=poses))
    found = chained([first, shifted]).path.world_from_cam
    off = np.einsum("ti,ti->t", found[:, :3, 3] - true_path(50)[:, :3, 3], true_path(50)[:, :3, 0])
    expected = np.arange(1, 11) / 11 * drift
    assert np.allclose(off[20:30], expected, atol=5e-3)
    assert np.abs(off[:20]).max() < 1e-6


@pytest.mark.parametrize("wrong", [{"kind": MotionKind.UNSOLVED}, {"bend": 0.5}])
def test_a_part_that_does_not_fit_ends_the_chain_and_the_longest_piece_remains(tmp_path: Path, wrong: dict) -> None:
    rows = ((0, 30, 1.0, {}), (20, 40, 1.0, wrong), (30, 60, 2.0, {}), (50, 90, 2.0, {}))
    parts = [part_of(tmp_path, start, stop, scale, **options) for start, stop, scale, options in rows]
    solve = chained(parts)
    assert solve.path.solved.tolist() == [False] * 30 + [True] * 60
    assert not solve.path.reliability[:30].any()
    assert [len(solve.points[frame]) for frame in (0, 29, 30, 89)] == [0, 0, 40, 40]
    assert np.allclose(solve.path.world_from_cam[:30], solve.path.world_from_cam[30:31])


def test_without_any_reliable_part_the_longest_one_tells_why(tmp_path: Path) -> None:
    kinds = ((0, 30, MotionKind.STATIC), (20, 90, MotionKind.UNSOLVED))
    parts = [part_of(tmp_path, start, stop, 1.0, kind=kind) for start, stop, kind in kinds]
    solve = chained(parts)
    assert (solve.path.kind, solve.path.reason) == (MotionKind.UNSOLVED, "lost")
    assert not solve.path.is_reliable and len(solve.points) == 90


def test_points_are_read_by_any_thread_in_any_order() -> None:
    rng = np.random.default_rng(1)
    frames = [rng.uniform(0, 1, (int(n), 3)).astype(np.float32) for n in rng.integers(0, 50, 200)]
    points = FramePoints(frames)
    order = rng.permutation(200).tolist()
    with ThreadPoolExecutor(4) as pool:
        for frame, rows in zip(order, pool.map(points.__getitem__, order), strict=True):
            assert np.array_equal(rows, frames[frame])
    with pytest.raises(IndexError):
        points[200]
    with pytest.raises(IndexError):
        points[-1]
