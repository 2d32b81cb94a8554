"""Frames that are made from other frames."""

from __future__ import annotations

import numpy as np

from stf_depth.frames import MappedFrames


def test_a_frame_that_is_asked_for_again_is_made_once() -> None:
    made: list[int] = []

    def twice(values: np.ndarray) -> np.ndarray:
        made.append(int(values[0]))
        return 2 * values

    frames = MappedFrames(twice, np.arange(6).reshape(3, 2))
    assert [frames[1].tolist(), frames[1].tolist(), frames[2].tolist(), frames[1].tolist()] == [
        [4, 6],
        [4, 6],
        [8, 10],
        [4, 6],
    ]
    assert made == [2, 4, 2]
    assert frames[0:2].tolist() == [[0, 2], [4, 6]]
