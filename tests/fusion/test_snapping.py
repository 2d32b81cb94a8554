"""Edges moved to the borders of segments, and what the frames around say of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stf_depth.fusion.boundaries import border_support, grow, snap_to_segments
from stf_depth.fusion.matching import NearCounterparts
from stf_depth.fusion.snapping import snap_of, voted_along_flow
from stf_depth.fusion.trajectory import around


def maps(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None, None]


def votes(values: list[Tensor], labels: list[Tensor], step: tuple[Tensor, Tensor], frame: int, *, reach: int) -> Tensor:
    """``step`` leads from every frame to the next and back."""
    places = around(lambda _: step, frame, len(values), reach)
    low = (int(step[0].shape[-2]), int(step[0].shape[-1]))
    snaps = [snap_of(value, low) for value in values]
    return voted_along_flow(snaps.__getitem__, NearCounterparts(labels.__getitem__, lambda _: places, 9), frame, places)


@pytest.mark.parametrize("factor", [1, 2])
def test_a_value_under_a_label_that_moves_with_flow_is_averaged(factor: int) -> None:
    """factor: how many times larger the values are than the steps; two pixels of the steps a frame."""
    there = torch.zeros(1, 3, 20, 60)
    there[:, 0], there[:, 2] = 2, 1
    back = there * there.new_tensor([-1, 1, 1]).view(1, 3, 1, 1)
    stripe = np.sin(np.arange(60 * factor) * 0.2 / factor)[None].repeat(20 * factor, 0)
    values = [maps(np.roll(stripe, 2 * factor * k, 1) + (k % 2)) for k in range(9)]
    label = torch.ones(1, 1, *stripe.shape, dtype=torch.int32)

    def voted(reach: int) -> Tensor:
        found = votes(values, [label] * 9, (there, back), 4, reach=reach)
        return (found - values[4])[..., 20 * factor : 40 * factor]

    torch.testing.assert_close(voted(2), torch.full_like(voted(2), 2 / 5), atol=1e-4, rtol=0)
    assert bool((voted(0) == 0).all())


@pytest.mark.parametrize("numbered_anew", [False, True])
def test_frames_vote_on_the_side_of_a_trembling_border_and_sides_are_not_mixed(numbered_anew: bool) -> None:
    steps = torch.zeros(1, 3, 4, 12)
    steps[:, 2] = 1
    borders = [6, 6, 8, 5, 6]
    labels = [torch.where(torch.arange(12) < border, 1, 2).int().expand(1, 1, 4, 12) for border in borders]
    values = [torch.where(label == 1, -1.0, 1.0) for label in labels]
    if numbered_anew:
        labels = [label * (7 + k) if k % 2 else 3 - label for k, label in enumerate(labels)]
    voted = votes(values, labels, (steps, steps), 2, reach=2)
    torch.testing.assert_close(voted, values[0])


def test_an_even_number_of_votes_leans_to_neither_side() -> None:
    steps = torch.zeros(1, 3, 4, 6)
    steps[:, 2] = 1
    labels = [torch.arange(24, dtype=torch.int32).view(1, 1, 4, 6) // (1 + 5 * k) for k in range(4)]  # none alike
    values = [torch.full((1, 1, 4, 6), value) for value in (0.0, 1.0, 4.0, 9.0)]
    for sign in (1, -1):
        signed = [sign * value for value in values]
        voted = votes(signed, labels, (steps, steps), 1, reach=2)
        torch.testing.assert_close(voted, torch.full_like(voted, sign * 2.5))


def test_pixels_that_no_frame_snaps_are_left_out_and_all_others_are_voted_on(rng: np.random.Generator) -> None:
    """The same with something everywhere, taken off again: flow of any direction, and of half the size."""
    step = torch.zeros(1, 3, 12, 20)
    step[:, :2] = torch.from_numpy(rng.normal(0, 2, (1, 2, 12, 20))).float()
    step[:, 2] = 1
    labels = [torch.from_numpy(rng.integers(1, 4, (1, 1, 24, 40)).astype(np.int32)) for _ in range(5)]
    values = [maps(np.where(rng.random((24, 40)) < 0.02, rng.normal(0, 1, (24, 40)), 0)) for _ in range(5)]
    some = votes(values, labels, (step, step), 2, reach=2)
    everywhere = votes([value + 9 for value in values], labels, (step, step), 2, reach=2) - 9
    assert float((values[2] != 0).float().mean()) < 0.1
    torch.testing.assert_close(some, everywhere, atol=1e-5, rtol=0)


def test_votes_end_where_flow_is_not_checked() -> None:
    steps = torch.zeros(1, 3, 6, 8)
    steps[:, 2, :, 4:] = 1
    values = [torch.full((1, 1, 6, 8), float(k)) for k in range(3)]
    label = torch.ones(1, 1, 6, 8, dtype=torch.int32)
    voted = votes(values, [label] * 3, (steps, steps), 0, reach=2)[0, 0]
    assert bool((voted[:, :4] == 0).all())
    assert bool((voted[:, 4:] == 1).all())


def grown_slowly(values: np.ndarray, known: np.ndarray, ids: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by pixel: the mean of the known ones of the four beside it, of the same segment."""
    for _ in range(steps):
        before, was = values.copy(), known.copy()
        for y, x in zip(*np.nonzero((was == 0) & (ids > 0)), strict=True):
            beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [at for at in beside if 0 <= at[0] < ids.shape[0] and 0 <= at[1] < ids.shape[1]]
            found = [before[at] for at in inside if was[at] and ids[at] == ids[y, x]]
            if found:
                values[y, x], known[y, x] = np.mean(found), 1
    return values, known


