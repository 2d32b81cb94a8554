"""Links along exact flow, and the joint solve on jitter whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from stf_depth.alignment.corrections import Corrections
from stf_depth.alignment.joint import Alignment, ShotAligner, _anchor_spread, _Sample, align_shot
from stf_depth.alignment.links import Anchors, Links, LinkSampler, bilinear
from stf_depth.config import AlignmentConfig

CONFIG = AlignmentConfig()
NO_PRIOR = AlignmentConfig.of({"scale_prior": 1e-6, "shift_prior": 1e-6, "grid_prior": 1e-6, "still_prior": 1.0})


def sheet(height: int = 40, width: int = 60) -> np.ndarray:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return (0.4 * np.sin(x / 9) + 0.01 * y).astype(np.float32)


def sampled(
    values: list[np.ndarray], flow_px: tuple[float, float] = (0, 0), weight: np.ndarray | None = None, **options: float
) -> Links:
    height, width = values[0].shape
    sampler = LinkSampler(width, height, 12, (1, 2, 4, 8, 16), 1.0)
    there = np.broadcast_to(np.array(flow_px, np.float32), (height, width, 2))
    back = -there + np.float32(options.get("disagree", 0))
    trust = np.ones((height, width), np.float32) if weight is None else weight
    for index, value in enumerate(values):
        sampler.push(value, trust, there if index else None, back if index else None)
    return sampler.links()


def aligned(alignment: Alignment, frame: int, value: np.ndarray) -> np.ndarray:
    term = np.minimum(np.exp(alignment.level - value), 4)
    found = alignment.anchored
    return value + found.log_scale[frame] + found.shift[frame] * term + found.grid[frame].mean()


def test_bilinear_is_exact_on_a_plane_and_clamps_outside() -> None:
    y, x = np.mgrid[:7, :9].astype(np.float32)
    plane = 2 * x - y
    xy = np.array([[1.25, 3.5], [7.5, 0.1], [-4, 2], [100, 100]], np.float32)
    np.testing.assert_allclose(bilinear(plane, xy), [-1, 14.9, -2, 10], atol=1e-5)


def test_links_follow_the_flow_over_every_span() -> None:
    values = [sheet() + 0.1 * index for index in range(20)]
    links = sampled(values, flow_px=(1.0, 0.5))
    span = links.frame[:, 1] - links.frame[:, 0]
    assert set(span.tolist()) == {1, 2, 4, 8, 16}
    moved = (links.xy[:, 1] - links.xy[:, 0]) * [60, 40]
    np.testing.assert_allclose(moved, np.outer(span, [1.0, 0.5]), atol=0.05)


def test_links_stop_where_flows_disagree_and_where_weight_is_zero() -> None:
    values = [sheet()] * 4
    assert len(sampled(values, disagree=5.0)) == 0
    half = np.ones((40, 60), np.float32)
    half[:, :30] = 0
    assert sampled(values, weight=half).xy[..., 0].min() >= 0.45


def test_scale_and_shift_jitter_are_removed(rng: np.random.Generator) -> None:
    scale, shift = rng.normal(0, 0.06, 24), rng.normal(0, 0.03, 24)
    values = [np.log(np.exp(sheet()) * np.exp(s) + b).astype(np.float32) for s, b in zip(scale, shift, strict=True)]
    result = align_shot(sampled(values), Anchors.none(), 24, 1.5, NO_PRIOR)
    before = np.std([value.mean() for value in values])
    after = np.std([aligned(result, index, value).mean() for index, value in enumerate(values)])
    assert after < 0.05 * before
    assert result.link_noise[1] < 0.1 * result.link_noise[0]


def test_without_a_prior_worth_mentioning_the_mean_scale_stays(rng: np.random.Generator) -> None:
    values = [sheet() + np.float32(s) for s in rng.normal(0, 0.1, 30)]
    result = align_shot(sampled(values), Anchors.none(), 30, 1.5, CONFIG)
    assert abs(np.mean([aligned(result, i, v).mean() - v.mean() for i, v in enumerate(values)])) < 0.01


def test_anchors_set_the_level_and_report_what_they_lack() -> None:
    values = [sheet()] * 10
    target = sheet() + 0.3
    sampler = LinkSampler(60, 40, 16, (1, 2), 1.0)
    nothing = np.zeros((40, 60, 2), np.float32)
    for index, value in enumerate(values):
        flow = nothing if index else None
        sampler.push(value, np.ones_like(value), flow, flow)
        sampler.anchor(target, np.full_like(target, 0.9))
    result = align_shot(sampler.links(), sampler.anchors(), 10, 1.5, NO_PRIOR)
    np.testing.assert_allclose(aligned(result, 4, values[4]), target, atol=0.01)
    assert result.anchor_noise is not None
    assert result.anchor_noise < 0.01


def test_expected_change_is_not_taken_for_flicker() -> None:
    values = [sheet() + 0.05 * index for index in range(20)]

    def approaching(first: int, second: int, xy: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.full(len(xy), 0.05 * (second - first), np.float32)

    sampler = LinkSampler(60, 40, 12, (1, 2, 4), 1.0, approaching)
    nothing = np.zeros((40, 60, 2), np.float32)
    for index, value in enumerate(values):
        flow = nothing if index else None
        sampler.push(value, np.ones_like(value), flow, flow)
    result = align_shot(sampler.links(), Anchors.none(), 20, 1.5, NO_PRIOR)
    assert np.abs(result.anchored.log_scale).max() < 1e-3
    assert result.link_noise[0] < 1e-3


def test_blocks_do_not_change_the_grid_beyond_their_overlap(rng: np.random.Generator) -> None:
    y, x = np.mgrid[:40, :60].astype(np.float32)
    values = [
        sheet() + np.float32(a) * (x / 60 - 0.5) + np.float32(b) * (y / 40 - 0.5)
        for a, b in rng.normal(0, 0.1, (80, 2))
    ]
    links = sampled(values)
    whole = align_shot(links, Anchors.none(), 80, 1.5, CONFIG.with_values({"block_frames": 80}))
    parts = align_shot(links, Anchors.none(), 80, 1.5, CONFIG.with_values({"block_frames": 16}))
    assert np.abs(whole.anchored.grid).max() > 0.05
    assert np.abs(whole.anchored.grid - parts.anchored.grid).max() < 0.1 * np.abs(whole.anchored.grid).max()


@pytest.mark.parametrize("count", [1, 2])
def test_short_shots_have_a_solution(count: int) -> None:
    result = align_shot(sampled([sheet()] * count), Anchors.none(), count, 1.5, CONFIG)
    assert result.anchored.grid.shape[0] == count
    assert np.abs(result.anchored.log_scale).max() < 1e-6


def test_switches_leave_their_part_at_zero(rng: np.random.Generator) -> None:
    values = [sheet() + np.float32(s) for s in rng.normal(0, 0.1, 10)]
    links = sampled(values)
    without_grid = align_shot(links, Anchors.none(), 10, 1.5, CONFIG.with_values({"grid": False}))
    without_affine = align_shot(links, Anchors.none(), 10, 1.5, CONFIG.with_values({"affine": False}))
    assert not without_grid.anchored.grid.any()
    assert not without_affine.anchored.log_scale.any()


def test_stretches_give_what_the_whole_gives_and_hold_few_links(rng: np.random.Generator) -> None:
    count = 240
    values = [sheet() + np.float32(jump) for jump in rng.normal(0, 0.1, count)]
    whole = align_shot(sampled(values), Anchors.none(), count, 1.5, CONFIG)
    config = CONFIG.with_values({"stretch_frames": 48, "stretch_margin_frames": 48})
    sampler, aligner = LinkSampler(60, 40, 12, config.spans, 1.0), ShotAligner(count, 1.5, config)
    still, trust, held = np.zeros((40, 60, 2), np.float32), np.ones((40, 60), np.float32), []
    for index, value in enumerate(values):
        sampler.push(value, trust, still if index else None, still if index else None)
        aligner.take(sampler, index + 1)
        held.append(len(sampler.links()))
    parts = aligner.alignment()
    assert np.abs(whole.anchored.log_scale).max() > 0.1
    np.testing.assert_allclose(parts.anchored.log_scale, whole.anchored.log_scale, atol=0.02)
    np.testing.assert_allclose(parts.link_noise, whole.link_noise, rtol=0.1, atol=1e-3)
    assert max(held) < 0.75 * len(sampled(values))


@pytest.mark.parametrize("still_until", [0, 90, 240])
def test_stretches_join_without_a_step(still_until: int) -> None:
    """Where the picture stands still priors are weak, and reach farther than any margin."""
    count = 240
    config = CONFIG.with_values({"stretch_frames": 48, "stretch_margin_frames": 48, "grid": False})
    sampler, aligner = LinkSampler(60, 40, 12, config.spans, 1.0), ShotAligner(count, 1.5, config)
    trust = np.ones((40, 60), np.float32)
    drift = (0.3 * np.sin(2 * np.pi * np.arange(count) / 400)).astype(np.float32)
    for index, value in enumerate(drift):
        flow = np.zeros((40, 60, 2), np.float32)
        flow[..., 0] = 0 if index < still_until else 2
        sampler.push(trust * value, trust, flow if index else None, -flow if index else None)
        aligner.take(sampler, index + 1)
    steps = np.diff(aligner.alignment().anchored.log_scale, n=2)
    assert np.abs(steps).max() < 2e-3


def test_an_hours_statistics_are_few_and_evenly_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stf_depth.alignment.joint._KEPT_GAPS", 1000)
    sample = _Sample(2)
    for start in range(0, 40_000, 100):
        part = np.arange(start, start + 100, dtype=np.float32)
        sample.add(np.stack([part, -part]))
    first, second = sample.values()
    assert 500 <= len(first) <= 1000
    np.testing.assert_array_equal(first, -second)
    assert np.median(first) == pytest.approx(20_000, rel=0.1)


def test_statistics_are_of_the_whole_picture_however_its_points_are_ordered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stf_depth.alignment.joint._KEPT_GAPS", 1000)
    sample, column = _Sample(1), np.tile(np.arange(16, dtype=np.float32), 9)
    for _ in range(300):
        sample.add(column[None])
    shares = np.bincount(sample.values()[0].astype(int), minlength=16) / sample.values().shape[1]
    assert shares.min() > 0.5 / 16


@pytest.mark.parametrize("count", [6, 12, 16, 24])
def test_what_stands_still_cannot_have_come_nearer_in_a_short_shot_too(count: int) -> None:
    config, still = CONFIG.with_values({"grid": False}), np.zeros((40, 60, 2), np.float32)
    sampler, trust = LinkSampler(60, 40, 12, config.spans, 1.0), np.ones((40, 60), np.float32)
    drift = np.linspace(0, 0.4, count, dtype=np.float32)
    for index, value in enumerate(drift):
        sampler.push(trust * value, trust, still if index else None, still if index else None)
    found = align_shot(sampler.links(), sampler.anchors(), count, 1.5, config)
    before, after = found.link_noise
    assert after < 0.05 * before


def test_forgetting_drops_what_starts_before() -> None:
    sampler = LinkSampler(60, 40, 12, (1, 2), 1.0)
    still, trust = np.zeros((40, 60, 2), np.float32), np.ones((40, 60), np.float32)
    for index in range(6):
        sampler.push(sheet(), trust, still if index else None, still if index else None)
        sampler.anchor(sheet(), trust)
    sampler.forget(3)
    assert sampler.links().frame.min() == 3
    assert sampler.anchors().frame.min() == 3


def test_what_a_few_things_lack_is_no_tail_of_the_network() -> None:
    draw = np.random.default_rng(0).normal(0, 0.04, 20000).astype(np.float32)
    noise, tail = _anchor_spread(draw)
    assert noise == pytest.approx(0.04, rel=0.05)
    assert tail == pytest.approx(1.96 * 0.04, rel=0.05)
    draw[:1600] = 0.9  # a mover
    noise, tail = _anchor_spread(draw)
    assert noise == pytest.approx(0.045, rel=0.1)
    assert tail is not None
    assert 0.12 < tail < 0.25
    assert _anchor_spread(draw[:100]) == (None, None)


def test_links_alone_leave_wrong_anchors_aside_and_are_not_solved_where_nothing_is_steady(
    rng: np.random.Generator,
) -> None:
    def result(jitter: float) -> Alignment:
        values = [sheet() + np.float32(a) for a in rng.normal(0, jitter, 24)]
        xy = rng.uniform(0, 1, (24 * 60, 2)).astype(np.float32)
        frame = np.repeat(np.arange(24, dtype=np.int32), 60)
        u = np.zeros(len(frame), np.float32)
        wrong = Anchors(frame, xy, u, u + 0.3, np.ones(len(frame), np.float32))
        return align_shot(sampled(values), wrong, 24, 1.5, CONFIG)

    steady, restless = result(0.01), result(0.1)
    assert np.abs(steady.anchored.log_scale).mean() > 0.1
    assert np.abs(steady.linked.log_scale).max() < 0.04
    assert steady.linked_noise < 0.3 * steady.link_noise[0]
    np.testing.assert_array_equal(restless.linked.log_scale, restless.anchored.log_scale)
    assert restless.linked_noise == restless.link_noise[1]


def test_corrections_lean_towards_others_by_a_share(rng: np.random.Generator) -> None:
    one, two = (Corrections(*(rng.normal(size=shape) for shape in ((5,), (5,), (5, 2, 3)))) for _ in range(2))
    np.testing.assert_allclose(one.towards(two, 0.25).grid, 0.75 * one.grid + 0.25 * two.grid)
    np.testing.assert_array_equal(one.towards(two, 0).log_scale, one.log_scale)
    np.testing.assert_array_equal(one.towards(two, 1).shift, two.shift)
