"""Motions without parallax are told from slow ones and from planes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stf_depth.config import GeometryConfig
from stf_depth.geometry import motion as motion_module
from stf_depth.geometry.camera import solve_camera
from stf_depth.geometry.motion import parallax_free_motion
from stf_depth.geometry.relative_pose import masked_medians, relative_pose, relative_rotations
from stf_depth.geometry.tracks import Tracks, track_parts
from stf_depth.geometry.turning import turn_instead
from stf_depth.synthetic import render_clip, scene
from stf_depth.types import CameraPath, Intrinsics, MotionKind

WH = (640, 360)
FRAMES = 60
PART = np.linspace(0, 1, FRAMES)


def tracks_of(xy: np.ndarray, step_px: float = 20.0) -> Tracks:
    """Tracks of points xy (T, n, 2) while they are in the picture; a key frame after each ``step_px``."""
    seen = (xy >= 0).all(-1) & (xy < WH).all(-1)
    keys = [0]
    for frame in range(1, len(xy)):
        both = seen[frame] & seen[keys[-1]]
        if np.median(np.linalg.norm(xy[frame, both] - xy[keys[-1], both], axis=1)) > step_px:
            keys.append(frame)
    keys = sorted({*keys, len(xy) - 1})
    ids = np.concatenate([np.flatnonzero(one) for one in seen])
    offsets = np.concatenate([[0], np.cumsum(seen.sum(1))])
    return Tracks(offsets, ids, xy[seen].astype(np.float32), np.array(keys), np.ones(len(xy), np.float32), WH)


@pytest.mark.parametrize("total_px", [4.0, 14.0])
def test_a_slow_dolly_does_not_stand_still(total_px: float, rng: np.random.Generator) -> None:
    xy = rng.uniform(20, (600, 340), (300, 2))
    near = rng.uniform(0.5, 1.5, 300)
    shift = total_px * np.linspace(0, 1, 200)[:, None] * near
    kind, _ = parallax_free_motion(tracks_of(xy + np.stack([shift, np.zeros_like(shift)], -1)))
    assert kind is not MotionKind.STATIC


def test_a_tremble_and_the_drift_of_tracks_stand_still(rng: np.random.Generator) -> None:
    xy = rng.uniform(20, (600, 340), (300, 2))
    drift = np.cumsum(rng.normal(0, 0.02, (400, 300, 2)), 0)
    tremble = 0.5 * np.sin(np.arange(400))[:, None, None]
    kind, _ = parallax_free_motion(tracks_of(xy + drift + tremble))
    assert kind is MotionKind.STATIC


def test_a_tripod_stands_still_under_noise_and_movers(rng: np.random.Generator) -> None:
    rgb = render_clip(scene("static_camera_movers"), 24, (320, 192)).rgb
    rgb = np.concatenate([rgb, rgb[::-1], rgb])
    noisy = np.clip(rgb + rng.normal(0, 8, rgb.shape), 0, 255).astype(np.uint8)
    (tracks,) = track_parts(noisy, None, GeometryConfig())
    assert parallax_free_motion(tracks)[0] is MotionKind.STATIC


def filmed(
    points: np.ndarray,
    focal_px: float,
    *,
    turn_degrees: float = 0.0,
    way: tuple[float, ...] = (0, 0, 0),
    zoom: float = 1.0,
) -> Tracks:
    """Tracks of points (n, 3) while the camera turns about its upright axis, moves and zooms, with 0.2 px of noise."""
    frames = []
    for part in PART:
        turn = Rotation.from_euler("y", turn_degrees * part, degrees=True).as_matrix()
        local = (points - part * np.array(way)) @ turn.T
        focal = focal_px * (1 + (zoom - 1) * part)
        frames.append(focal * local[:, :2] / local[:, 2:] + (np.array(WH) - 1) / 2)
    noise = np.random.default_rng(0).normal(0, 0.2, (FRAMES, len(points), 2))
    return tracks_of(np.stack(frames) + noise)


def rays(focal_px: float, rng: np.random.Generator) -> np.ndarray:
    """(n, 3) with z = 1, in and beside the picture."""
    width, height = WH
    xy = rng.uniform((-width, -height / 2), (2 * width, 1.5 * height), (1500, 2)) - np.array(WH) / 2
    return np.column_stack([xy / focal_px, np.ones(len(xy))])


@pytest.mark.parametrize("focal_px", [300.0, 700.0, 1500.0])
def test_a_camera_that_turns_or_zooms_shows_no_parallax(focal_px: float, rng: np.random.Generator) -> None:
    points = rays(focal_px, rng) * rng.uniform(1, 5, (1500, 1))
    assert parallax_free_motion(filmed(points, focal_px, turn_degrees=20))[0] is MotionKind.ROTATION
    assert parallax_free_motion(filmed(points, focal_px, zoom=1.5))[0] is MotionKind.ZOOM
    assert parallax_free_motion(filmed(points, focal_px, zoom=1.4, turn_degrees=6))[0] is MotionKind.ZOOM


@pytest.mark.parametrize("way", [(0.6, 0.0, 0.0), (0.0, 0.0, 0.5), (0.0, -0.4, 0.0)])
@pytest.mark.parametrize("slant", [(0.5, 0.0), (0.0, 0.4)])
def test_a_plane_filmed_by_a_moving_camera_is_not_turned(
    slant: tuple[float, float], way: tuple[float, ...], rng: np.random.Generator
) -> None:
    directions = rays(600.0, rng)
    points = directions / np.maximum(0.5 + directions[:, :2] @ np.array(slant), 0.05)[:, None]
    assert parallax_free_motion(filmed(points, 600.0, way=way)) == (None, "")


def true_path(turn_degrees: float, way: tuple[float, ...], focal_px: float, part: np.ndarray) -> CameraPath:
    poses = np.tile(np.eye(4), (len(part), 1, 1))
    poses[:, :3, :3] = Rotation.from_euler("y", -turn_degrees * part[:, None], degrees=True).as_matrix()
    poses[:, :3, 3] = part[:, None] * np.array(way)
    intrinsics = Intrinsics(focal_px, focal_px, (WH[0] - 1) / 2, (WH[1] - 1) / 2, *WH)
    return CameraPath(MotionKind.PARALLAX, intrinsics, poses, np.ones(len(part), bool), np.ones(len(part), np.float32))


def with_movers(tracks: Tracks) -> Tracks:
    """A third of the points moves by itself, all of them alike."""
    frame_of_row = np.repeat(np.arange(len(tracks)), np.diff(tracks.offsets))
    own = np.where(tracks.ids % 3 == 0, 0.8 * frame_of_row, 0.0).astype(np.float32)
    return replace(tracks, xy_px=tracks.xy_px + np.stack([own, own], 1))


@pytest.mark.parametrize("focal_px", [200.0, 500.0, 1500.0])
def test_a_turn_explains_as_much_as_a_path_without_parallax(focal_px: float, rng: np.random.Generator) -> None:
    points = rays(focal_px, rng) * rng.uniform(1, 5, (1500, 1))
    tracks = with_movers(filmed(points, focal_px, turn_degrees=9000 / focal_px))
    path = true_path(9000 / focal_px, (0, 0, 0), focal_px, PART)
    turn = turn_instead(tracks, path, None, GeometryConfig())
    assert turn is not None
    assert turn.turning > 0.85 * turn.moving


@pytest.mark.parametrize("way", [(0.3, 0, 0), (0.1, 0, 0), (0, 0, 0.4)])
@pytest.mark.parametrize("turn_degrees", [0, 15])
def test_a_turn_does_not_explain_parallax(
    turn_degrees: float, way: tuple[float, ...], rng: np.random.Generator
) -> None:
    points = rays(500.0, rng) * rng.uniform(1, 5, (1500, 1))
    path = true_path(turn_degrees, way, 500.0, PART)
    tracks = filmed(points, 500.0, turn_degrees=turn_degrees, way=way)
    assert turn_instead(tracks, path, None, GeometryConfig()) is None
    assert turn_instead(with_movers(tracks), path, None, GeometryConfig()) is None


def test_a_short_slide_before_a_low_relief_is_no_turn(rng: np.random.Generator) -> None:
    points = rays(576.0, rng) * rng.uniform(2.0, 2.4, (1500, 1))
    tracks = filmed(points, 576.0, way=(0.1, 0, 0))
    assert turn_instead(tracks, true_path(0, (0.1, 0, 0), 576.0, PART), None, GeometryConfig()) is None


def test_a_long_stand_before_a_dolly_does_not_hide_it(rng: np.random.Generator) -> None:
    points = rays(500.0, rng) * rng.uniform(1, 5, (1500, 1))
    moving = filmed(points, 500.0, way=(0.3, 0, 0))
    still, first = 500, slice(0, int(moving.offsets[1]))
    tracks = Tracks(
        np.concatenate([np.arange(still) * moving.offsets[1], still * moving.offsets[1] + moving.offsets]),
        np.concatenate([np.tile(moving.ids[first], still), moving.ids]),
        np.concatenate([np.tile(moving.xy_px[first], (still, 1)), moving.xy_px]),
        np.concatenate([[0], still + moving.key_frames[1:]]),
        np.ones(still + FRAMES, np.float32),
        WH,
    )
    path = true_path(0, (0.3, 0, 0), 500.0, np.concatenate([np.zeros(still), PART]))
    assert turn_instead(tracks, path, None, GeometryConfig()) is None


def test_a_known_focal_length_is_the_only_one_that_is_tried(rng: np.random.Generator) -> None:
    points = rays(500.0, rng) * rng.uniform(1, 5, (1500, 1))
    tracks = filmed(points, 500.0, turn_degrees=30)
    nowhere = replace(true_path(0, (0, 0, 0), 500.0, PART), solved=np.zeros(FRAMES, bool))
    assert turn_instead(tracks, nowhere, 500.0, GeometryConfig()) is not None
    assert turn_instead(tracks, nowhere, 1500.0, GeometryConfig()) is None


def test_one_bad_pair_makes_no_zoom(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    tracks = filmed(rays(500.0, rng), 500.0, turn_degrees=20)
    fits = iter([(0.95, 1.6, 0.3), *[(0.99, 1.0, 1.0)] * 20])
    monkeypatch.setattr(motion_module, "_homography_fit", lambda *_: next(fits))
    assert parallax_free_motion(tracks)[0] is MotionKind.ROTATION


def test_a_pan_past_people_is_a_rotation() -> None:
    room, people = scene("rotation"), scene("static_camera_movers")
    take = replace(room.takes[0], things=people.takes[0].things)
    clip = render_clip(replace(room, takes=(take,)), 24, (320, 180), noise_sigma=1.0)
    (tracks,) = track_parts(clip.rgb, None, GeometryConfig())
    assert parallax_free_motion(tracks) == (None, "")
    path = solve_camera(clip.rgb, config=GeometryConfig()).path
    assert path.kind is MotionKind.ROTATION
    assert "turn on the spot" in path.reason
    assert not path.solved.any()


def test_rotations_of_many_pairs_are_those_of_each_alone(rng: np.random.Generator) -> None:
    """Of as many points as each pair has, a third of them outliers."""
    noise, pairs = 1e-3, []
    for count in (40, 250, 13):
        turn = Rotation.from_rotvec(rng.normal(0, 0.1, 3)).as_matrix()
        rays = np.column_stack([rng.uniform(-0.6, 0.6, (count, 2)), np.ones(count)])
        seen = (rays @ turn.T)[:, :2] / (rays @ turn.T)[:, 2:] + rng.normal(0, noise, (count, 2))
        seen[: count // 3] += 0.3
        pairs.append((rays, seen))
    source, target, known = np.zeros((3, 250, 2)), np.zeros((3, 250, 2)), np.zeros((3, 250), bool)
    for number, (rays, seen) in enumerate(pairs):
        source[number, : len(rays)], target[number, : len(rays)], known[number, : len(rays)] = rays[:, :2], seen, True
    found = relative_rotations(source, target, known, noise=noise)
    medians = masked_medians(found.errors, known)
    for number, (rays, seen) in enumerate(pairs):
        alone = relative_pose(rays, np.zeros(len(rays)), seen, noise=noise)
        np.testing.assert_allclose(found.rotations[number], alone.pose[:3, :3], atol=1e-5)
        np.testing.assert_allclose(found.errors[number, : len(rays)], alone.errors, atol=1e-5)
        assert medians[number] == np.median(found.errors[number, : len(rays)])