def test_insides_grow_by_the_mean_of_their_own_neighbours(rng: np.random.Generator) -> None:
    ids = np.kron(rng.integers(0, 4, (3, 5)), np.ones((6, 6), int)).astype(np.int32)
    known = (rng.random(ids.shape) < 0.05) & (ids > 0)
    values = np.where(known, rng.normal(0, 1, ids.shape), 0)
    expected, filled = grown_slowly(values.copy(), known.astype(int), ids, 4)
    got, arrived = grow(maps(values), maps(known), torch.from_numpy(ids)[None, None], 4)
    assert 0.3 < filled.mean() < 0.9
    np.testing.assert_array_equal(arrived[0, 0].numpy(), filled)
    np.testing.assert_allclose(got[0, 0].numpy(), expected, atol=1e-5)


def two_halves(
    shift_px: int = 0, *, near_px: slice = slice(40, 80), sigma_px: float = 2.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, np.ndarray]:
    """Blurred values, segments, image and sharp values of something near before something far."""
    sharp = np.zeros((60, 80))
    sharp[:, near_px] = 1
    kernel = np.exp(-0.5 * (np.arange(-6, 7) / sigma_px) ** 2)
    padded = np.pad(sharp, ((0, 0), (6, 6)), mode="edge")
    blurred = np.apply_along_axis(lambda row: np.convolve(row, kernel / kernel.sum(), "valid"), 1, padded)
    segments = torch.from_numpy(np.roll(sharp, shift_px, 1).astype(np.int32) + 1)[None, None]
    segments[..., :20] = 1
    rgb = maps(sharp).repeat(1, 3, 1, 1)
    return maps(blurred), segments, rgb, sharp


def test_snapping_makes_a_blurred_edge_sharp_without_overshoot() -> None:
    blurred, segments, rgb, sharp = two_halves()
    snapped = snap_to_segments(blurred, segments, rgb, radius_px=6, min_contrast=0.05, min_support=1.5)
    assert np.abs(snapped[0, 0].numpy() - sharp).max() < 0.02
    assert float(snapped.max()) <= 1
    assert float(snapped.min()) >= 0


@pytest.mark.parametrize("width_px", [7, 9, 11])
def test_snapping_makes_thin_things_sharp(width_px: int) -> None:
    blurred, segments, rgb, sharp = two_halves(near_px=slice(36, 36 + width_px))
    snapped = snap_to_segments(blurred, segments, rgb, radius_px=6, min_contrast=0.05, min_support=1.5)
    errors = [np.abs(values[0, 0].numpy() - sharp)[:, 30:52].mean() for values in (blurred, snapped)]
    assert errors[1] < 0.3 * errors[0]
    assert float(snapped.max()) <= float(blurred.max())
    assert float(snapped.min()) >= 0


def test_snapping_ignores_a_mask_without_image_edge() -> None:
    blurred, segments, rgb, _ = two_halves(shift_px=14)
    snapped = snap_to_segments(blurred, segments, rgb, radius_px=6, min_contrast=0.05, min_support=1.5)
    torch.testing.assert_close(snapped, blurred)


@pytest.mark.parametrize("axis", [2, 3])
def test_snapping_leaves_edges_that_are_sharp_where_the_depth_has_them(axis: int) -> None:
    values, segments, rgb, _ = two_halves(shift_px=2, sigma_px=0.5)
    rgb = (segments > 1).float().repeat(1, 3, 1, 1)  # the image agrees with the masks
    values, segments, rgb = (part.movedim(3, axis) for part in (values, segments, rgb))
    snapped = snap_to_segments(values, segments, rgb, radius_px=6, min_contrast=0.05, min_support=1.5)
    torch.testing.assert_close(snapped, values)
    blurred = two_halves(sigma_px=2.0)[0].movedim(3, axis)
    moved = snap_to_segments(blurred, segments, rgb, radius_px=6, min_contrast=0.05, min_support=1.5)
    assert float((moved - blurred).abs().max()) > 0.3


@pytest.mark.parametrize("slope", [0.001, 0.05])
def test_snapping_does_not_touch_a_plane_however_steep(slope: float) -> None:
    _, segments, rgb, _ = two_halves()
    y, x = np.mgrid[:60, :80]
    plane = maps(slope * x + 0.5 * slope * y)
    snapped = snap_to_segments(plane, segments, rgb, radius_px=6, min_contrast=0.05, min_support=1.5)
    torch.testing.assert_close(snapped, plane)


def test_snapping_leaves_a_road_that_runs_to_the_horizon() -> None:
    y, x = np.mgrid[:60, :80]
    is_road = abs(x - 40) < 3 + y
    rgb = torch.from_numpy(np.where(is_road, 0.2, 0.7).astype(np.float32)).expand(1, 3, 60, 80)
    segments = torch.from_numpy(np.where(is_road, 1, 2).astype(np.int32))[None, None]
    ground = maps(np.log(0.003 + 0.01 * y))
    snapped = snap_to_segments(ground, segments, rgb, radius_px=3, min_contrast=0.05, min_support=1.3)
    torch.testing.assert_close(snapped, ground)


def test_border_support_tells_a_right_mask_from_a_shifted_one() -> None:
    settings = {"radius_px": 9, "slack_px": 1, "min_support": 1.5}
    _, segments, rgb, _ = two_halves()
    assert border_support(segments, rgb, **settings) > 0.9
    _, shifted, rgb, _ = two_halves(shift_px=14)
    assert border_support(shifted, rgb, **settings) < 0.1
    assert border_support(torch.ones_like(segments), rgb, **settings) == 1
