"""Flow-warp error without the camera's motion: exact on a rendered walk, and no reward for a plane."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import stf_depth
from stf_depth.evaluation import still_scene
from stf_depth.evaluation.flow_links import FlowLink, link_from_flow
from stf_depth.evaluation.selfcheck import evaluate_self
from stf_depth.evaluation.still_scene import Placement, StillScene, still_flicker_pair
from stf_depth.geometry.poses import relative
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene, write_video
from stf_depth.types import CameraPath, Intrinsics, MotionKind, Shot


@pytest.fixture(scope="module")
def drive() -> SyntheticClip:
    return render_clip(scene("forward"), frames=3, wh=(160, 96))


def linked(clip: SyntheticClip, frame: int) -> FlowLink:
    return link_from_flow(clip.flow_forward[frame], clip.flow_backward[frame])


def measured(clip: SyntheticClip, closeness: np.ndarray, placement: Placement) -> float:
    motion = relative(clip.world_from_cam[0], clip.world_from_cam[1])
    first, second = (part.astype(np.float32) for part in closeness[:2])
    return still_flicker_pair(first, second, placement, motion, clip.intrinsics, linked(clip, 0)).value


def test_true_depth_scores_near_zero_however_it_is_written(drive: SyntheticClip) -> None:
    true = np.nan_to_num(drive.disparity)
    exact = measured(drive, true, Placement(1.0, 0.0))
    assert exact < 0.02  # bilinear samples beside depth edges
    assert measured(drive, 3 * true - 0.5, Placement(1 / 3, 0.5 / 3)) == pytest.approx(exact, abs=1e-4)
    jittered = true * np.array([1, 1.1, 1])[:, None, None]
    assert measured(drive, jittered, Placement(1.0, 0.0)) > 5 * exact


def test_a_wall_must_come_nearer_by_what_the_camera_moves() -> None:
    """A wall ten metres ahead, one metre forward: nine metres are right, ten are 1/9 too far, infinity counts as 1."""
    grid = np.dstack(np.meshgrid(np.arange(16, dtype=np.float32), np.arange(9, dtype=np.float32)))
    link = FlowLink(grid, np.ones((9, 16), bool), grid)
    camera = Intrinsics(16, 16, 7.5, 4, 16, 9)
    motion = np.eye(4)
    motion[2, 3] = -1

    def error(first_m: float, second_m: float) -> float:
        maps = [np.full((9, 16), 1 / z, np.float32) for z in (first_m, second_m)]
        return still_flicker_pair(maps[0], maps[1], Placement(1.0, 0.0), motion, camera, link).value

    assert error(10, 9) == pytest.approx(0, abs=1e-6)
    assert error(10, 10) == pytest.approx(1 / 9, rel=1e-5)
    assert error(10, np.inf) == 1
    assert error(np.inf, np.inf) == 0


def test_missing_predictions_are_errors(drive: SyntheticClip) -> None:
    missing = np.full_like(drive.disparity, np.nan)
    assert measured(drive, missing, Placement(1.0, 0.0)) == 1.0
    link = linked(drive, 0)
    nothing = FlowLink(link.xy_px, np.zeros_like(link.consistent), link.backward_xy_px)
    frames = [np.nan_to_num(frame).astype(np.float32) for frame in drive.disparity[:2]]
    found = still_flicker_pair(*frames, Placement(1.0, 0.0), np.eye(4), drive.intrinsics, nothing)
    assert math.isnan(found.value)
    assert found.reason


def test_a_pose_that_is_not_solved_measures_nothing(drive: SyntheticClip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(still_scene, "structure_maps", lambda _: None)
    solved = np.array([True, True, False])
    camera = CameraPath(MotionKind.PARALLAX, drive.intrinsics, drive.world_from_cam, solved, solved.astype(np.float32))
    result: Any = SimpleNamespace(shots=[Shot(0, 3)], cameras=[camera])
    still = StillScene(result, (160, 96))
    near = [np.nan_to_num(frame).astype(np.float32) for frame in drive.disparity]
    placements = {Shot(0, 3): Placement(1.0, 0.0)}
    assert still.measure(0, (near[0], near[1]), placements, linked(drive, 0)).value < 0.02
    unsolved = still.measure(1, (near[1], near[2]), placements, linked(drive, 1))
    assert math.isnan(unsolved.value) and "not solved" in unsolved.reason


def test_a_run_reports_less_of_it_after_fusion(tmp_path: Path) -> None:
    clip = render_clip(scene("room"), frames=24, wh=(192, 120), noise_sigma=1.0)
    video = write_video(clip, tmp_path / "room.mp4")
    maps = degrade(clip.depth, 0)
    np.savez(tmp_path / "maps.npz", depth=maps.depth, representation="disparity", ambiguity="affine")
    result = stf_depth.process(
        video,
        preset="offline",
        depth=f"precomputed:{tmp_path / 'maps.npz'}",
        panoptic="none",
        output_dir=tmp_path / "out",
        working_dir=tmp_path / "work",
    )
    scores = evaluate_self(result.folder)
    before, after = (scores.value("still_flicker_percent", row) for row in ("per frame", "fused"))
    assert after < 0.5 * before
