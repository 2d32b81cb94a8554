"""Segments that are planes, and those that are none."""

from __future__ import annotations

import numpy as np
import torch

from stf_depth.fusion.planes import flatten_planes
from stf_depth.types import Role


def maps(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None, None]


def wavy_plane(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:40, :60] / 60
    truth = 0.3 + 0.2 * x + 0.5 * y
    return truth, truth * np.exp(0.02 * np.sin(9 * x + 4) + 0.005 * rng.normal(size=truth.shape))


def test_planes_flatten_a_floor_and_leave_what_stands_on_it(rng: np.random.Generator) -> None:
    truth, wavy = wavy_plane(rng)
    wavy[10:20, 20:30] *= 1.6
    field = torch.cat([maps(np.log(wavy)), torch.ones(1, 1, 40, 60)], 1)
    roles = torch.full((1, 1, 40, 60), int(Role.GROUND), dtype=torch.uint8)
    flat = torch.exp(flatten_planes(field, roles.int(), roles, tolerance=0.06))[0, 0].numpy()
    floor = np.ones_like(truth, bool)
    floor[10:20, 20:30] = False
    assert np.abs(flat / truth - 1)[floor].mean() < 0.5 * np.abs(wavy / truth - 1)[floor].mean()
    np.testing.assert_allclose(flat[~floor], wavy[~floor], rtol=0.01)


def test_planes_leave_curved_and_static_segments(rng: np.random.Generator) -> None:
    _, wavy = wavy_plane(rng)
    static = torch.full((1, 1, 40, 60), int(Role.STATIC), dtype=torch.uint8)
    field = torch.cat([maps(np.log(wavy)), torch.ones(1, 1, 40, 60)], 1)
    torch.testing.assert_close(flatten_planes(field, static.int(), static, tolerance=0.06), field[:, :1])
    curved = maps(np.sin(np.arange(60) / 4)[None].repeat(40, 0))
    field = torch.cat([curved, torch.ones_like(curved)], 1)
    planar = torch.full((1, 1, 40, 60), int(Role.PLANAR), dtype=torch.uint8)
    torch.testing.assert_close(flatten_planes(field, planar.int(), planar, tolerance=0.06), curved)


def test_unlabelled_pixels_of_several_roles_are_no_one_plane() -> None:
    y, x = np.mgrid[:40, :60] / 60
    value = maps(np.log(np.where(y > 0.3, 0.3 + 0.8 * y, 0.9 - 0.5 * x)))
    field = torch.cat([value, torch.ones_like(value)], 1)
    roles = torch.where(maps(y) > 0.3, int(Role.GROUND), int(Role.PLANAR)).to(torch.uint8)
    flat = flatten_planes(field, torch.zeros_like(roles).int(), roles, tolerance=0.06)
    torch.testing.assert_close(flat, value, atol=1e-4, rtol=0)


def test_segments_are_flattened_together_as_each_alone(rng: np.random.Generator) -> None:
    """Three that are planes, one that is curved, and one that is too small; a tenth of the pixels has no weight."""
    _, wavy = wavy_plane(rng)
    ids = np.zeros((40, 60), np.int32)
    ids[:20, :25], ids[:20, 25:], ids[20:, :40], ids[20:, 40:], ids[0, 0] = 7, 2, 900, 4, 5
    wavy[:20, 25:] = 1.5 - 0.8 * wavy[:20, 25:]
    wavy[20:, 40:] *= np.exp(np.sin(np.arange(20) / 2))
    field = torch.cat([maps(np.log(wavy)), maps(rng.random((40, 60)) > 0.1)], 1)
    segments = torch.from_numpy(ids)[None, None]
    planar = torch.full_like(segments, int(Role.PLANAR), dtype=torch.uint8)
    flat = flatten_planes(field, segments, planar, tolerance=0.06)
    for segment in (7, 2, 900, 4, 5):
        own = segments == segment
        roles = torch.where(own, planar, int(Role.STATIC)).to(torch.uint8)
        alone = flatten_planes(field, segments, roles, tolerance=0.06)
        torch.testing.assert_close(flat[own], alone[own])
        torch.testing.assert_close(alone[~own], field[:, :1][~own])
        assert bool((alone != field[:, :1]).any()) == (segment in (7, 2, 900))
