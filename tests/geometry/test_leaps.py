"""Frames that are too far apart to be tracked, and paths whose scale is not carried on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stf_depth.config import GeometryConfig
from stf_depth.geometry import solve as solve_module
from stf_depth.geometry.camera import solve_camera
from stf_depth.geometry.features import Features, FrameFeatures
from stf_depth.geometry.mapping import bounded_error_px, map_key_frames, mean_error_px
from stf_depth.geometry.matches import KeyFrameMatches
from stf_depth.geometry.pictures import GrayFrames
from stf_depth.geometry.pieces import longest_piece, scale_carriers
from stf_depth.geometry.solve import TracksSolve, solve_tracks
from stf_depth.geometry.tracks import Tracks, track_parts
from stf_depth.synthetic import Camera, SyntheticClip, render_clip, scene
from stf_depth.synthetic.scenes import rotation_matrix
from stf_depth.types import Role

CONFIG = GeometryConfig()
WH = (320, 180)
FOCAL_PX = 0.9 * WH[0]


@pytest.fixture(scope="module")
def wall() -> np.ndarray:
    """A large picture of blobs of many sizes, to look at through a window that moves."""
    rng = np.random.default_rng(0)
    layers = [cv2.resize(rng.normal(size=(360 // s, 900 // s)), (900, 360)) * s**0.5 for s in (2, 4, 8, 16, 32)]
    picture = np.sum(layers, 0)
    return cv2.normalize(picture, np.empty_like(picture), 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def windows(wall: np.ndarray, corners: list[tuple[int, int]]) -> np.ndarray:
    width, height = WH
    return np.stack([np.repeat(wall[y : y + height, x : x + width, None], 3, -1) for x, y in corners])


def test_a_leap_of_the_picture_is_found(wall: np.ndarray) -> None:
    rgb = windows(wall, [(40, 50), (200, 90)])
    points = np.array([[200.0, 100.0], [250.0, 60.0]], np.float32)
    moved = FrameFeatures(GrayFrames(rgb, None)).leap(0, 1, points)
    np.testing.assert_allclose(moved, points - [160, 40], atol=0.5)


def test_no_leap_between_pictures_that_share_nothing(wall: np.ndarray) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1, WH[1], WH[0], 3), np.uint8)
    rgb = np.concatenate([windows(wall, [(40, 50)]), noise, np.zeros_like(noise)])
    features = FrameFeatures(GrayFrames(rgb, None))
    points = np.array([[100.0, 100.0]], np.float32)
    assert features.leap(0, 1, points) is None
    assert features.leap(0, 2, points) is None
    assert len(features.of_frame(2).xy_px) == 0


def test_features_keep_off_movers(wall: np.ndarray) -> None:
    roles = np.full((1, 18, 32), Role.STATIC, np.uint8)
    roles[:, :, 16:] = Role.MOVER
    found = FrameFeatures(GrayFrames(windows(wall, [(0, 0)]), roles)).of_frame(0)
    assert len(found.xy_px) > 50
    assert found.xy_px[:, 0].max() < 160


def test_points_survive_a_leap(wall: np.ndarray) -> None:
    rgb = windows(wall, [(40, 50), (220, 50)])
    shared = []
    for survival in (0.0, 0.5):
        (tracks,) = track_parts(rgb, None, CONFIG.with_values({"track_survival": survival}))
        before, after = tracks.common(0, 1)
        moved = tracks.frame(1)[1][after] - tracks.frame(0)[1][before]
        right = np.abs(moved - [-180, 0]).max(1) < 0.2
        shared.append(int(right.sum()))
        if survival:
            assert right.mean() > 0.9
    assert shared[1] > 60
    assert shared[1] > 4 * shared[0]


@dataclass(frozen=True)
class Thrown(Camera):
    """Turned to one side or the other from one frame to the next."""

    turns_degrees: tuple[float, ...] = (0.0,)

    def world_from_cam(self, time_seconds: float) -> np.ndarray:
        pose = super().world_from_cam(time_seconds).copy()
        turn = self.turns_degrees[round(24 * time_seconds) % len(self.turns_degrees)]
        pose[:3, :3] = rotation_matrix(turn, 0.0)
        return pose


def thrown_clip(turns_degrees: tuple[float, ...], frames: int) -> SyntheticClip:
    room = scene("room")
    camera = Thrown((-0.6, 0, 0), (1.6, 0, 0.4), (0.02, 0.03, 0.03), turns_degrees=turns_degrees)
    return render_clip(replace(room, takes=(replace(room.takes[0], camera=camera),)), frames, WH, noise_sigma=1.0)


def test_a_camera_that_is_thrown_about_is_solved() -> None:
    clip = thrown_clip((8.0, -8.0), 16)
    path = solve_camera(clip.rgb, config=CONFIG).path
    assert path.is_reliable and path.solved.all()
    assert similarity_error(path.world_from_cam, clip.world_from_cam) < 0.03
    tracked_only = CONFIG.with_values({"track_survival": 0.0, "feature_share": 0.0})
    assert not solve_camera(clip.rgb, config=tracked_only).path.is_reliable


@pytest.mark.parametrize("hidden", [range(12, 13), range(11, 15)])
def test_what_hides_the_view_for_a_moment_does_not_end_the_path(hidden: range) -> None:
    clip = render_clip(scene("room"), 30, WH, noise_sigma=1.0)
    rgb = clip.rgb.copy()
    rgb[hidden] = 128
    (tracks,) = track_parts(rgb, None, CONFIG)
    before, after = tracks.common(hidden.start - 1, hidden.stop)
    start, end = tracks.frame(hidden.start - 1)[1][before], tracks.frame(hidden.stop)[1][after]
    assert len(start) > 200
    world = np.stack([clip.world_from_cam[frame] for frame in (hidden.start - 1, hidden.stop)])
    truth, is_seen = moved_truth(clip, start, hidden.start - 1, world)
    assert np.median(np.abs(end - truth)[is_seen]) < 0.3
    path = solve_camera(rgb, config=CONFIG).path
    assert path.is_reliable
    assert np.flatnonzero(~path.solved).tolist() == list(hidden)
    seen = np.flatnonzero(path.solved)
    assert similarity_error(path.world_from_cam[seen], clip.world_from_cam[seen]) < 0.04


def moved_truth(
    clip: SyntheticClip, xy_px: np.ndarray, frame: int, world_from_cam: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where points of ``frame`` are in the second of two cameras, by their true depth."""
    k = clip.intrinsics
    column, row = np.rint(xy_px).astype(int).T
    z = clip.depth[frame][row, column].astype(np.float64)
    local = np.column_stack([(xy_px - [k.cx_px, k.cy_px]) / [k.fx_px, k.fy_px] * z[:, None], z, np.ones(len(z))])
    there = local @ (np.linalg.inv(world_from_cam[1]) @ world_from_cam[0]).T
    return there[:, :2] / there[:, 2:3] * [k.fx_px, k.fy_px] + [k.cx_px, k.cy_px], there[:, 2] > 0


