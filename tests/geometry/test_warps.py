"""Warps against slow loops over pixels that follow the definition, and against scenes with exact answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stf_depth.geometry.warps import (
    forward_backward_error,
    inverse_rigid,
    sample_at,
    sample_disparity,
    transfer,
    warp_disparity,
)

K = np.array([[22.0, 0, 9.5], [0, 20.0, 7.0], [0, 0, 1]])


def pose(yaw_degrees: float, shift: tuple[float, float, float]) -> np.ndarray:
    """Target from source: turn about y, then move."""
    c, s = math.cos(math.radians(yaw_degrees)), math.sin(math.radians(yaw_degrees))
    motion = np.eye(4)
    motion[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    motion[:3, 3] = shift
    return motion


POSES = [pose(0, (0, 0, 0)), pose(3, (0.1, -0.05, 0.2)), pose(-8, (-0.3, 0.1, -0.4))]


def as_tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(array, np.float64))


def move_pixel(u: int, v: int, disparity: float, motion: np.ndarray) -> tuple[float, float, float] | None:
    """The definition: back-project to a point, transform, project."""
    point = np.linalg.inv(K) @ [u, v, 1] / disparity
    x, y, z = motion[:3, :3] @ point + motion[:3, 3]
    if z <= 0:
        return None
    return K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2], 1 / z


def slow_warp(disparity: np.ndarray, motion: np.ndarray) -> np.ndarray:
    height, width = disparity.shape
    nearest = np.zeros((height, width))
    for v in range(height):
        for u in range(width):
            moved = move_pixel(u, v, disparity[v, u], motion)
            if moved is None:
                continue
            column, row = round(moved[0]), round(moved[1])
            if 0 <= column < width and 0 <= row < height:
                nearest[row, column] = max(nearest[row, column], moved[2])
    return nearest


@pytest.mark.parametrize("motion", POSES)
def test_transfer_follows_the_definition(rng: np.random.Generator, motion: np.ndarray) -> None:
    disparity = rng.uniform(0.2, 1.5, (15, 20))
    uv, moved = transfer(as_tensor(disparity)[None], as_tensor(K), as_tensor(K), as_tensor(motion))
    for v, u in [(0, 0), (14, 19), (7, 3), (2, 17)]:
        expected = move_pixel(u, v, disparity[v, u], motion)
        assert expected is not None
        assert np.allclose([*uv[0, :, v, u].tolist(), float(moved[0, v, u])], expected)


def test_points_at_infinity_turn_but_do_not_shift() -> None:
    still = torch.zeros(1, 15, 20, dtype=torch.float64)
    uv, moved = transfer(still, as_tensor(K), as_tensor(K), as_tensor(pose(0, (5, 5, -5))))
    assert torch.all(moved == 0)
    assert torch.allclose(uv[0, 0, 4], torch.arange(20, dtype=torch.float64))


def test_points_behind_the_target_have_no_image() -> None:
    disparity = torch.full((1, 15, 20), 2.0, dtype=torch.float64)
    uv, moved = transfer(disparity, as_tensor(K), as_tensor(K), as_tensor(pose(0, (0, 0, -1))))
    assert torch.isnan(uv).all()
    assert torch.isnan(moved).all()
    assert not warp_disparity(disparity, as_tensor(K), as_tensor(K), as_tensor(pose(0, (0, 0, -1)))).valid.any()


@pytest.mark.parametrize("motion", POSES)
def test_forward_warp_equals_the_loop(rng: np.random.Generator, motion: np.ndarray) -> None:
    disparity = rng.uniform(0.2, 1.5, (2, 15, 20))
    warped = warp_disparity(as_tensor(disparity), as_tensor(K), as_tensor(K), as_tensor(motion))
    expected = np.stack([slow_warp(frame, motion) for frame in disparity])
    assert np.allclose(warped.disparity.numpy(), expected)
    assert np.array_equal(warped.valid.numpy(), expected > 0)


def test_the_nearest_surface_wins_whatever_the_order() -> None:
    # Two source pixels land on one target pixel: the nearer must win when it comes first and when it comes last.
    for near_first in (True, False):
        disparity = torch.full((1, 1, 3), 1e-6, dtype=torch.float64)
        near_u, far_u = (0, 1) if near_first else (2, 1)
        disparity[0, 0, near_u], disparity[0, 0, far_u] = 2.0, 0.5
        k = torch.tensor([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
        shift = pose(0, ((1 - near_u) / 2, 0, 0))
        warped = warp_disparity(disparity, k, k, as_tensor(shift))
        assert float(warped.disparity[0, 0, 1]) == pytest.approx(2.0)
        assert int(warped.source_index[0, 0, 1]) == near_u


def test_carry_brings_the_values_of_the_visible_pixels(rng: np.random.Generator) -> None:
    disparity = as_tensor(rng.uniform(0.2, 1.5, (2, 15, 20)))
    colour = as_tensor(rng.uniform(size=(2, 3, 15, 20)))
    warped = warp_disparity(disparity, as_tensor(K), as_tensor(K), as_tensor(POSES[1]))
    carried = warped.carry(colour)
    for n, v, u in np.argwhere(warped.valid.numpy())[::17]:
        source_v, source_u = divmod(int(warped.source_index[n, v, u]), 20)
        assert torch.equal(carried[n, :, v, u], colour[n, :, source_v, source_u])
    assert torch.all(carried.transpose(0, 1)[:, ~warped.valid] == 0)


def test_quad_splat_closes_the_cracks_of_a_magnified_plane() -> None:
    disparity = torch.full((1, 15, 20), 0.5, dtype=torch.float64)
    closer = as_tensor(pose(0, (0, 0, -0.7)))
    holes = ~warp_disparity(disparity, as_tensor(K), as_tensor(K), closer).valid[0, 3:-3, 3:-3]
    filled = warp_disparity(disparity, as_tensor(K), as_tensor(K), closer, splat="quad").valid[0, 3:-3, 3:-3]
    assert holes.any()
    assert filled.all()


def test_excluded_pixels_do_not_land() -> None:
    disparity = torch.full((1, 15, 20), 0.5, dtype=torch.float64)
    usable = torch.zeros(1, 15, 20, dtype=torch.bool)
    usable[0, 4, 5] = True
    warped = warp_disparity(disparity, as_tensor(K), as_tensor(K), torch.eye(4, dtype=torch.float64), valid=usable)
    assert np.argwhere(warped.valid[0].numpy()).tolist() == [[4, 5]]


def plane_disparity(motion: np.ndarray) -> np.ndarray:
    """Disparity, in the camera reached by ``motion``, of the plane z = 2 + x / 4 given in the first camera."""
    v, u = np.mgrid[0:15, 0:20]
    rays = np.linalg.inv(K) @ np.stack([u, v, np.ones_like(u)]).reshape(3, -1).astype(float)
    normal = np.array([-0.25, 0, 1.0])
    back = np.linalg.inv(motion)
    return ((normal @ back[:3, :3] @ rays) / (2 - normal @ back[:3, 3])).reshape(15, 20)


@pytest.mark.parametrize("motion", POSES)
def test_sampling_along_the_poses_recovers_the_plane(motion: np.ndarray) -> None:
    reference, source = plane_disparity(np.eye(4)), plane_disparity(motion)
    seen = sample_disparity(
        as_tensor(source)[None], as_tensor(reference)[None], as_tensor(K), as_tensor(K), as_tensor(motion)
    )
    assert seen.valid.float().mean() > 0.4
    # Disparity of a plane is linear in the pixel, so that bilinear sampling is exact.
    assert np.allclose(seen.disparity[0][seen.valid[0]], reference[seen.valid[0].numpy()])
    assert float(seen.reprojection_px[seen.valid].max()) < 1e-6


def test_a_surface_that_hides_the_reference_comes_back_elsewhere() -> None:
    motion = pose(0, (-0.5, 0, 0))
    reference = np.full((15, 20), 0.5)
    occluder = np.full((15, 20), 2.0)
    seen = sample_disparity(
        as_tensor(occluder)[None], as_tensor(reference)[None], as_tensor(K), as_tensor(K), as_tensor(motion)
    )
    # The occluder's parallax exceeds the reference's by f t (2.0 - 0.5).
    assert np.allclose(seen.reprojection_px[seen.valid], 22 * 0.5 * 1.5)
    assert np.allclose(seen.expected_disparity, 0.5)


def test_invalid_source_pixels_spoil_the_samples_that_touch_them() -> None:
    disparity = torch.full((1, 15, 20), 0.5, dtype=torch.float64)
    usable = torch.ones(1, 15, 20, dtype=torch.bool)
    usable[0, 6, 8] = False
    half_pixel = as_tensor(pose(0, (0.5 * 2 / 22, 0, 0)))
    seen = sample_disparity(disparity, disparity, as_tensor(K), as_tensor(K), half_pixel, source_valid=usable)
    assert not seen.valid[0, 6, 7]
    assert not seen.valid[0, 6, 8]
    assert seen.valid[0, 5, 7]


def test_inverse_rigid_undoes_the_motion() -> None:
    motions = as_tensor(np.stack(POSES))
    assert torch.allclose(inverse_rigid(motions) @ motions, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))


def test_sampling_between_pixels_and_outside() -> None:
    values = torch.arange(6.0).view(1, 1, 2, 3)
    positions = torch.tensor([[0.5, 2.0, 3.0, float("nan")], [0.5, 1.0, 0.0, 0.0]]).view(1, 2, 1, 4)
    found, inside = sample_at(values, positions)
    assert found[0, 0, 0, :3].tolist() == pytest.approx([2.0, 5.0, 2.0])
    assert inside[0, 0].tolist() == [True, True, False, False]


def test_flows_that_undo_one_another_have_no_error() -> None:
    ahead = torch.zeros(1, 8, 10, 2)
    ahead[..., 0] = 2
    error, inside = forward_backward_error(ahead, -ahead)
    assert torch.all(error[inside] == 0)
    assert inside[0, 0].tolist() == [True] * 8 + [False] * 2
    crooked, _ = forward_backward_error(ahead, -ahead + torch.tensor([0.0, 3.0]))
    assert torch.all(crooked == 3)
