"""Boundary metrics and flow links against slow twins and exact flow."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from stf_depth.errors import ShapeError
from stf_depth.evaluation.boundary import boundary_f1, boundary_recall, boundary_thresholds, segment_edge_recall
from stf_depth.evaluation.consistency import (
    clip_range,
    flicker,
    flicker_measure,
    flicker_measures,
    opw_abs_rel_pair,
    opw_nvds_pair,
    tgm_pair,
)
from stf_depth.evaluation.flow_links import FlowLinker, link_from_flow, neighbour_pairs, reduced_wh, sample
from stf_depth.types import Shot

if TYPE_CHECKING:
    from stf_depth.synthetic import SyntheticClip


def slow_edges(q: np.ndarray, t: float, valid: np.ndarray) -> list[set[tuple[int, int]]]:
    """Flagged pairs of each direction, pixel by pixel, both pixels valid."""
    found: list[set[tuple[int, int]]] = [set(), set(), set(), set()]
    for r in range(q.shape[0]):
        for c in range(q.shape[1]):
            for direction, (dr, dc) in enumerate(((0, 1), (0, -1), (1, 0), (-1, 0))):
                y, x = r + dr, c + dc
                inside = 0 <= y < q.shape[0] and 0 <= x < q.shape[1]
                if inside and valid[r, c] and valid[y, x] and q[y, x] / q[r, c] > t:
                    found[direction].add((r, c))
    return found


def slow_f1(depth: np.ndarray, truth: np.ndarray, valid: np.ndarray | None = None) -> float:
    valid = np.ones(truth.shape, bool) if valid is None else valid
    total, weights = 0.0, 0.0
    for t in np.linspace(1.05, 1.25, 10):
        ours, theirs = (slow_edges(1 / np.maximum(values, 1e-6), t, valid) for values in (depth, truth))
        p = np.mean([len(a & b) / max(len(a), 1) for a, b in zip(ours, theirs, strict=True)])
        r = np.mean([len(a & b) / max(len(b), 1) for a, b in zip(ours, theirs, strict=True)])
        total += t * (2 * p * r / (p + r) if p + r > 0 else 0.0)
        weights += t
    return total / weights


def slow_thinned(row: np.ndarray, t: float) -> set[int]:
    """Index of the largest ratio in every run of neighbours whose ratio exceeds t."""
    ratios = row[1:] / row[:-1]
    kept, run = set(), []
    for k, ratio in enumerate([*ratios, 0.0]):
        if ratio > t:
            run.append(k)
        elif run:
            kept.add(max(run, key=lambda j: (ratios[j], -j)))
            run = []
    return kept


def test_f1_equals_the_pixel_by_pixel_twin(rng: np.random.Generator) -> None:
    truth = rng.choice([2.0, 2.2, 2.6, 4.0], (9, 11))
    depth = truth * rng.uniform(0.95, 1.08, truth.shape)
    assert boundary_f1(depth, truth).value == pytest.approx(slow_f1(depth, truth), abs=1e-9)


def test_f1_leaves_out_pairs_without_truth(rng: np.random.Generator) -> None:
    truth = rng.choice([2.0, 4.0], (8, 8))
    depth = truth * rng.uniform(0.95, 1.1, truth.shape)
    valid = np.ones(truth.shape, bool)
    valid[:, 4] = False
    holes = np.where(valid, truth, 0.0)
    # The border of a hole in the ground truth is no edge of a surface.
    value = boundary_f1(depth, holes, valid=valid).value
    assert value == pytest.approx(slow_f1(depth, holes, valid), abs=1e-9)
    assert boundary_f1(depth, holes).value < value


def test_recall_equals_the_row_by_row_twin(rng: np.random.Generator) -> None:
    disparity = np.cumsum(rng.uniform(-0.4, 0.5, (6, 30)), 1) + 8
    mask = np.repeat((np.arange(30) >= 12)[None], 6, 0).astype(float)
    thresholds, weights = boundary_thresholds()
    # Only the direction to the right has mask edges here.
    expected = 0.0
    for t, w in zip(thresholds, weights, strict=True):
        expected += w * np.mean([11 in slow_thinned(row, t) for row in disparity]) / 4
    assert boundary_recall(disparity, mask).value == pytest.approx(expected)


def test_segment_borders_count_from_either_side() -> None:
    ids = np.repeat(np.array([[1, 1, 2, 2, 0, 3]]), 4, 0)
    near_left = np.repeat(np.array([[2.0, 2, 1, 1, 1, 1]]), 4, 0)
    assert segment_edge_recall(near_left, ids).value == 1.0
    assert segment_edge_recall(1 / near_left, ids).value == 1.0
    assert segment_edge_recall(np.ones(ids.shape), ids).value == 0.0
    assert "no border" in segment_edge_recall(near_left, np.ones(ids.shape)).reason


def test_frames_must_agree_in_size() -> None:
    for function in (boundary_f1, boundary_recall, segment_edge_recall):
        with pytest.raises(ShapeError):
            function(np.ones((3, 4)), np.ones((4, 3)))


def test_flicker_of_depths_of_different_lengths_is_refused(room_clip: SyntheticClip) -> None:
    disparity = room_clip.disparity
    with pytest.raises(ShapeError, match="one length"):
        flicker_measures([(disparity, None), (disparity[:-1], None)], room_clip.rgb)


def test_sampling_is_bilinear_and_exact_at_the_borders() -> None:
    image = np.arange(12, dtype=np.float32).reshape(3, 4)
    xy = np.array([[[0, 0], [3, 2], [1.5, 0.5], [3.001, 0], [-0.001, 1]]], np.float32)
    out = sample(image, xy, outside=-1)
    assert out[0].tolist() == pytest.approx([0, 11, 3.5, -1, -1])
    stacked = sample(np.dstack([image, 2 * image]), xy)
    assert stacked.shape == (1, 5, 2)
    assert stacked[0, 2].tolist() == pytest.approx([3.5, 7.0])
    assert np.isnan(stacked[0, 3:]).all()


def test_exact_flow_links_exactly_what_is_seen_twice(room_clip: SyntheticClip) -> None:
    link = link_from_flow(room_clip.flow_forward[0], room_clip.flow_backward[0])
    seen = ~room_clip.occlusion_forward[0]
    assert link.consistent[seen].mean() > 0.9
    hidden = room_clip.occlusion_forward[0]
    assert link.consistent[hidden].mean() < 0.5


def test_true_depth_is_steadier_along_exact_flow_than_flickering_depth(room_clip: SyntheticClip) -> None:
    disparity = (1 / room_clip.depth).astype(np.float32)
    limits = clip_range(disparity, (96, 64))
    assert limits is not None
    link = link_from_flow(room_clip.flow_forward[3], room_clip.flow_backward[3])
    still = opw_abs_rel_pair(limits.normalise(disparity[3]), limits.normalise(disparity[4]), link).value
    jump = opw_abs_rel_pair(limits.normalise(disparity[3]), limits.normalise(1.2 * disparity[4]), link).value
    assert still < 0.03
    assert jump > 5 * still


def test_flicker_ranks_flicker_and_ignores_scale_and_shift(room_clip: SyntheticClip) -> None:
    disparity = (1 / room_clip.depth).astype(np.float32)
    gain = 1 + 0.1 * (-1.0) ** np.arange(len(disparity))
    shaky = (disparity * gain[:, None, None]).astype(np.float32)
    steady, jumping = flicker(disparity, room_clip.rgb), flicker(shaky, room_clip.rgb)
    assert steady < 0.5 * jumping
    assert flicker(40 * disparity + 7, room_clip.rgb) == pytest.approx(steady, rel=1e-3)
    assert flicker(disparity, room_clip.rgb) == steady


def test_flicker_never_crosses_a_cut(room_clip: SyntheticClip) -> None:
    disparity = (1 / room_clip.depth).astype(np.float32)
    cut = disparity.copy()
    cut[6:] *= 1.5
    whole = [Shot(0, 12)]
    parts = [Shot(0, 6), Shot(6, 12)]
    assert flicker(cut, room_clip.rgb, shots=whole) > flicker(cut, room_clip.rgb, shots=parts)
    alone = flicker_measure(disparity[:1], room_clip.rgb[:1])
    assert np.isnan(alone.value)
    assert "fewer than two frames" in alone.reason


def test_invalid_pixels_count_against_flicker(room_clip: SyntheticClip) -> None:
    disparity = (1 / room_clip.depth).astype(np.float32)
    valid = np.ones(disparity.shape, bool)
    valid[:, :32] = False
    assert flicker(disparity, room_clip.rgb, valid=valid) > flicker(disparity, room_clip.rgb) + 30


def test_pairs_are_thinned_evenly_and_stay_in_shots() -> None:
    assert neighbour_pairs(5) == [0, 1, 2, 3]
    assert neighbour_pairs(6, shots=[Shot(0, 3), Shot(3, 6)]) == [0, 1, 3, 4]
    assert neighbour_pairs(101, max_pairs=3) == [0, 50, 99]
    assert neighbour_pairs(1) == neighbour_pairs(0) == []


def test_reduced_sizes_never_enlarge() -> None:
    assert reduced_wh(640, 480, 320) == (320, 240)
    assert reduced_wh(100, 50, 320) == (100, 50)


def test_links_read_each_frame_once(room_clip: SyntheticClip) -> None:
    reads: list[int] = []

    class Counting:
        shape = room_clip.rgb.shape

        def __len__(self) -> int:
            return len(room_clip.rgb)

        def __getitem__(self, index: int, /) -> np.ndarray:
            reads.append(index)
            return room_clip.rgb[index]

    assert [k for k, *_ in FlowLinker().pairs(Counting(), [0, 1, 2])] == [0, 1, 2]
    assert reads == [0, 1, 2, 3]


def test_nvds_needs_two_maps_with_spread() -> None:
    flow = np.zeros((4, 6, 2), np.float32)
    link = link_from_flow(flow, flow)
    rgb = np.zeros((4, 6, 3), np.uint8)
    flat, ramp = np.ones((4, 6), np.float32), np.arange(24, dtype=np.float32).reshape(4, 6)
    assert "constant" in opw_nvds_pair(flat, ramp, rgb, rgb, link).reason
    assert opw_nvds_pair(ramp, 3 * ramp + 2, rgb, rgb, link).value == pytest.approx(0, abs=1e-5)
    broken = ramp.copy()
    broken[1, 1] = np.nan
    assert opw_nvds_pair(ramp, broken, rgb, rgb, link).value > 0.5


def test_tgm_counts_missing_pixels_as_their_worst_depth() -> None:
    g = np.full((1, 2), 4.0, np.float32)
    z = np.array([[4.0, np.nan]])
    every = np.ones((1, 2), bool)
    assert tgm_pair(z, z, g, g, every, d_max_m=10.0).value == pytest.approx(6.0 / 2)
    assert "0.05" in tgm_pair(z, z, g, g + 1, every, d_max_m=10.0).reason
