"""Stages of fusion against formulas and slow twins."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from stf_depth.alignment.solve import GridBasis
from stf_depth.config import FusionConfig
from stf_depth.fusion.evidence import Evidence, confidence_of, weigh_evidence
from stf_depth.fusion.fields import Fields, over_pixels
from stf_depth.fusion.logmap import LogMap
from stf_depth.fusion.poses import PoseFilter
from stf_depth.fusion.reader import FrameCache, LowFrame, low_size
from stf_depth.fusion.resampling import fill_unknown, resize, resize_masked
from stf_depth.fusion.structure import bend_to_structure, blend_structure
from stf_depth.fusion.trajectory import around, checked_steps, trajectory_filter
from stf_depth.fusion.upsample import upsample_disparity
from stf_depth.synthetic import SyntheticClip
from stf_depth.types import Ambiguity, CameraPath, MotionKind, Role

CONFIG = FusionConfig()


def maps(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, np.float32))[None, None]


def test_frame_cache_keeps_the_frames_nearest_to_the_last_one() -> None:
    made: list[int] = []

    def make(frame: int) -> int:
        made.append(frame)
        return frame

    cache = FrameCache(make, 2)
    for frame in (0, 1, 0, 2, 1, 0):
        assert cache(frame) == frame
    assert made == [0, 1, 2, 0]


def test_frame_cache_makes_every_frame_of_a_sliding_window_once() -> None:
    made: list[int] = []
    cache = FrameCache(lambda frame: made.append(frame) or frame, 5)  # type: ignore[func-returns-value]
    for centre in range(20):
        for frame in (centre + 2, centre - 2, centre):
            cache(max(0, min(19, frame)))
    assert sorted(made) == list(range(20))


def test_frame_cache_makes_a_frame_once_for_all_threads_and_forgets_failures() -> None:
    made: list[int] = []
    ready = threading.Barrier(4)

    def make(frame: int) -> int:
        made.append(frame)
        time.sleep(0.05)
        if made.count(frame) == 1 and frame == 7:
            raise ValueError("once")
        return 10 * frame

    cache = FrameCache(make, 8)

    def ask(frame: int) -> int:
        ready.wait()
        return cache(frame)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, [3, 3, 3, 3])) == [30] * 4
    assert made == [3]
    with pytest.raises(ValueError, match="once"):
        cache(7)
    assert cache(7) == 70


@pytest.mark.parametrize(
    ("hw", "expected"), [((480, 640), (240, 320)), ((90, 160), (90, 160)), ((640, 360), (320, 180))]
)
def test_low_size_keeps_the_aspect(hw: tuple[int, int], expected: tuple[int, int]) -> None:
    assert low_size(*hw, 320) == expected


def test_resize_masked_ignores_invalid_values() -> None:
    values = np.full((8, 8), 2.0)
    values[:, 5] = 1e6
    valid = np.ones((8, 8))
    valid[:, 5] = 0
    small, good = resize_masked(maps(values), maps(valid), (4, 4))
    assert bool((good == 1).all())
    np.testing.assert_allclose(small.numpy(), 2, rtol=1e-5)


def test_flow_steps_know_where_they_disagree() -> None:
    there = torch.zeros(1, 2, 10, 12)
    there[:, 0] = 2
    back = -there.clone()
    back[:, 0, :5] = 3
    forward, _ = checked_steps(there, back, 1.0)
    assert not bool(forward[0, 2, :4, :9].any())
    assert bool(forward[0, 2, 6:, :9].all())
    assert not bool(forward[0, 2, :, 10:].any())


def test_trajectory_filter_averages_along_the_motion_and_leaves_occluders_out(rng: np.random.Generator) -> None:
    noise = rng.normal(0, 0.02, 9)
    ramp = np.linspace(0, 1, 40)[None].repeat(20, 0)
    fields = [torch.cat([maps(np.roll(ramp, k, 1) + noise[k]), torch.ones(1, 1, 20, 40)], 1) for k in range(9)]
    step = torch.zeros(1, 3, 20, 40)
    step[:, 0], step[:, 2] = 1, 1
    back = step.clone()
    back[:, 0] = -1
    places = around(lambda _: (step, back), 4, 9, 3)
    value, weight = trajectory_filter(lambda k: fields[k], 4, places, tolerance=0.5)
    inner = value[0, 0, :, 10:30].numpy() - np.roll(ramp, 4, 1)[:, 10:30]
    np.testing.assert_allclose(inner, noise[1:8].mean(), atol=1e-3)
    assert float(weight[0, 0, 10, 20]) > 6.9
    fields[5] = fields[5].clone()
    fields[5][:, 0] += 3
    robust, _ = trajectory_filter(lambda k: fields[k], 4, places, tolerance=0.1)
    assert abs(float(robust[0, 0, 10, 20]) - float(value[0, 0, 10, 20])) < 0.02


def test_pose_filter_recovers_truth_from_noisy_frames(room_clip: SyntheticClip, rng: np.random.Generator) -> None:
    count, height, width = room_clip.depth.shape
    camera = CameraPath(
        MotionKind.PARALLAX, room_clip.intrinsics, room_clip.world_from_cam, np.ones(count, bool),
        np.ones(count, np.float32),
    )  # fmt: skip
    truth = -np.log(room_clip.depth)
    noise = rng.normal(0, 0.04, count)
    fields = [torch.cat([maps(truth[k] + noise[k]), torch.ones(1, 1, height, width)], 1) for k in range(count)]
    pose = PoseFilter.along(camera, 1.0, (height, width))
    value, _ = pose(lambda k: fields[k], 6, (1, 2, 3), tolerance=0.2)
    before = np.abs(fields[6][0, 0].numpy() - truth[6])
    after = np.abs(value[0, 0].numpy() - truth[6] - noise[3:10].mean())
    assert np.median(after) < 0.3 * max(np.median(before), 0.02)


def test_projection_follows_the_definition(room_clip: SyntheticClip) -> None:
    count, height, width = room_clip.depth.shape
    poses, k = room_clip.world_from_cam, room_clip.intrinsics.matrix()
    camera = CameraPath(
        MotionKind.PARALLAX, room_clip.intrinsics, poses, np.ones(count, bool), np.ones(count, np.float32)
    )
    unit = 2.5
    position, ratio, turned = PoseFilter.along(camera, unit, (height, width)).project(
        maps(np.log(unit / room_clip.depth[0])), 0, 5
    )
    motion = np.linalg.inv(poses[5]) @ poses[0]
    for v, u in [(0, 0), (height - 1, width - 1), (20, 10), (40, 70)]:
        ray = np.linalg.inv(k) @ [u, v, 1]
        point = motion[:3, :3] @ (ray * room_clip.depth[0, v, u]) + motion[:3, 3]
        np.testing.assert_allclose(position[0, :, v, u], (k @ point / point[2])[:2], rtol=1e-4, atol=1e-3)
        assert float(ratio[0, 0, v, u]) == pytest.approx(point[2] / room_clip.depth[0, v, u], rel=1e-4)
        assert float(turned[0, 0, v, u]) == pytest.approx((motion[:3, :3] @ ray)[2], rel=1e-4)


def test_expected_change_equals_the_projected_disparity(room_clip: SyntheticClip) -> None:
    count, height, width = room_clip.depth.shape
    camera = CameraPath(
        MotionKind.PARALLAX, room_clip.intrinsics, room_clip.world_from_cam, np.ones(count, bool),
        np.ones(count, np.float32),
    )  # fmt: skip
    pose = PoseFilter.along(camera, 1.0, (height, width))
    value = maps(-np.log(room_clip.depth[0]))
    _, ratio, _ = pose.project(value, 0, 5)
    xy = np.array([[10, 20], [70, 40]], np.float32)
    change = pose.expected_change(0, 5, xy, value[0, 0].numpy()[[20, 40], [10, 70]])
    np.testing.assert_allclose(change, -np.log(ratio[0, 0].numpy()[[20, 40], [10, 70]]), rtol=1e-3, atol=1e-5)


def test_bending_follows_the_structure_and_keeps_detail(rng: np.random.Generator) -> None:
    y, x = np.mgrid[:90, :120] / 100
    detail = 0.05 * rng.normal(size=(90, 120))
    network = maps(x + detail)
    structure = maps(x + 0.2 * np.sin(2 * x) - 0.1 * y + 0.3 + detail)
    trust = torch.ones_like(network)
    bend = partial(bend_to_structure, network, torch.ones_like(network), structure, spread=0.5)
    bend = partial(bend, cells=CONFIG.structure_cells, damping=CONFIG.structure_damping)
    bent = bend(trust)
    assert float((bent - structure).abs().mean()) < 0.02
    untouched = bend(0 * trust)
    torch.testing.assert_close(untouched, network)


def test_handles_are_read_where_the_alignment_solved_them(rng: np.random.Generator) -> None:
    basis = GridBasis(columns=4, rows=3)
    handles = rng.normal(size=basis.size).astype(np.float32)
    y, x = np.mgrid[:9, :16]
    index, weight = basis.weights(np.stack([(x.ravel() + 0.5) / 16, (y.ravel() + 0.5) / 9], 1).astype(np.float32))
    found = over_pixels(maps(handles.reshape(3, 4)), torch.zeros(1, 1, 9, 16))
    np.testing.assert_allclose(found.numpy().ravel(), (handles[index] * weight).sum(1), atol=1e-5)


def test_blend_is_the_weighted_mean() -> None:
    network, structure = maps(np.full((4, 4), 1.0)), maps(np.full((4, 4), 3.0))
    value, weight = blend_structure(network, torch.ones_like(network), structure, torch.full_like(network, 1.5), 0.5)
    np.testing.assert_allclose(value.numpy(), (0.5 * 1 + 1.5 * 3) / 2)
    np.testing.assert_allclose(weight.numpy(), 2)


def test_upsampling_keeps_constants_and_range_and_moves_edges_to_the_image() -> None:
    rgb = np.zeros((64, 96, 3), np.uint8)
    rgb[:, 45:] = 220
    low = np.zeros((16, 24), np.float32)
    low[:, 11:] = 1
    low[:, 11] = 0.75  # the cell that straddles the edge
    result = upsample_disparity(low, np.ones_like(low, bool), rgb)
    assert result.shape == (64, 96)
    assert result.min() >= 0
    assert result.max() <= 1
    bilinear = np.asarray(torch.nn.functional.interpolate(maps(low), size=(64, 96), mode="bilinear")[0, 0])
    truth = (np.arange(96) >= 45).astype(np.float32)[None].repeat(64, 0)
    assert np.abs(result - truth).mean() < 0.8 * np.abs(bilinear - truth).mean()
    flat = np.full((5, 7), 0.3, np.float32)
    np.testing.assert_allclose(upsample_disparity(flat, np.ones((5, 7), bool), rgb), 0.3, rtol=1e-5)


def test_upsampling_mixes_no_holes_into_what_is_known() -> None:
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    valid = rng.random((12, 16)) < 0.6
    result = upsample_disparity(np.where(valid, np.float32(0.3), np.float32(0)), valid, rgb)
    known = np.repeat(np.repeat(valid, 4, 0), 4, 1)
    np.testing.assert_allclose(result[known], 0.3, rtol=1e-5)
    assert set(np.unique(np.round(result[~known], 5))) <= {np.float32(0), np.float32(0.3)}


@pytest.mark.parametrize("size", [(9, 11), (5, 8), (10, 6), (3, 4), (1, 1), (10, 12)])
def test_shrinking_averages_over_the_area_of_each_pixel(size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).random((2, 10, 12))
    # Every pixel cut into pieces that divide both sizes, then whole means.
    fine = values.repeat(size[0], 1).repeat(size[1], 2)
    expected = fine.reshape(2, size[0], 10, size[1], 12).mean((2, 4))
    found = resize(torch.from_numpy(values)[None].float(), size)
    np.testing.assert_allclose(found[0].numpy(), expected, rtol=1e-5)


def test_gaps_take_the_mean_of_what_lies_around_them() -> None:
    values, known = np.zeros((6, 9), np.float32), np.zeros((6, 9), np.float32)
    values[:, :4], known[:, :3], known[2:4, 8] = 5, 1, 1
    filled = fill_unknown(maps(values), maps(known))[0, 0].numpy()
    np.testing.assert_array_equal(filled[known > 0], values[known > 0])
    np.testing.assert_allclose(filled[:, 3], 5, atol=1.5)
    assert filled[0, 3] > filled[0, 5] > filled[0, 7]
    constant = fill_unknown(maps(np.full((6, 9), 3, np.float32)), maps(known))
    torch.testing.assert_close(constant, torch.full_like(constant, 3))
    assert not fill_unknown(maps(values), maps(0 * known)).any()


def test_a_correction_of_zero_is_the_input_however_far_it_lies() -> None:
    disparity = torch.tensor([0.0, 1e-6, 0.004, 0.3, 7.1])
    nothing, doubled = torch.zeros(5), torch.full((5,), np.log(2.0))
    for offset, ambiguity in ((0.0, Ambiguity.METRIC), (0.0, Ambiguity.SCALE), (-0.2, Ambiguity.AFFINE)):
        logmap = LogMap(offset, 0.01, ambiguity)
        assert torch.equal(logmap.corrected(disparity, nothing), disparity)
        torch.testing.assert_close(logmap.corrected(disparity, doubled), 2 * (disparity - offset) + offset)
    # Where the zero moves, so does everything, and nothing lies behind it.
    moved = LogMap(0.004, 0.01, Ambiguity.SCALE).corrected(disparity, nothing)
    torch.testing.assert_close(moved, torch.tensor([0.01, 0.01, 0.01, 0.296, 7.096]))


class _Found:
    def __init__(self, links: float, anchors: float | None, linked: float | None = None) -> None:
        self.link_noise = (links, links)
        self.linked_noise = links if linked is None else linked
        self.anchor_noise = anchors
        self.anchor_tail = None if anchors is None else 2 * anchors


@pytest.mark.parametrize(
    ("links", "anchors", "acts"),
    [(0.005, 0.03, False), (0.005, None, False), (0.1, None, True), (0.1, 0.03, True), (0.005, 0.15, True)],
)
def test_abstain_rule(links: float, anchors: float | None, acts: bool) -> None:
    evidence = weigh_evidence(_Found(links, anchors), CONFIG)  # type: ignore[arg-type]
    assert (evidence.strength > 0) is acts
    # A gap that flickers is the network's, however small it is.
    assert (evidence.structure_gain > 0) is (anchors is not None and (anchors > CONFIG.structure_noise or links > 0.05))
    assert (evidence.completed_gain > 0) is (evidence.structure_gain > 0)


@pytest.mark.parametrize(("linked", "strength"), [(0.014, 0.0), (0.004, 1.0), (0.0095, 0.6)])
def test_flicker_that_links_alone_take_away_is_evidence_without_anchors(linked: float, strength: float) -> None:
    evidence = weigh_evidence(_Found(0.013, 0.03, linked), CONFIG)  # type: ignore[arg-type]
    assert evidence.strength == pytest.approx(strength, abs=0.05)
    assert evidence.anchored == (1.0 if strength == 0 else 0.0)


def test_anchors_count_the_more_the_more_links_differ() -> None:
    found = [weigh_evidence(_Found(links, 0.03, 0.004), CONFIG) for links in (0.013, 0.018, 0.021, 0.03)]  # type: ignore[arg-type]
    shares = [evidence.anchored for evidence in found]
    assert [evidence.strength for evidence in found] == [1.0] * 4
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert 0 < shares[1] < shares[2] < 1


def test_what_flickers_in_a_gap_is_not_the_structures() -> None:
    def gains(links: float) -> tuple[float, float]:
        evidence = weigh_evidence(_Found(links, 0.044), CONFIG)  # type: ignore[arg-type]
        return evidence.structure_gain, evidence.completed_gain

    assert gains(CONFIG.abstain_noise) == (0.0, 0.0)
    (seen, completed), (seen_more, completed_more) = gains(0.03), gains(0.045)
    assert 0 < seen < seen_more
    assert 0 < completed < completed_more
    assert completed_more < 0.2 * seen_more
    # s^2 = 0.044^2 - 1.5 (0.045^2 - 0.016^2) / 2
    assert seen_more == pytest.approx(CONFIG.structure_gain * (1.32675e-3 / 6.0925e-4) ** CONFIG.structure_power)


def test_structure_of_recorded_rooms_has_one_gain() -> None:
    evidence = weigh_evidence(_Found(0.02, 0.15), CONFIG)  # type: ignore[arg-type]
    assert evidence.structure_gain == evidence.completed_gain > 1


def test_structure_that_was_seen_badly_weighs_little_against_a_good_network() -> None:
    confidence = torch.tensor([0.0, 0.1, 0.3, 0.6, 1.0])
    good, poor = (weigh_evidence(_Found(*found), CONFIG) for found in ((0.045, 0.044), (0.02, 0.15)))  # type: ignore[arg-type]
    over_good, over_poor = (evidence.structure_weight(confidence, CONFIG) for evidence in (good, poor))
    assert over_good[0] == over_poor[0] == 0
    assert bool((over_good.diff() > 0).all())
    assert over_good[2] < 0.1 * over_good[4]
    assert over_poor[2] > 0.1 * over_poor[4]


def test_structure_is_doubted_sooner_where_the_network_agrees_with_it_elsewhere() -> None:
    def contradiction(tail: float | None) -> float:
        found = _Found(0.1, 0.06)
        found.anchor_tail = tail
        return weigh_evidence(found, CONFIG).contradiction  # type: ignore[arg-type]

    most, least, tail = CONFIG.structure_contradiction, CONFIG.contradiction_least, CONFIG.contradiction_tail
    assert contradiction(None) == contradiction(2 * tail) == contradiction(tail) == most
    assert contradiction(0.8 * tail) == pytest.approx(0.8**3 * most)
    assert contradiction(0.1 * tail) == contradiction(0.0) == least


def test_a_network_nearly_as_good_as_the_structure_is_bent_less() -> None:
    noises = (0.046, 0.06, 0.08, 0.15)
    found = [weigh_evidence(_Found(0.02, noise), CONFIG) for noise in noises]  # type: ignore[arg-type]
    shares = [evidence.bend_share(CONFIG) for evidence in found]
    assert shares == sorted(shares)
    assert shares[0] < 0.05
    assert shares[-1] > 0.98


def test_filters_bear_the_networks_own_jitter_up_to_a_limit() -> None:
    def tolerance(jitter: float, least: float = 0.08) -> float:
        found = _Found(jitter, 0.1)
        return weigh_evidence(found, CONFIG).tolerance(least, CONFIG)  # type: ignore[arg-type]

    assert tolerance(CONFIG.restless_jitter) == 0.08
    assert tolerance(0.6 * CONFIG.restless_jitter) == pytest.approx(0.6 * 0.08)
    assert tolerance(0.0) == pytest.approx(CONFIG.least_tolerance * 0.08)
    assert tolerance(0.06) == pytest.approx(0.06 * CONFIG.tolerance_jitter)
    assert tolerance(1.0) == CONFIG.max_tolerance
    assert tolerance(1.0, least=2 * CONFIG.max_tolerance) == 2 * CONFIG.max_tolerance


def test_confidence_falls_close_behind_a_border_only() -> None:
    value = torch.zeros(1, 1, 20, 40)
    value[..., 20:] = 0.5  # nearer
    ones = torch.ones_like(value)
    low = LowFrame(value, ones, torch.zeros_like(value, dtype=torch.uint8), value, ones)
    row = confidence_of(value, 10 * ones, low, Evidence())[0, 0, 10]
    assert (row[:17] == row[0]).all()
    assert (row[20:] == row[0]).all()
    assert (row[18:20] < 0.2 * row[0]).all()


@pytest.mark.parametrize(("role", "wide"), [(Role.GROUND, True), (Role.MOVER, False)])
def test_only_what_stays_is_filtered_with_a_wide_tolerance(role: Role, wide: bool) -> None:
    fields = Fields.__new__(Fields)
    fields.fuse, fields.evidence = CONFIG, Evidence(jitter=0.07)
    shape = torch.zeros(1, 1, 4, 4)
    roles = torch.full_like(shape, int(role), dtype=torch.uint8)
    fields.reader = _Reader(LowFrame(shape, shape, roles, shape, shape))  # type: ignore[assignment]
    found = fields._tolerance(0, 0.08)
    assert found.shape == shape.shape
    assert (found > 0.1).all() == wide
    assert (found >= 0.08 - 1e-6).all()


class _Reader:
    def __init__(self, low: LowFrame) -> None:
        self._low = low

    def frame(self, _: int) -> LowFrame:
        return self._low
