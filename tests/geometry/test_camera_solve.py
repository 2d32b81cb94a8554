"""The camera solve on rendered scenes whose poses and focal length are known."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from scipy.stats import spearmanr

from stf_depth.config import GeometryConfig
from stf_depth.errors import ShapeError
from stf_depth.geometry.camera import likelier, solve_camera
from stf_depth.geometry.camera_solve import CameraSolve, load_solve, save_solve
from stf_depth.geometry.mapping import adjusted, locate_frames, map_key_frames, mean_error_px
from stf_depth.geometry.matches import KeyFrameMatches
from stf_depth.geometry.mirror import mirrored, near_side_near
from stf_depth.geometry.pictures import trackable_mask
from stf_depth.geometry.poses import fill_poses, inverse, project_points, relative, rotation_degrees
from stf_depth.geometry.solve import known_focal_px
from stf_depth.geometry.tracks import Tracks, track_parts
from stf_depth.synthetic import SyntheticClip, render_clip, scene
from stf_depth.types import CameraPath, Intrinsics, MotionKind, Role

CONFIG = GeometryConfig()
WH = (288, 180)


@pytest.fixture(scope="module")
def walk() -> SyntheticClip:
    return render_clip(scene("room"), 20, WH, noise_sigma=1.0)


@pytest.fixture(scope="module")
def walk_solve(walk: SyntheticClip) -> CameraSolve:
    return solve_camera(walk.rgb, config=CONFIG.with_values({"focal_px": walk.intrinsics.fx_px}))


def one_part(rgb: np.ndarray, roles: np.ndarray | None, config: GeometryConfig) -> Tracks:
    (whole,) = track_parts(rgb, roles, config)
    return whole


def similarity_error(found: np.ndarray, true: np.ndarray) -> float:
    """RMS distance of camera centres after the best similarity, as a share of the path's spread."""
    a, b = (path[:, :3, 3] - path[:, :3, 3].mean(0) for path in (found, true))
    u, s, vt = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    moved = (s * signs).sum() / (a**2).sum() * a @ (u * signs @ vt).T
    return float(np.sqrt(((moved - b) ** 2).sum() / (b**2).sum()))


def test_poses_are_recovered_up_to_a_similarity(walk: SyntheticClip, walk_solve: CameraSolve) -> None:
    path = walk_solve.path
    assert path.kind is MotionKind.PARALLAX
    assert path.is_reliable
    assert path.solved.all()
    assert similarity_error(path.world_from_cam, walk.world_from_cam) < 0.04
    turned = rotation_degrees(relative(path.world_from_cam[0], path.world_from_cam[-1]))
    true_turned = rotation_degrees(relative(walk.world_from_cam[0], walk.world_from_cam[-1]))
    assert turned == pytest.approx(true_turned, abs=0.5)
    assert path.reliability.min() > 0.5
    assert path.reprojection_error_px < 0.5


def test_sparse_depth_agrees_with_the_scene(walk: SyntheticClip, walk_solve: CameraSolve) -> None:
    ratios = []
    for frame in (0, 9, 19):
        xy, disparity = walk_solve.sparse_disparity(frame)
        column, row = np.rint(xy).astype(int).T
        ratios.append(disparity * walk.depth[frame][row, column])
    spread = np.concatenate(ratios)
    assert len(spread) > 300
    # Corners lie on depth edges, where the pixel under the point may belong to the surface behind.
    assert np.median(np.abs(np.log(spread / np.median(spread)))) < 0.06


def test_median_point_has_depth_one(walk_solve: CameraSolve) -> None:
    depths = np.concatenate([1 / walk_solve.sparse_disparity(frame)[1] for frame in range(20)])
    assert np.median(depths) == pytest.approx(1, rel=0.02)


def test_same_frames_give_the_same_bytes(walk: SyntheticClip, walk_solve: CameraSolve) -> None:
    again = solve_camera(walk.rgb, config=CONFIG.with_values({"focal_px": walk.intrinsics.fx_px}))
    assert again.path.world_from_cam.tobytes() == walk_solve.path.world_from_cam.tobytes()
    assert again.path.reliability.tobytes() == walk_solve.path.reliability.tobytes()
    for frame in range(20):
        assert again.points[frame].tobytes() == walk_solve.points[frame].tobytes()


