"""Sky: which masks are believed, where their borders go, and what depth it gets."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scipy.special import erf

from stf_depth.config import FusionConfig
from stf_depth.fusion.inputs import ShotInputs, StructureMaps
from stf_depth.fusion.sky import (
    has_steady_sky,
    leave_to_sharp_edges,
    move_border_to_colours,
    push_sky_back,
    with_believed_sky,
)
from stf_depth.synthetic import SyntheticClip, degrade, render_clip, scene
from stf_depth.types import Ambiguity, Role

CONFIG = FusionConfig()
BAND_PX = 4


@pytest.fixture(scope="module")
def street() -> SyntheticClip:
    return render_clip(scene("street"), frames=3, wh=(320, 180), noise_sigma=1.2)


def moved(mask: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
    found = move_border_to_colours(torch.from_numpy(mask)[None, None].float(), image, band_px=BAND_PX)
    return found[0, 0].numpy() > 0.5


@pytest.mark.parametrize("damage", ["grown", "shrunk", "rounded"])
def test_a_wrong_border_moves_to_the_image_s(street: SyntheticClip, damage: str) -> None:
    square = np.ones((5, 5), np.uint8)
    for rgb, roles in zip(street.rgb, street.roles, strict=True):
        truth = (roles == Role.SKY).astype(np.uint8)
        wrong = {
            "grown": lambda m: cv2.dilate(m, square),
            "shrunk": lambda m: cv2.erode(m, square),
            "rounded": lambda m: (cv2.GaussianBlur(m.astype(np.float32), (0, 0), 3) > 0.5).astype(np.uint8),
        }[damage](truth)
        before, after = (wrong != truth).sum(), (moved(wrong > 0, rgb) != (truth > 0)).sum()
        assert after < 0.6 * before  # what is thinner than the band has no side of its own to compare with


def test_an_exact_mask_stays(street: SyntheticClip) -> None:
    for rgb, roles in zip(street.rgb, street.roles, strict=True):
        mask = roles == Role.SKY
        assert (moved(mask, rgb) != mask).sum() < 0.001 * mask.sum()


def test_a_mask_without_border_or_without_contrast_stays() -> None:
    grey = np.full((40, 60, 3), 128, np.uint8)
    half = np.zeros((40, 60), bool)
    half[:20] = True
    for mask in (half, np.zeros_like(half), np.ones_like(half)):
        assert np.array_equal(moved(mask, grey), mask)


def inputs_of(clip: SyntheticClip, roles: np.ndarray, confidence: np.ndarray | None = None) -> ShotInputs:
    disparity = np.maximum(clip.disparity, 1e-3).astype(np.float32)
    structure = None if confidence is None else StructureMaps(disparity, confidence)
    valid = np.ones(disparity.shape, bool)
    return ShotInputs(clip.rgb, disparity, valid, Ambiguity.SCALE, roles=roles, structure=structure)


def has_sky(inputs: ShotInputs) -> bool:
    assert inputs.roles is not None
    return any((np.asarray(inputs.roles[frame]) == Role.SKY).any() for frame in range(len(inputs)))


def test_sky_is_believed_on_image_edges_and_where_nothing_was_measured(street: SyntheticClip) -> None:
    sky = street.roles == Role.SKY
    right = inputs_of(street, street.roles, np.where(sky, 0.05, 0.8).astype(np.float32))
    believed = with_believed_sky(right, CONFIG).roles
    assert believed is not None
    assert np.array_equal(np.stack([believed[frame] for frame in range(len(sky))]), street.roles)
    measured = replace(right, structure=StructureMaps(right.disparity, np.full(sky.shape, 0.8, np.float32)))
    assert not has_sky(with_believed_sky(measured, CONFIG))
    shifted = np.roll(street.roles, 60, 2)
    shifted[:, :, :60] = Role.STATIC
    assert not has_sky(with_believed_sky(inputs_of(street, shifted), CONFIG))


def test_a_road_called_sky_is_not_believed(street: SyntheticClip) -> None:
    swapped = street.roles.copy()
    swapped[street.roles == Role.GROUND], swapped[street.roles == Role.SKY] = Role.SKY, Role.STATIC
    assert not has_sky(with_believed_sky(inputs_of(street, swapped), CONFIG))


def test_disbelieved_sky_is_unknown_and_nothing_else_changes(street: SyntheticClip) -> None:
    measured = inputs_of(street, street.roles, np.full(street.roles.shape, 0.8, np.float32))
    roles = with_believed_sky(measured, CONFIG).roles
    assert roles is not None
    assert roles.shape == street.roles.shape
    assert len(roles) == len(street.roles)
    expected = np.where(street.roles[1] == Role.SKY, Role.UNKNOWN, street.roles[1])
    assert np.array_equal(roles[1], expected)


def test_a_part_of_the_sky_on_the_road_is_not_believed_and_the_rest_is(street: SyntheticClip) -> None:
    maps, roles = degrade(street.depth, 0), street.roles.copy()
    roles[1, 150:160, 40:60] = Role.SKY
    inputs = ShotInputs(street.rgb, maps.depth, maps.valid, maps.ambiguity, roles=roles)
    believed = with_believed_sky(inputs, CONFIG).roles
    assert believed is not None
    assert not (np.asarray(believed[1])[150:160, 40:60] == Role.SKY).any()
    for frame in range(len(roles)):
        kept = (np.asarray(believed[frame]) == Role.SKY)[street.roles[frame] == Role.SKY]
        assert kept.mean() > 0.98


def test_sky_has_one_depth_behind_everything_solid() -> None:
    value = torch.tensor([[[[0.0, -9.0, 1.0, -2.0]]]])
    sky = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]])
    pushed = push_sky_back(value, sky, 0.1)
    behind = np.log(0.05)
    np.testing.assert_allclose(pushed[0, 0, 0].numpy(), [0.0, behind, behind, behind], rtol=1e-6)


@pytest.mark.parametrize(("damage", "is_steady"), [("none", True), ("missing masks", True), ("guesses", False)])
def test_sky_counts_as_steady_where_it_changes_as_the_rest_does(
    damage: str, is_steady: bool, street: SyntheticClip, rng: np.random.Generator
) -> None:
    maps, roles = degrade(street.depth, 0), street.roles.copy()
    depth, sky = maps.depth.copy(), street.roles == Role.SKY
    if damage == "missing masks":
        roles[1::2] = 0
    if damage == "guesses":
        for frame, mask in zip(depth, sky, strict=True):
            frame[mask] = np.quantile(frame[~mask], rng.uniform(0, 0.7))
    assert has_steady_sky(ShotInputs(street.rgb, depth, maps.valid, maps.ambiguity, roles=roles)) is is_steady


def test_no_sky_is_not_steady(street: SyntheticClip) -> None:
    maps = degrade(street.depth, 0)
    inputs = ShotInputs(street.rgb, maps.depth, maps.valid, maps.ambiguity)
    assert not has_steady_sky(inputs)
    assert not has_steady_sky(replace(inputs, roles=np.zeros_like(street.roles)))


@pytest.mark.parametrize(("sigma_px", "stays"), [(0.5, False), (2.0, True)])
def test_sky_gives_way_to_a_sharp_edge_beside_its_border(sigma_px: float, stays: bool) -> None:
    x = np.arange(60)
    near = np.broadcast_to(0.1 + 0.5 * (1 + erf((x - 30.5) / (sigma_px * np.sqrt(2)))), (40, 60))
    sky = torch.from_numpy((np.broadcast_to(x, (40, 60)) < 34).astype(np.float32))[None, None]  # 3 pixels too far
    left = leave_to_sharp_edges(sky, torch.from_numpy(near.astype(np.float32))[None, None], radius_px=6)
    assert bool((left <= sky).all())
    assert bool((left[..., :30] == sky[..., :30]).all())
    assert bool((left[..., 31:] == sky[..., 31:]).all()) is stays


def test_a_sharp_edge_far_inside_the_sky_is_no_border() -> None:
    sky = torch.ones(1, 1, 40, 60)
    disparity = torch.zeros_like(sky)
    disparity[..., 20:30, 20:30] = 1
    assert bool((leave_to_sharp_edges(sky, disparity, radius_px=6) == 1).all())


def test_a_step_as_small_as_noise_is_no_edge_of_the_sky(rng: np.random.Generator) -> None:
    disparity = torch.from_numpy(1 + 0.02 * rng.standard_normal((1, 1, 40, 60)).astype(np.float32))
    sky = torch.zeros_like(disparity)
    sky[..., :30] = 1
    torch.testing.assert_close(leave_to_sharp_edges(sky, disparity, radius_px=6), sky)


def test_triangulated_disparity_cannot_tell_sky(street: SyntheticClip) -> None:
    maps = degrade(street.depth, 0)
    inputs = ShotInputs(street.rgb, maps.depth, maps.valid, maps.ambiguity, roles=street.roles)
    assert has_steady_sky(inputs)
    assert not has_steady_sky(replace(inputs, sees_sky=False))
