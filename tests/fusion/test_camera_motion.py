"""The camera's motion from flow and depth, what is taken from it, and what is left to others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from stf_depth.config import RunConfig
from stf_depth.fusion.egomotion import Egomotion, agreement, camera_step
from stf_depth.fusion.inputs import ShotInputs
from stf_depth.fusion.poses import PoseFilter
from stf_depth.fusion.shot import fuse_shot
from stf_depth.fusion.trajectory import pixel_grid
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene
from stf_depth.types import Intrinsics, Role

HW = (48, 64)
FOCAL_PX = 0.9 * 64
CENTRE = np.array([31.5, 23.5])


def step_of(shift: tuple[float, float, float], turn_degrees: float = 0.0) -> np.ndarray:
    step = np.eye(4)
    step[:3, :3] = Rotation.from_euler("y", turn_degrees, degrees=True).as_matrix()
    step[:3, 3] = shift
    return step


def flow_of(disparity: np.ndarray, step: np.ndarray) -> np.ndarray:
    """(h, w, 2) in pixels: pi(R r + t d) of each pixel, and the way there."""
    grid = np.stack(np.meshgrid(np.arange(HW[1]), np.arange(HW[0])), -1).astype(float)
    rays = np.concatenate([(grid - CENTRE) / FOCAL_PX, np.ones((*HW, 1))], -1)
    points = rays @ step[:3, :3].T + disparity[..., None] * step[:3, 3]
    return (points[..., :2] / points[..., 2:] * FOCAL_PX + CENTRE - grid).astype(np.float32)


def found_step(disparity: np.ndarray, flow: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    weight = np.ones(HW, np.float32) if weight is None else weight
    # The way back is not looked at under so wide a tolerance.
    return camera_step(np.log(disparity).astype(np.float32), weight, flow, -flow, tolerance_px=100.0)


@pytest.fixture
def relief(rng: np.random.Generator) -> np.ndarray:
    """Disparity of boxes between 0.5 and 2."""
    return np.kron(rng.uniform(0.5, 2, (6, 8)), np.ones((8, 8)))


def test_a_step_is_found_from_depth_and_flow(relief: np.ndarray) -> None:
    true = step_of((0.05, 0.0, -0.04), 1.0)
    np.testing.assert_allclose(found_step(relief, flow_of(relief, true)), true, atol=2e-3)


@pytest.mark.parametrize("disparity", ["frontal", "of another scene"])
def test_flow_that_a_plane_explains_as_well_tells_no_step(
    disparity: str, relief: np.ndarray, rng: np.random.Generator
) -> None:
    """A wall seen from the front moves as a turning camera makes it; so may what depth does not explain."""
    wall = np.ones(HW)
    said = wall if disparity == "frontal" else rng.permutation(relief.ravel()).reshape(HW)
    flow = flow_of(wall, step_of((0.1, 0.0, 0.0)))
    np.testing.assert_array_equal(found_step(said, flow), np.eye(4))


def test_what_weighs_nothing_says_nothing_of_the_step(relief: np.ndarray) -> None:
    true = step_of((0.05, 0.0, -0.04))
    flow, weight = flow_of(relief, true), np.ones(HW, np.float32)
    flow[:30] += (6, -4)
    weight[:30] = 0
    np.testing.assert_allclose(found_step(relief, flow, weight), true, atol=2e-3)
    assert np.abs(found_step(relief, flow) - true).max() > 2e-2


def test_movers_and_sky_are_kept_from_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    clip: SyntheticClip = render_clip(scene("room"), frames=3, wh=(96, 64))
    weights: list[np.ndarray] = []

    def push(_motion: Egomotion, _frame: int, _log: np.ndarray, weight: np.ndarray, *_flows: np.ndarray) -> None:
        weights.append(weight)

    monkeypatch.setattr(Egomotion, "push", push)
    roles = np.full(clip.depth.shape, int(Role.STATIC), np.uint8)
    roles[:, :20], roles[:, 44:] = int(Role.SKY), int(Role.MOVER)
    maps = degrade(clip.depth, 1)
    settings: dict[str, Any] = {"fusion.mode": "flow", "fusion.sky": False}
    list(
        fuse_shot(
            ShotInputs(clip.rgb, maps.depth, maps.valid, maps.ambiguity, roles=roles), RunConfig().with_values(settings)
        )
    )
    assert len(weights) == 2
    for weight in weights:
        assert weight[:19].max() == 0 and weight[45:].max() == 0 and weight[21:43].min() == 1


def test_agreement_halves_at_the_tolerated_gap_and_bears_more_where_flow_is_long() -> None:
    grid = pixel_grid(torch.zeros(1, 1, 4, 4))
    beside = grid + torch.tensor([2.5, 0.0]).view(1, 2, 1, 1)
    for gap, expected in ((grid, 1.0), (beside, 0.5)):
        torch.testing.assert_close(agreement(gap, grid, 2.5), torch.full((1, 1, 4, 4), expected))
    far = grid + torch.tensor([0.0, 40.0]).view(1, 2, 1, 1)
    moved = agreement(far + (beside - grid), far, 2.5)
    torch.testing.assert_close(moved, torch.full((1, 1, 4, 4), 1 / (1 + (6.25 / (6.25 + 36.0)) ** 2)))
    assert float(agreement(grid + 100, grid, 2.5).max()) < 1e-4


def test_a_gap_found_in_another_frame_counts_as_far_as_it_moves_the_point() -> None:
    """g = log(found / d_k) (R r + t d)_z / (R r)_z, met in full by two frames of one weight."""
    height, width = HW
    camera = Intrinsics(FOCAL_PX, FOCAL_PX, CENTRE[0], CENTRE[1], width, height)
    gap, ratio = 0.01, 1.5
    poses = np.stack([np.eye(4), np.linalg.inv(step_of((0.0, 0.0, ratio - 1)))])
    ones = torch.ones(1, 1, height, width)
    fields = [torch.cat([0 * ones, ones], 1), torch.cat([(gap - np.log(ratio)) * ones, ones], 1)]
    pose = PoseFilter(camera, poses, np.ones(2, bool), 1.0, HW)
    value, weight = pose(lambda frame: fields[frame], 0, (1,), tolerance=100.0)
    torch.testing.assert_close(value, 0.5 * gap * ratio * ones, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(weight, 2 * ones)


@pytest.fixture(scope="module")
def room() -> SyntheticClip:
    return render_clip(scene("room"), frames=4, wh=(96, 64))


def test_confidence_is_scaled_by_the_trust_in_the_input(room: SyntheticClip) -> None:
    maps = degrade(room.depth, 1)
    full, half = (
        np.concatenate([
            chunk.confidence
            for chunk in fuse_shot(
                ShotInputs(room.rgb, maps.depth, maps.valid, maps.ambiguity, trust=trust),
                RunConfig().with_values({"fusion.mode": "flow"}),
            )
        ])
        for trust in (1.0, 0.5)
    )  # fmt: skip
    assert full.max() > 0.2
    np.testing.assert_allclose(half, 0.5 * full, rtol=1e-5)


def test_a_rough_floor_is_flattened_where_it_is_labelled(rng: np.random.Generator) -> None:
    """The plane is looked for in a run, too: with labels, noise on a plane goes down."""
    height, width = HW
    rgb = np.repeat(rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8), 3, 0)
    plane = np.broadcast_to(0.2 + 0.8 * np.arange(height)[:, None] / height, HW)
    jitter = np.array([1.0, 1.1, 0.95])[:, None, None]
    noisy = (jitter * plane * np.exp(rng.normal(0, 0.02, (3, *HW)))).astype(np.float32)
    segments, roles = np.ones((3, *HW), np.int32), np.full((3, *HW), int(Role.GROUND), np.uint8)
    maps = ShotInputs(
        rgb, noisy, np.ones(noisy.shape, bool), degrade(noisy, 0).ambiguity, roles=roles, segments=segments
    )

    def roughness(on: bool) -> float:
        settings = {"fusion.mode": "flow", "fusion.planes": on, "fusion.snap_boundaries": False}
        fused = np.concatenate([chunk.disparity for chunk in fuse_shot(maps, RunConfig().with_values(settings))])
        log = np.log(np.maximum(fused[1], 1e-6)) - np.log(plane)
        return float(np.abs(log - np.median(log))[4:-4, 4:-4].mean())

    assert roughness(True) < 0.7 * roughness(False)
