"""The temporal filter at full size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from stf_depth.config import RunConfig
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.poses import PoseFilter
from stf_depth.fusion.shot import fuse_shot
from stf_depth.fusion.trajectory import around, is_inside, look_up, trajectory_filter
from stf_depth.synthetic import SyntheticClip, render_clip, scene
from stf_depth.types import Ambiguity, CameraPath, Intrinsics, MotionKind, Role

FRAMES = 10
LOW_PX = 40  # a quarter of the pictures' long side: noise of single pixels is not in the low band


@pytest.fixture(scope="module")
def room() -> SyntheticClip:
    return render_clip(scene("room"), frames=FRAMES, wh=(160, 96))


def fused(inputs: ShotInputs, **fusion: Any) -> np.ndarray:
    settings = {"low_band_long_side_px": LOW_PX, "abstain": False, "snap_boundaries": False, **fusion}
    config = RunConfig().with_values({f"fusion.{name}": value for name, value in settings.items()})
    return np.concatenate([chunk.disparity for chunk in fuse_shot(inputs, config)])


def grainy(clip: SyntheticClip, rng: np.random.Generator, **more: Any) -> ShotInputs:
    """True depth with noise of single pixels, another in each frame."""
    disparity = (np.exp(rng.normal(0, 0.02, clip.depth.shape)) / clip.depth).astype(np.float32)
    return ShotInputs(clip.rgb, disparity, np.isfinite(clip.depth), Ambiguity.SCALE, **more)


def grain(disparity: np.ndarray, clip: SyntheticClip) -> float:
    """Spread of what each frame adds to the truth, its slow part taken out."""
    gap = np.log(disparity) + np.log(clip.depth)
    return float(1.48 * np.median(np.abs(gap - gap.mean((1, 2), keepdims=True))))


def solved(clip: SyntheticClip) -> dict[str, Any]:
    count = len(clip.rgb)
    path = CameraPath(
        MotionKind.PARALLAX, clip.intrinsics, clip.world_from_cam, np.ones(count, bool), np.ones(count, np.float32)
    )
    sure = np.full(clip.depth.shape, 0.8, np.float32)
    return {"camera": path, "structure": StructureMaps((1 / clip.depth).astype(np.float32), sure)}


@pytest.mark.parametrize("posed", [True, False])
def test_noise_finer_than_the_low_band_is_averaged(
    room: SyntheticClip, rng: np.random.Generator, *, posed: bool
) -> None:
    inputs = grainy(room, rng, **(solved(room) if posed else {}))
    without, with_it = (grain(fused(inputs, fine_filter=on), room) for on in (False, True))
    assert without > 0.015
    assert with_it < 0.65 * without


def test_a_longer_reach_averages_more(room: SyntheticClip, rng: np.random.Generator) -> None:
    inputs = grainy(room, rng, **solved(room))
    one, three = (grain(fused(inputs, fine_radius=radius), room) for radius in (1, 3))
    assert three < 0.85 * one


@pytest.mark.parametrize("switch", [{"trajectory_filter": False}, {"fine_filter": False}])
def test_switched_off_it_adds_nothing_without_poses(
    room: SyntheticClip, rng: np.random.Generator, switch: Mapping[str, bool]
) -> None:
    inputs = grainy(room, rng)
    off = {"trajectory_filter": False, "fine_filter": False}
    reference, value = fused(inputs, **off), fused(inputs, **{**off, **switch})
    np.testing.assert_array_equal(reference, value)


def test_poses_do_not_average_over_what_moves(rng: np.random.Generator) -> None:
    """A mover's own pixels, seen at another place in each frame, are followed along flow or left."""
    clip = render_clip(scene("street"), frames=FRAMES, wh=(160, 96))
    moves = clip.roles == Role.MOVER
    inputs = grainy(clip, rng, **solved(clip), roles=clip.roles.astype(np.uint8), segments=clip.labels.astype(np.int32))
    error = []
    for on in (False, True):
        gap = np.log(fused(inputs, fine_filter=on)[moves]) + np.log(clip.depth[moves])
        error.append(float(np.abs(gap).mean()))
    assert error[1] < 1.02 * error[0]


def step_camera(count: int) -> PoseFilter:
    """A camera that moves sideways by a third of a pixel, at disparity 1, from frame to frame."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 0, 3] = np.arange(count) / 3 / 40
    return PoseFilter(Intrinsics(40, 40, 19.5, 4.5, 40, 10), poses, np.ones(count, bool), 1.0, (10, 40))


def test_an_edge_stays_as_sharp_as_it_is() -> None:
    """Between pixels there is an edge's mean, near enough to both sides to count; the nearest pixel has one of them."""
    step = torch.where(torch.arange(40) < 20, 0.0, 0.05).expand(1, 1, 10, 40)
    field = torch.cat([step, torch.ones_like(step)], 1)
    between, nearest = (
        step_camera(5)(lambda _: field, 2, (1,), tolerance=0.1, reading=reading)[0]
        for reading in ("bilinear", "nearest")
    )
    mixed, kept = ((value - step).abs()[..., 2:-2].max() for value in (between, nearest))
    assert float(mixed) > 0.005
    assert float(kept) == 0


def test_nearest_reading_has_only_values_of_pixels() -> None:
    values = torch.arange(12.0).view(1, 1, 3, 4)
    position = torch.tensor([[0.4, 1.6, 2.4], [0.0, 1.0, 2.4]]).view(1, 2, 1, 3)
    assert look_up(values, position, "nearest").flatten().tolist() == [0, 6, 10]
    assert is_inside(position, (3, 4)).flatten().tolist() == [True, True, False]


def test_a_field_of_another_size_is_followed_along_the_same_flow() -> None:
    """Flow of two pixels a frame is four in a field of twice the size."""
    there = torch.zeros(1, 3, 8, 30)
    there[:, 0], there[:, 2] = 2, 1
    back = there * there.new_tensor([-1, 1, 1]).view(1, 3, 1, 1)
    wave = torch.sin(torch.arange(60) * 0.3).expand(1, 1, 16, 60)
    noise = [0.0, 0.3, -0.6]
    fields = [torch.cat([wave.roll(4 * k, -1) + noise[k], torch.ones_like(wave)], 1) for k in range(3)]
    places = around(lambda _: (there, back), 1, 3, 1)
    value, weight = trajectory_filter(lambda k: fields[k], 1, places, tolerance=50.0, reading="nearest")
    inner = slice(8, 48)
    torch.testing.assert_close(value[..., inner], wave.roll(4, -1)[..., inner] + sum(noise) / 3, atol=2e-3, rtol=0)
    assert float(weight[0, 0, 8, 30]) == pytest.approx(3, abs=0.01)
    some = torch.tensor([0, 130, 500, 959])
    at_some = trajectory_filter(lambda k: fields[k], 1, places, tolerance=50.0, reading="nearest", pixels=some)
    for whole, part in zip((value, weight), at_some, strict=True):
        torch.testing.assert_close(part.flatten(), whole.flatten()[some])