def test_a_file_brings_back_the_same_solve(walk_solve: CameraSolve, tmp_path: Path) -> None:
    save_solve(tmp_path / "solve.npz", walk_solve)
    again = load_solve(tmp_path / "solve.npz")
    assert replace(again.path, **arrays_of(walk_solve.path)) == replace(walk_solve.path, **arrays_of(walk_solve.path))
    for name, array in arrays_of(walk_solve.path).items():
        assert np.array_equal(getattr(again.path, name), array)
    for frame in range(20):
        assert np.array_equal(again.points[frame], walk_solve.points[frame])
    assert np.array_equal(again.sharpness, walk_solve.sharpness)


def arrays_of(path: CameraPath) -> dict[str, np.ndarray]:
    return {name: getattr(path, name) for name in ("world_from_cam", "solved", "reliability")}


def test_a_damaged_file_of_a_solve_is_noticed(walk_solve: CameraSolve, tmp_path: Path) -> None:
    file = tmp_path / "solve.npz"
    save_solve(file, walk_solve)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        load_solve(file)


@pytest.mark.parametrize(
    ("name", "kind", "word"),
    [
        ("rotation", MotionKind.ROTATION, "turns"),
        ("zoom", MotionKind.ZOOM, "focal length changes"),
        ("static_camera_movers", MotionKind.STATIC, "still"),
    ],
)
def test_motions_without_parallax_are_named(name: str, kind: MotionKind, word: str) -> None:
    clip = render_clip(scene(name), 12, WH, noise_sigma=1.0)
    path = solve_camera(clip.rgb, roles=clip.roles, config=CONFIG).path
    assert path.kind is kind
    assert word in path.reason
    assert not path.is_reliable
    assert not path.reliability.any()


def hopeless_clips() -> Iterator[tuple[str, np.ndarray]]:
    grid = np.indices((64, 96)).sum(0).astype(np.uint8)
    yield "one frame", np.repeat(grid[None, ..., None], 3, -1)
    yield "two frames", np.repeat(np.repeat(grid[None, ..., None], 3, -1), 2, 0)
    yield "black", np.zeros((12, 64, 96, 3), np.uint8)
    yield "white", np.full((12, 64, 96, 3), 255, np.uint8)
    yield "noise", np.random.default_rng(3).integers(0, 256, (12, 64, 96, 3), dtype=np.uint8)
    yield "tiny", np.zeros((12, 9, 16, 3), np.uint8)


@pytest.mark.parametrize(("name", "rgb"), hopeless_clips())
def test_hopeless_content_is_unsolved_with_a_reason(name: str, rgb: np.ndarray) -> None:
    solve = solve_camera(rgb, config=CONFIG)
    assert solve.path.kind is MotionKind.UNSOLVED
    assert solve.path.reason
    assert len(solve.path) == len(rgb)
    assert not solve.path.is_reliable
    assert all(len(solve.points[frame]) == 0 for frame in range(len(rgb)))


