"""Cuts are found where they are, and nowhere else."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest

from stf_depth.synthetic import render_clip, scene
from stf_depth.types import Shot
from stf_depth.video.shots import ShotDetector

WH = (64, 36)


def detect(frames: np.ndarray, *, batch: int = 5, min_shot_frames: int = 8, threshold: float = 3.0) -> list[Shot]:
    detector = ShotDetector(threshold=threshold, min_shot_frames=min_shot_frames)
    shots = []
    for start in range(0, len(frames), batch):
        new = detector.push(frames[start : start + batch])
        assert all(shot.stop + detector.lookahead >= start - batch for shot in new)
        shots += new
    shots += detector.flush()
    assert detector.flush() == []
    if len(frames):
        assert shots[0].start == 0 and shots[-1].stop == len(frames)
        assert all(one.stop == other.start for one, other in pairwise(shots))
    return shots


@pytest.fixture(scope="module")
def room() -> np.ndarray:
    return render_clip(scene("room"), 24, WH).rgb


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    return render_clip(scene("street"), 24, WH).rgb


def test_one_cut_between_two_takes() -> None:
    clip = render_clip(scene("two_shots"), 24, WH)
    assert detect(clip.rgb) == list(clip.shots)


@pytest.mark.parametrize("name", ["room", "street", "rotation", "zoom", "forward", "static_camera_movers"])
def test_no_cut_within_a_take(name: str) -> None:
    assert len(detect(render_clip(scene(name), 20, WH).rgb)) == 1


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_batches_change_nothing(room: np.ndarray, street: np.ndarray, batch: int) -> None:
    frames = np.concatenate([room, street, room[::-1]])
    assert detect(frames, batch=batch) == [Shot(0, 24), Shot(24, 48), Shot(48, 72)]


def fast_pan(seed: int, count: int = 25) -> np.ndarray:
    """(count, 36, 64, 3) past a wall of many colours, a darker one for each seed, at 1 px a frame."""
    wall = np.random.default_rng(seed).integers(0, 256 >> seed, (9, (64 + count) // 4, 3), dtype=np.uint8)
    wide = np.asarray(cv2.resize(wall, (64 + count, 36), interpolation=cv2.INTER_CUBIC))
    return np.stack([wide[:, step : step + 64] for step in range(count)])


def repeated(frames: np.ndarray, pattern: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Each frame shown as often as the pattern says in turn, slightly different each time, as after encoding."""
    shown = np.repeat(frames, np.resize(pattern, len(frames)), axis=0).astype(int)
    shown[:, 0::4, 0::4] += rng.integers(-2, 3, shown[:, 0::4, 0::4].shape)
    return np.clip(shown, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("pattern", [(3,), (4,), (6,), (8,), (2, 3), (1, 1, 1, 2), (1,) * 12 + (4,) + (1,) * 12])
def test_repeated_frames_are_no_cuts_and_hide_none(pattern: tuple[int, ...], rng: np.random.Generator) -> None:
    takes = [repeated(fast_pan(seed), pattern, rng) for seed in range(3)]
    first, second, third = np.cumsum([len(take) for take in takes]).tolist()
    assert detect(np.concatenate(takes)) == [Shot(0, first), Shot(first, second), Shot(second, third)]


def test_a_picture_held_before_a_jump_is_no_cut() -> None:
    frames = fast_pan(0)
    held = np.concatenate([frames[:9], np.repeat(frames[9:10], 4, axis=0), frames[13:]])
    assert len(detect(held)) == 1


def test_a_repeated_picture_that_is_refined_step_by_step_is_still_repeated() -> None:
    frames = np.repeat(np.minimum(fast_pan(0), 253), 3, axis=0)
    frames += (np.arange(len(frames)) % 3).astype(np.uint8)[:, None, None, None]
    assert len(detect(frames)) == 1


@pytest.mark.parametrize("length", [8, 9, 12, 17, 30])
def test_stills_are_shots(room: np.ndarray, street: np.ndarray, length: int) -> None:
    stills = [np.repeat(frames[:1], length, axis=0) for frames in (room, street)]
    assert detect(np.concatenate(stills)) == [Shot(0, length), Shot(length, 2 * length)]
    assert detect(np.concatenate([room, stills[1]])) == [Shot(0, 24), Shot(24, 24 + length)]


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(room: np.ndarray, length: int) -> None:
    frames = room.copy()
    frames[12 : 12 + length] = 255 - (255 - frames[12 : 12 + length]) // 8
    assert len(detect(frames)) == 1


@pytest.mark.parametrize("period", [1, 2, 3, 5])
def test_a_strobe_is_no_cut_a_frame(room: np.ndarray, period: int) -> None:
    frames = np.concatenate([room, room[::-1]])
    lit = (np.arange(len(frames)) // period) % 2 == 1
    frames[lit] = 255 - (255 - frames[lit]) // 6
    assert len(detect(frames)) <= 2


def test_short_shots_are_joined_to_their_neighbours(room: np.ndarray, street: np.ndarray) -> None:
    frames = np.concatenate([room, street[:5], room[::-1]])
    assert all(len(shot) >= 8 for shot in detect(frames))
    tail = np.concatenate([room, street[:6]])
    assert detect(tail) == [Shot(0, 30)]
    assert detect(np.concatenate([room, street[:9]])) == [Shot(0, 24), Shot(24, 33)]


def test_very_fast_cuts_keep_the_minimum_length(room: np.ndarray, street: np.ndarray) -> None:
    frames = np.concatenate([part for k in range(8) for part in (room[3 * k : 3 * k + 3], street[3 * k : 3 * k + 3])])
    assert all(len(shot) >= 8 for shot in detect(frames))


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_clip_shorter_than_a_shot_is_one_shot(room: np.ndarray, count: int) -> None:
    assert detect(room[:count]) == [Shot(0, count)]


def test_black_constant_and_tiny_videos_are_one_shot() -> None:
    assert detect(np.zeros((20, 54, 96, 3), np.uint8)) == [Shot(0, 20)]
    assert detect(np.full((20, 54, 96, 3), 90, np.uint8)) == [Shot(0, 20)]
    assert detect(np.zeros((20, 1, 1, 3), np.uint8)) == [Shot(0, 20)]
    assert detect(np.zeros((0, 54, 96, 3), np.uint8)) == []