def test_tracking_begins_after_black_pictures(wall: np.ndarray) -> None:
    seen = windows(wall, [(20 + 4 * step, 40) for step in range(8)])
    (tracks,) = track_parts(np.concatenate([np.zeros((5, *seen.shape[1:]), np.uint8), seen]), None, CONFIG)
    counts = np.diff(tracks.offsets)
    assert not counts[:5].any()
    assert counts[5:].min() > 100
    assert 5 in tracks.key_frames


def test_features_join_what_tracking_does_not() -> None:
    clip = thrown_clip((0.0, 7.0, 0.0, -7.0), 20)
    config = CONFIG.with_values({"track_survival": 0.0})
    joined, alone = (solve_camera(clip.rgb, config=config.with_values({"feature_share": s})).path for s in (0.6, 0.0))
    assert joined.is_reliable and joined.solved.all()
    assert similarity_error(joined.world_from_cam, clip.world_from_cam) < 0.03
    assert not alone.solved.all()


def test_a_leap_in_a_later_part_is_followed(wall: np.ndarray) -> None:
    corners = [(6 * step, 20) for step in range(30)] + [(200 + 6 * step, 100) for step in range(30, 50)]
    rgb = windows(wall, corners)
    config = CONFIG.with_values({"part_key_frames": 8, "keyframe_motion": 0.03})
    parts = list(track_parts(rgb, None, config))
    assert len(parts) > 2
    part = next(part for part in parts if part.start > 0 and part.start + len(part) > 30 > part.start)
    before, after = part.common(29 - part.start, 30 - part.start)
    moved = part.frame(30 - part.start)[1][after] - part.frame(29 - part.start)[1][before]
    assert len(moved) > 30
    np.testing.assert_allclose(np.median(moved, 0), np.subtract(corners[29], corners[30]), atol=0.2)


