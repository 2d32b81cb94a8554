"""What a camera path explains of what was tracked, and what becomes of the points that it does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stf_depth.config import GeometryConfig
from stf_depth.geometry.explained import explained, share_explained
from stf_depth.geometry.mapping import map_key_frames
from stf_depth.geometry.matches import KeyFrameMatches
from stf_depth.geometry.solve import solve_tracks
from stf_depth.geometry.tracks import KeptTracks, Tracks
from stf_depth.types import CameraPath, Intrinsics, MotionKind

WH, FRAMES, FOCAL_PX = (640, 360), 24, 560.0
STILL, MOVING = 500, 260
ALONG_M, ASIDE_M = np.array([0, 0, 0.048]), np.array([0.01, 0, 0.03])  # a frame
CONFIG = GeometryConfig(focal_px=FOCAL_PX)


def true_path() -> CameraPath:
    """Forward, a little to the side, turning slowly."""
    poses = np.tile(np.eye(4), (FRAMES, 1, 1))
    for frame in range(FRAMES):
        angle = np.radians(0.1 * frame)
        poses[frame, :3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        poses[frame, :3, 3] = 0.01 * frame, 0.0, 0.06 * frame
    k = Intrinsics(FOCAL_PX, FOCAL_PX, (WH[0] - 1) / 2, (WH[1] - 1) / 2, *WH)
    return CameraPath(MotionKind.PARALLAX, k, poses, np.ones(FRAMES, bool), np.ones(FRAMES, np.float32))


def tracked(noise_px: float = 0.1, moving: int = MOVING, step_m: np.ndarray = ALONG_M) -> Tracks:
    """``STILL`` points that stand and ``moving`` ones ahead that go so far each frame."""
    rng, path = np.random.default_rng(0), true_path()
    z = rng.uniform(3, 12, STILL + moving)
    z[STILL:] = rng.uniform(3, 5, moving)
    points = np.stack([rng.uniform(-0.5, 0.5, len(z)) * z, rng.uniform(-0.3, 0.3, len(z)) * z, z], 1)
    ids, positions, offsets = [], [], [0]
    for frame, pose in enumerate(path.world_from_cam):
        now = points + np.where(np.arange(len(z)) >= STILL, frame, 0)[:, None] * step_m
        seen = (now - pose[:3, 3]) @ pose[:3, :3]
        xy = seen[:, :2] / seen[:, 2:] * FOCAL_PX + [(WH[0] - 1) / 2, (WH[1] - 1) / 2]
        xy += rng.normal(0, noise_px, xy.shape)
        inside = np.flatnonzero(((xy >= 0) & (xy <= np.array(WH) - 1)).all(1) & (seen[:, 2] > 0.2))
        ids.append(inside)
        positions.append(xy[inside].astype(np.float32))
        offsets.append(offsets[-1] + len(inside))
    key_frames = np.arange(0, FRAMES, 2)
    sharpness = np.ones(FRAMES, np.float32)
    return Tracks(np.array(offsets), np.concatenate(ids), np.concatenate(positions), key_frames, sharpness, WH)


def direction_error_degrees(found: CameraPath, true: CameraPath) -> float:
    """Angle between the directions from the first camera to the last."""
    ways = [
        path.world_from_cam[0, :3, :3].T @ np.diff(path.world_from_cam[[0, -1], :3, 3], axis=0)[0]
        for path in (found, true)
    ]
    a, b = (way / np.linalg.norm(way) for way in ways)
    return float(np.degrees(np.arccos(np.clip(a @ b, -1, 1))))


def test_the_true_path_explains_what_stands_still() -> None:
    tracks = tracked()
    found = explained(tracks, true_path(), 1.0)
    still = tracks.ids < STILL
    assert (found.error_px[found.judged & still] < 1.0).mean() > 0.99
    assert found.judged[still].mean() > 0.8
    assert np.median(found.error_px[found.judged & still]) == pytest.approx(0.12, abs=0.06)


def test_misfits_are_what_moves_aside() -> None:
    tracks = tracked(step_m=ASIDE_M)
    misfits = explained(tracks, true_path(), 1.5).misfits(1.5, 0.7)
    moving = np.unique(tracks.ids[tracks.ids >= STILL])
    assert (misfits >= STILL).all()
    assert len(misfits) > 0.6 * len(moving)


def test_each_error_is_that_of_the_depth_that_fits_best() -> None:
    tracks, path = tracked(), true_path()
    found, k = explained(tracks, path, 1.0), path.intrinsics
    frame_of_row = np.repeat(np.arange(FRAMES), np.diff(tracks.offsets))
    disparities = np.concatenate([[0.0], np.geomspace(0.02, 2, 4000)])
    for point in (3, 50, STILL + 5):
        rows = np.flatnonzero(tracks.ids == point)
        middle = frame_of_row[rows[len(rows) // 2]]
        x, y = (tracks.xy_px[rows[len(rows) // 2]] - [k.cx_px, k.cy_px]) / FOCAL_PX
        errors = []
        for row in rows:
            motion = np.linalg.inv(path.world_from_cam[frame_of_row[row]]) @ path.world_from_cam[middle]
            seen = motion[:3, :3] @ [x, y, 1] + disparities[:, None] * motion[:3, 3]
            xy = seen[:, :2] / seen[:, 2:] * FOCAL_PX + [k.cx_px, k.cy_px]
            errors.append(np.linalg.norm(xy - tracks.xy_px[row], axis=1))
        gaps = np.stack(errors)
        best = np.log1p(gaps**2).sum(0).argmin()
        np.testing.assert_allclose(found.error_px[rows], gaps[:, best], atol=0.15)


def test_points_of_few_frames_and_frames_without_a_pose_are_not_judged() -> None:
    tracks, path = tracked(), true_path()
    half = replace(path, solved=np.arange(FRAMES) < 4)
    assert not explained(tracks, half, 1.0).judged.any()
    assert share_explained([tracks], half, 1.0) == 0.0


def test_a_share_counts_all_parts(tmp_path: Path) -> None:
    tracks, path = tracked(), true_path()
    cut = int(tracks.offsets[12])
    first = Tracks(
        tracks.offsets[:13], tracks.ids[:cut], tracks.xy_px[:cut], tracks.key_frames[:6], tracks.sharpness[:12], WH
    )
    second = Tracks(
        tracks.offsets[12:] - cut,
        tracks.ids[cut:],
        tracks.xy_px[cut:],
        tracks.key_frames[6:] - 12,
        tracks.sharpness[12:],
        WH,
        12,
    )
    kept = KeptTracks(iter([first, second]), tmp_path)
    once, again = share_explained(kept, path, 1.0), share_explained(kept, path, 1.0)
    assert once == again
    both = [explained(part, replace(path, **sliced(path, part)), 1.0).counts(1.0) for part in (first, second)]
    assert once == sum(fits for fits, _ in both) / sum(judged for _, judged in both)


def sliced(path: CameraPath, part: Tracks) -> dict[str, np.ndarray]:
    frames = slice(part.start, part.start + len(part))
    return {name: getattr(path, name)[frames] for name in ("world_from_cam", "solved", "reliability")}


def test_points_left_out_are_not_mapped() -> None:
    tracks = tracked()
    left_out = np.arange(100)
    found = map_key_frames(KeyFrameMatches(tracks, CONFIG, left_out=left_out), FOCAL_PX, focal_known=True)
    assert found is not None and found.num_points3D() > 100
    for point in found.points3D.values():
        for element in point.track.elements:
            key = int(tracks.key_frames[element.image_id - 1])
            assert tracks.frame(key)[0][element.point2D_idx] >= 100


def test_what_moves_does_not_turn_the_camera() -> None:
    tracks = tracked(0.3, 400, ASIDE_M)
    once, again = (solve_tracks(tracks, CONFIG.with_values({"solve_rounds": rounds})).solve.path for rounds in (0, 3))
    assert again.is_reliable
    assert share_explained([tracks], again, 1.0) > share_explained([tracks], once, 1.0)
    errors = [direction_error_degrees(path, true_path()) for path in (once, again)]
    assert errors[1] < 0.5 * errors[0]
