"""Cuts are found where they are, and nowhere else."""

from __future__ import annotations

from itertools import pairwise

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
