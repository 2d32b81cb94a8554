"""Motions without parallax are told from slow ones and from planes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stf_depth.config import GeometryConfig
from stf_depth.geometry.motion import parallax_free_motion
from stf_depth.geometry.tracks import Tracks, track_parts
from stf_depth.synthetic import render_clip, scene
from stf_depth.types import MotionKind

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
    kinds = {MotionKind.ROTATION, MotionKind.ZOOM}  # in a wide turn the picture scales a little, too
    assert parallax_free_motion(filmed(points, focal_px, turn_degrees=20))[0] in kinds
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