def similarity_error(found: np.ndarray, true: np.ndarray) -> float:
    """RMS distance of camera centres after the best similarity, as a share of the path's spread."""
    a, b = (path[:, :3, 3] - path[:, :3, 3].mean(0) for path in (found, true))
    rotation, _ = Rotation.align_vectors(b, a)
    moved = rotation.apply(a)
    scale = (moved * b).sum() / (moved**2).sum()
    return float(np.sqrt(((scale * moved - b) ** 2).sum() / (b**2).sum()))


class FakeFeatures:
    """Ten features in each frame, the k-th of one the k-th of any other."""

    def of_frame(self, frame: int) -> Features:
        assert frame in range(7, 12)  # of the shot; the tracks start at 7
        xy = np.column_stack([np.full(10, 5.0 + frame), np.linspace(10, 100, 10)]).astype(np.float32)
        return Features(xy, np.zeros((10, 128), np.uint8))

    def matches(self, first: int, second: int) -> np.ndarray:
        assert 7 <= first < second < 12
        return np.stack([np.arange(10), np.arange(10)], 1)


def tracks_of(seen: list[np.ndarray], xy: list[np.ndarray], start: int = 0) -> Tracks:
    """Each frame a key frame that sees the points of these ids."""
    count = len(seen)
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in seen])])
    positions, sharpness = np.concatenate(xy).astype(np.float32), np.ones(count, np.float32)
    return Tracks(offsets, np.concatenate(seen), positions, np.arange(count), sharpness, WH, start)


def test_features_join_key_frames_that_share_few_points() -> None:
    config = CONFIG.with_values({"feature_share": 0.6})
    seen = [np.arange(40, 120), np.arange(80, 160), np.arange(120, 200), np.arange(125, 205), np.arange(130, 210)]
    tracks = tracks_of(seen, [np.random.default_rng(0).uniform(20, 160, (80, 2)) for _ in seen], start=7)
    features: Any = FakeFeatures()
    shared = KeyFrameMatches(tracks, config, features=features).shared
    # 40 points shared: joined by features, which come after the 80 tracked points.
    assert shared[0, 1].tolist()[40:] == [[80 + k, 80 + k] for k in range(10)]
    # 75 points shared: enough.
    assert len(shared[2, 3]) == 75
    # None shared and too far apart, or too little in common with the features too.
    assert (0, 4) not in shared and (0, 2) not in shared
    assert len(KeyFrameMatches(tracks, config).shared[0, 1]) == 40


def test_features_beside_points_that_are_left_out_join_nothing() -> None:
    upper = np.column_stack([np.full(80, 12.0), np.linspace(5, 50, 80)])
    lower = np.column_stack([np.full(40, 12.0), np.linspace(65, 110, 40)])
    seen = [np.arange(120), np.arange(40, 120)]
    tracks = tracks_of(seen, [np.concatenate([upper, lower]), np.concatenate([upper[40:], lower])], start=7)
    features: Any = FakeFeatures()
    rows = KeyFrameMatches(tracks, CONFIG, left_out=np.arange(80, 120), features=features).shared[0, 1]
    assert rows[:, 0].tolist() == [*range(40, 80), *range(120, 125)]


def two_rooms(bridge: int, views: int = 6, points: int = 120) -> Tracks:
    """Points that the first views see, others that the later ones see, and some that all of them see."""
    rng = np.random.default_rng(0)
    low, high = (-1.0, -0.6, 2.0), (1.0, 0.6, 4.0)
    xyz = rng.uniform(low, high, (2 * points + bridge, 3))
    seen, xy = [], []
    for view in range(2 * views):
        own = np.arange(points) + (points if view >= views else 0)
        ids = np.concatenate([own, 2 * points + np.arange(bridge)])
        rotation = Rotation.from_euler("y", 0.05 * (view - views)).as_matrix()
        moved = (xyz[ids] - [0, 0, 3]) @ rotation.T + [0.1 * (view - views), 0.02 * view, 3]
        seen.append(ids)
        xy.append(FOCAL_PX * moved[:, :2] / moved[:, 2:] + [(WH[0] - 1) / 2, (WH[1] - 1) / 2])
    return tracks_of(seen, [at + rng.normal(0, 0.1, at.shape) for at in xy])