def test_wrong_masks_do_not_make_the_solve_worse(walk: SyntheticClip, walk_solve: CameraSolve) -> None:
    # Most of a rigid room is called a mover: without the mask as many points fit, and more of the picture is used.
    roles = np.full(walk.labels.shape, Role.STATIC, np.uint8)
    roles[:, :, : 2 * roles.shape[2] // 3] = Role.MOVER
    config = CONFIG.with_values({"focal_px": walk.intrinsics.fx_px})
    for wrong in (roles, np.full(walk.labels.shape, Role.SKY, np.uint8)):
        masked = solve_camera(walk.rgb, roles=wrong, config=config).path
        assert masked.is_reliable
        assert np.array_equal(masked.world_from_cam, walk_solve.path.world_from_cam)


@pytest.mark.parametrize(
    ("kind", "masked_share", "free_share", "expected"),
    [
        (MotionKind.PARALLAX, 0.80, 0.55, "masked"),
        (MotionKind.PARALLAX, 0.70, 0.698, "free"),
        (MotionKind.PARALLAX, 0.60, 0.70, "free"),
        (MotionKind.UNSOLVED, 0.30, 0.60, "free"),
        (MotionKind.STATIC, 0.00, 0.60, "masked"),
    ],
)
def test_masks_are_believed_where_they_take_away_what_does_not_fit(
    walk_solve: CameraSolve, kind: MotionKind, masked_share: float, free_share: float, expected: str
) -> None:
    trust = walk_solve.path.reliability * (kind is MotionKind.PARALLAX)
    masked = replace(walk_solve, path=replace(walk_solve.path, kind=kind, reliability=trust))
    free = replace(walk_solve, path=replace(walk_solve.path))
    shares = {id(masked.path): masked_share, id(free.path): free_share}
    found = likelier(masked, free, lambda path: shares[id(path)], CONFIG)
    assert found is {"masked": masked, "free": free}[expected]


def test_movers_and_sky_are_not_tracked() -> None:
    clip = render_clip(scene("street"), 8, WH)
    tracks = one_part(clip.rgb, clip.roles, CONFIG)
    for frame in (0, 7):
        column, row = np.rint(tracks.frame(frame)[1]).astype(int).T
        assert not np.isin(clip.roles[frame][row, column], (Role.SKY, Role.MOVER)).any()
    unmasked = one_part(clip.rgb, None, CONFIG)
    column, row = np.rint(unmasked.frame(7)[1]).astype(int).T
    assert np.isin(clip.roles[7][row, column], (Role.SKY, Role.MOVER)).any()


def test_mask_keeps_a_margin() -> None:
    roles = np.full((45, 80), Role.STATIC, np.uint8)
    roles[20, 40] = Role.MOVER
    mask = trackable_mask(roles, 320, 180)
    assert mask.shape == (180, 320)
    assert mask[80:84, 160:164].max() == 0
    assert mask[79, 159] == 0
    assert mask[60, 120] == 255


def test_roles_keep_their_edges_at_every_size(rng: np.random.Generator) -> None:
    roles = rng.choice([Role.STATIC, Role.MOVER], (7, 11), p=[0.9, 0.1]).astype(np.uint8)
    mask = trackable_mask(roles, 320, 180)
    np.testing.assert_array_equal(mask[::-1, ::-1], trackable_mask(roles[::-1, ::-1], 320, 180))


def test_tracks_follow_the_true_flow(walk: SyntheticClip) -> None:
    tracks = one_part(walk.rgb[:2], None, CONFIG)
    before, after = tracks.common(0, 1)
    start, end = tracks.frame(0)[1][before], tracks.frame(1)[1][after]
    column, row = np.rint(start).astype(int).T
    truth = walk.flow_forward[0][row, column]
    assert np.median(np.abs(end - start - truth)) < 0.15


def test_role_maps_of_another_length_are_refused(walk: SyntheticClip) -> None:
    with pytest.raises(ShapeError, match="one role map"):
        one_part(walk.rgb, walk.roles[:3], CONFIG)
    with pytest.raises(ShapeError, match="RGB"):
        one_part(walk.rgb[..., 0], None, CONFIG)


def relief_tracks(focal_px: float, points: int = 300, views: int = 8) -> tuple[Tracks, np.ndarray]:
    """Points between 2.5 and 3.5 away, seen by a camera that moves around them; and their true disparity."""
    rng = np.random.default_rng(0)
    xyz = np.column_stack([rng.uniform(-1, 1, points), rng.uniform(-0.6, 0.6, points), rng.uniform(2.5, 3.5, points)])
    seen = []
    for turn in np.linspace(-0.12, 0.12, views):
        rotation = Rotation.from_euler("y", turn).as_matrix()
        moved = (xyz - [0, 0, 3]) @ rotation.T + [0, 0.3 * turn, 3]
        seen.append(focal_px * moved[:, :2] / moved[:, 2:] + [(WH[0] - 1) / 2, (WH[1] - 1) / 2])
    xy = np.concatenate(seen) + rng.normal(0, 0.1, (points * views, 2))
    offsets, ids = np.arange(views + 1) * points, np.tile(np.arange(points), views)
    tracks = Tracks(offsets, ids, xy.astype(np.float32), np.arange(views), np.ones(views, np.float32), WH)
    return tracks, 1 / xyz[:, 2]


def nearness_agreement(map_: Any, tracks: Tracks, disparity: np.ndarray) -> float:
    """Rank correlation of the mapped points' disparity in the middle view with the true one."""
    solve = locate_frames(tracks, map_, CONFIG)
    row = solve.point_of_track
    points = solve.points[row[row >= 0]]
    pose = np.linalg.inv(solve.world_from_cam[len(tracks) // 2])
    return float(spearmanr(1 / (points @ pose[2, :3] + pose[2, 3]), disparity[row >= 0]).statistic)


@pytest.mark.parametrize("focal_known", [True, False])
def test_near_and_far_that_were_swapped_are_put_right(focal_known: bool) -> None:
    focal = 0.9 * WH[0]
    tracks, disparity = relief_tracks(focal)
    right = map_key_frames(KeyFrameMatches(tracks, CONFIG), focal, focal_known=True)
    swapped = adjusted(mirrored(right), focal, refine_focal=False, steps=2)
    assert nearness_agreement(right, tracks, disparity) > 0.95
    assert nearness_agreement(swapped, tracks, disparity) < -0.8
    found = near_side_near(swapped, focal, focal_known=focal_known)
    assert nearness_agreement(found, tracks, disparity) > 0.95
    assert mean_error_px(found) < 1.05 * mean_error_px(right)
    assert near_side_near(right, focal, focal_known=focal_known) is right


def test_user_focal_length_and_field_of_view() -> None:
    assert known_focal_px(CONFIG, 640) is None
    assert known_focal_px(CONFIG.with_values({"horizontal_fov_degrees": 90.0}), 640) == pytest.approx(320)
    both = CONFIG.with_values({"horizontal_fov_degrees": 90.0, "focal_px": 500.0})
    assert known_focal_px(both, 640) == 500


def test_user_focal_length_is_kept(walk: SyntheticClip) -> None:
    solve = solve_camera(walk.rgb[:10], config=CONFIG.with_values({"focal_px": 333.0}))
    assert solve.path.intrinsics.fx_px == 333
    assert solve.path.intrinsics.cx_px == (WH[0] - 1) / 2


def test_an_unusual_focal_length_is_not_trusted_unless_the_user_says_so(walk: SyntheticClip) -> None:
    found = solve_camera(walk.rgb, config=GeometryConfig(max_focal=0.4)).path
    assert found.kind is MotionKind.UNSOLVED and "focal length" in found.reason
    assert not found.is_reliable
    given = GeometryConfig(max_focal=0.4, focal_px=walk.intrinsics.fx_px)
    assert solve_camera(walk.rgb, config=given).path.is_reliable


def test_a_street_that_does_not_hold_the_focal_length_is_solved_at_a_usual_one() -> None:
    clip = render_clip(scene("street"), 48, (240, 136), noise_sigma=1.2)
    solve = solve_camera(clip.rgb, roles=clip.roles, config=CONFIG)
    assert solve.path.is_reliable
    assert solve.path.intrinsics.fx_px == CONFIG.first_focal * 240
    assert "usual one is assumed" in solve.path.reason
    assert similarity_error(solve.path.world_from_cam, clip.world_from_cam) < 0.3
    solved_at_once = CONFIG.with_values({"focal_px": CONFIG.first_focal * 240})
    again = solve_camera(clip.rgb, roles=clip.roles, config=solved_at_once)
    assert similarity_error(again.path.world_from_cam, solve.path.world_from_cam) < 0.1


def test_unsolved_poses_are_interpolated() -> None:
    poses = np.tile(np.eye(4), (5, 1, 1))
    poses[1, :3, 3], poses[3, :3, 3] = (1, 0, 0), (3, 0, 2)
    poses[3, :3, :3] = [[0, 0, 1], [0, 1, 0], [-1, 0, 0]]
    filled = fill_poses(poses, np.array([False, True, False, True, False]))
    assert np.allclose(filled[2, :3, 3], (2, 0, 1))
    assert rotation_degrees(filled[2]) == pytest.approx(45)
    assert np.allclose(filled[0], poses[1])
    assert np.allclose(filled[4], poses[3])


def test_projection_of_points() -> None:
    k = Intrinsics(100, 100, 49.5, 29.5, 100, 60)
    uv, z = project_points(np.array([[0, 0, 2.0], [1, 0, 2.0], [0, 0, -1.0]]), np.eye(4), k)
    assert uv[:2].tolist() == [[49.5, 29.5], [99.5, 29.5]]
    assert np.isnan(uv[2]).all()
    assert z.tolist() == [2, 2, -1]


def test_inverse_of_a_motion() -> None:
    motion = np.eye(4)
    motion[:3, :3] = [[0, -1, 0], [1, 0, 0], [0, 0, 1]]
    motion[:3, 3] = (1, 2, 3)
    assert np.allclose(inverse(motion), np.linalg.inv(motion))
