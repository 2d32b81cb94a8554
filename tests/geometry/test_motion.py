"""Motions without parallax are told from slow ones and from planes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stf_depth.config import GeometryConfig
from stf_depth.geometry.camera import solve_camera
from stf_depth.geometry.motion import parallax_free_motion
from stf_depth.geometry.tracks import Tracks, track_parts
from stf_depth.geometry.turning import explained_by_turning
from stf_depth.synthetic import render_clip, scene
from stf_depth.types import CameraPath, Intrinsics, MotionKind

WH = (640, 360)
FRAMES = 60


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
    for part in np.linspace(0, 1, FRAMES):
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


def turned_or_moved(points: np.ndarray, *, turn_degrees: float, way: tuple[float, ...]) -> str | None:
    """What is said of the true path of tracks, a third of them on things that move by themselves."""
    tracks = filmed(points, 500.0, turn_degrees=turn_degrees, way=way)
    frame_of_row = np.repeat(np.arange(FRAMES), np.diff(tracks.offsets))
    own = np.where(tracks.ids % 3 == 0, 0.8 * frame_of_row, 0.0).astype(np.float32)
    tracks = replace(tracks, xy_px=tracks.xy_px + np.stack([own, own], 1))
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    part = np.linspace(0, 1, FRAMES)
    poses[:, :3, :3] = Rotation.from_euler("y", -turn_degrees * part[:, None], degrees=True).as_matrix()
    poses[:, :3, 3] = part[:, None] * np.array(way)
    intrinsics = Intrinsics(500.0, 500.0, (WH[0] - 1) / 2, (WH[1] - 1) / 2, *WH)
    path = CameraPath(MotionKind.PARALLAX, intrinsics, poses, np.ones(FRAMES, bool), np.ones(FRAMES, np.float32))
    return explained_by_turning(tracks, path, None, GeometryConfig())


def test_a_turn_explains_what_moves_no_better_than_a_path_without_parallax(rng: np.random.Generator) -> None:
    points = rays(500.0, rng) * rng.uniform(1, 5, (1500, 1))
    said = turned_or_moved(points, turn_degrees=15, way=(0, 0, 0))
    assert said is not None and "turns on the spot" in said
    assert turned_or_moved(points, turn_degrees=15, way=(0.3, 0, 0)) is None


def test_a_known_focal_length_is_the_only_one_that_is_tried(rng: np.random.Generator) -> None:
    points = rays(500.0, rng) * rng.uniform(1, 5, (1500, 1))
    tracks = filmed(points, 500.0, turn_degrees=30)
    nowhere = CameraPath(
        MotionKind.UNSOLVED,
        Intrinsics(500.0, 500.0, 319.5, 179.5, *WH),
        np.tile(np.eye(4), (FRAMES, 1, 1)),
        np.zeros(FRAMES, bool),
        np.zeros(FRAMES, np.float32),
    )
    assert explained_by_turning(tracks, nowhere, 500.0, GeometryConfig()) is not None
    assert explained_by_turning(tracks, nowhere, 1500.0, GeometryConfig()) is None


def test_a_pan_past_people_is_a_rotation() -> None:
    room, people = scene("rotation"), scene("static_camera_movers")
    take = replace(room.takes[0], things=people.takes[0].things)
    clip = render_clip(replace(room, takes=(take,)), 24, (320, 180), noise_sigma=1.0)
    (tracks,) = track_parts(clip.rgb, None, GeometryConfig())
    assert parallax_free_motion(tracks) == (None, "")
    path = solve_camera(clip.rgb, config=GeometryConfig()).path
    assert path.kind is MotionKind.ROTATION
    assert "turns on the spot" in path.reason
    assert not path.solved.any()