def test_points_that_carry_the_scale_are_counted() -> None:
    tracks = two_rooms(bridge=40)
    carriers = scale_carriers(map_of(tracks), len(tracks), CONFIG.carrier_degrees, CONFIG.min_carriers)
    assert carriers.shape == (11,)
    assert 30 <= carriers[5] <= 40
    assert np.delete(carriers, 5).min() > 80


def test_one_key_frame_at_the_end_has_no_scale_of_its_own() -> None:
    tracks = two_rooms(bridge=40)
    points = slice(0, int(tracks.offsets[6]))  # of the first room
    first = Tracks(
        tracks.offsets[:7], tracks.ids[points], tracks.xy_px[points], np.arange(6), np.ones(6, np.float32), WH
    )
    kept = first.offsets[:-1, None] + np.arange(160)
    few = np.array([0, 4, 5])  # the last two see the points under hardly any angle
    rows = kept[few].ravel()
    tracks = Tracks(160 * np.arange(4), first.ids[rows], first.xy_px[rows], np.arange(3), np.ones(3, np.float32), WH)
    map_ = map_of(tracks)
    assert scale_carriers(map_, 3, 5.0, 10).tolist() == [map_.num_points3D()] * 2


def map_of(tracks: Tracks) -> Any:
    found = map_key_frames(KeyFrameMatches(tracks, CONFIG), FOCAL_PX, focal_known=True)
    assert found is not None
    return found


def test_a_path_is_cut_where_the_scale_is_not_carried_on() -> None:
    tracks = two_rooms(bridge=40)
    config = CONFIG.with_values({"focal_px": FOCAL_PX})
    found = [solve_tracks(tracks, config.with_values({"min_carriers": least})) for least in (10, 60)]
    whole, cut = (one.solve.path for one in found)
    assert found[0].weakest <= 40 and found[1].weakest > 80  # of the piece alone
    assert whole.solved.all()
    assert cut.is_reliable
    assert cut.solved.tolist() == [True] * 6 + [False] * 6
    assert not cut.reliability[6:].any()


@pytest.mark.parametrize(
    ("carriers", "expected"),
    [
        ([50, 50, 50], range(20)),
        ([50, 9, 50], range(10, 20)),
        ([9, 50, 50], range(4, 20)),
        ([50, 50, 9], range(11)),
        ([9, 9, 9], range(14, 20)),
    ],
)
def test_the_longest_piece(carriers: list[int], expected: range) -> None:
    piece = longest_piece(np.array([0, 4, 10, 14]), np.array(carriers), 10, np.ones(20, bool))
    assert np.flatnonzero(piece).tolist() == list(expected)


def test_a_piece_without_poses_is_not_the_longest() -> None:
    solved = np.arange(200) < 90
    piece = longest_piece(np.array([0, 70, 80, 199]), np.array([50, 5, 50]), 10, solved)
    assert np.flatnonzero(piece).tolist() == list(range(71))


def test_one_point_behind_a_camera_does_not_decide() -> None:
    map_ = map_of(two_rooms(bridge=40))
    before = bounded_error_px(map_)
    assert before == pytest.approx(mean_error_px(map_))
    point = next(iter(map_.points3D.values()))
    point.xyz = -50 * point.xyz
    map_.update_point_3d_errors()
    assert mean_error_px(map_) == float("inf")
    assert before < bounded_error_px(map_) < before + 0.1


@pytest.mark.parametrize(
    ("shares", "weakest", "expected"),
    [
        ((0.584, 0.572), (20, 55), 1),  # nearly as much, and firmer
        ((0.584, 0.540), (20, 55), 0),  # clearly less
        ((0.70, 0.71), (900, 210), 1),  # both firm: the one that explains more
        ((0.70, 0.70), (0, 0), 0),
    ],
)
def test_of_solves_that_explain_nearly_as_much_the_firmest_is_taken(
    shares: tuple[float, float], weakest: tuple[int, int], expected: int
) -> None:
    tracks = two_rooms(bridge=40)
    solve = solve_tracks(tracks, CONFIG.with_values({"focal_px": FOCAL_PX})).solve
    assert solve.path.is_reliable
    found = [TracksSolve(solve, None, share, links) for share, links in zip(shares, weakest, strict=True)]
    firm = CONFIG.firm_share * 160  # points in each frame
    assert solve_module._best(found, firm, CONFIG) is found[expected]
    alone = CONFIG.with_values({"link_evidence": 0.0})
    assert solve_module._best(found, firm, alone) is found[int(shares[1] > shares[0])]
