"""Work beside the caller, and batches that shrink until they fit."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from stf_depth.errors import DeviceMemoryError
from stf_depth.pipeline.background import Background
from stf_depth.pipeline.batching import HalvingBatch


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "background"]


def test_tasks_run_in_order_in_another_thread() -> None:
    seen: list[tuple[int, bool]] = []
    with Background(capacity=2) as background:
        for number in range(20):
            background.submit(lambda n=number: seen.append((n, threading.current_thread().name == "background")))
    assert seen == [(number, True) for number in range(20)]
    assert not background_threads()


def test_the_first_error_is_raised_once_and_nothing_runs_after_it() -> None:
    seen: list[int] = []

    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Background(capacity=8) as background:
        background.submit(lambda: seen.append(1))
        background.submit(fail)
        background.submit(lambda: seen.append(2))
    assert seen == [1]
    assert not background_threads()


def test_a_caller_that_keeps_submitting_meets_the_error_instead_of_waiting_for_ever() -> None:
    def fail() -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), Background(capacity=1) as background:
        for _ in range(1000):
            background.submit(fail)
    assert not background_threads()


def test_what_was_submitted_before_an_interruption_is_done() -> None:
    seen: list[int] = []
    with pytest.raises(KeyboardInterrupt), Background(capacity=4) as background:
        for number in range(3):
            background.submit(lambda n=number: seen.append(n))
        raise KeyboardInterrupt
    assert seen == [0, 1, 2]
    assert not background_threads()


def test_the_queue_is_bounded() -> None:
    gate = threading.Event()
    submitted: list[int] = []

    def fill(background: Background) -> None:
        for number in range(10):
            background.submit(gate.wait)
            submitted.append(number)

    with Background(capacity=2) as background:
        filler = threading.Thread(target=fill, args=(background,))
        filler.start()
        filler.join(0.5)
        held = len(submitted)
        gate.set()
        filler.join()
    assert held <= 3
    assert len(submitted) == 10


class SmallDevice:
    """Has room for ``room`` frames; remembers the sizes it was asked for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def infer(self, rgb: np.ndarray) -> np.ndarray:
        self.sizes.append(len(rgb))
        if len(rgb) > self.room:
            raise DeviceMemoryError("the network does not fit the device's memory")
        return rgb[:, 0, 0, 0]


def test_batches_are_halved_until_they_fit_and_stay_so() -> None:
    device, told = SmallDevice(3), []
    batch = HalvingBatch(device.infer, told.append)
    frames = np.arange(10, dtype=np.uint8)[:, None, None, None].repeat(3, axis=3)
    assert np.concatenate(batch(frames)).tolist() == list(range(10))
    assert np.concatenate(batch(frames)).tolist() == list(range(10))
    assert device.sizes == [10, 5, *[2] * 5, *[2] * 5]
    assert [line.rsplit(": ", 1)[1] for line in told] == [
        "going on with 5 frames at once",
        "going on with 2 frames at once",
    ]


def test_a_frame_that_does_not_fit_is_an_error() -> None:
    told: list[str] = []
    with pytest.raises(DeviceMemoryError):
        HalvingBatch(SmallDevice(0).infer, told.append)(np.zeros((4, 2, 2, 3), np.uint8))
    assert len(told) == 2


def test_other_errors_are_not_retried() -> None:
    calls: list[int] = []

    def infer(rgb: np.ndarray) -> np.ndarray:
        calls.append(len(rgb))
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        HalvingBatch(infer, calls.append)(np.zeros((4, 2, 2, 3), np.uint8))
    assert calls == [4]
