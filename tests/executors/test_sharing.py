"""How a cluster is divided, and what a reporter sees of several videos at once."""

from __future__ import annotations

import os

import cv2
import pytest
import torch

from stf_depth.errors import ConfigError
from stf_depth.executors.board import Board
from stf_depth.executors.ray import Share, share_cluster
from stf_depth.executors.threads import limit_threads


@pytest.mark.parametrize(
    ("nodes", "jobs", "device", "workers", "expected"),
    [
        ([(2, 0)], 10, "auto", None, Share(2, 1, 0)),
        ([(2, 0)], 1, "auto", None, Share(1, 2, 0)),
        ([(2, 0)], 10, "auto", 1, Share(1, 2, 0)),
        ([(16, 4)], 10, "cuda", None, Share(4, 4, 1)),
        ([(16, 4)], 10, "cpu", None, Share(10, 1, 0)),
        # A worker cannot span two machines, so one job on 4 + 4 CPUs takes 4.
        ([(4, 0), (4, 0)], 1, "auto", None, Share(1, 4, 0)),
        ([(4, 0), (8, 2)], 9, "auto", None, Share(2, 4, 1)),
        ([(1, 4)], 9, "auto", None, Share(4, 1, 1)),
    ],
)
def test_cluster_is_divided(nodes, jobs, device, workers, expected) -> None:
    assert share_cluster(nodes, jobs, device, workers) == expected


def test_a_cluster_without_the_device_is_refused() -> None:
    with pytest.raises(ConfigError, match="GPU"):
        share_cluster([(8, 0)], 2, "cuda")


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def stage(self, video: str, stage: str, total: int | None) -> None:
        self.seen.append(("stage", video, stage, total))

    def advance(self, frames: int) -> None:
        self.seen.append(("advance", frames))

    def message(self, video: str, text: str) -> None:
        self.seen.append(("message", video, text))


def test_frames_of_hidden_videos_do_not_move_the_bar() -> None:
    recorder = Recorder()
    board = Board(recorder)
    board.take([("a", "stage", ("fusion", 10)), ("b", "stage", ("camera", 20)), ("b", "advance", (5,))])
    board.take([("a", "advance", (3,)), ("b", "message", ("odd",))])
    board.ended("a", "1 of 2")
    assert recorder.seen == [
        ("stage", "a", "fusion", 10),
        ("advance", 3),
        ("message", "b", "odd"),
        ("message", "a", "1 of 2"),
        ("stage", "b", "camera", 20),
        ("advance", 5),
    ]


def test_threads_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads(), cv2.getNumThreads()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    try:
        limit_threads(1)
        assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 1)
        assert os.environ["OMP_NUM_THREADS"] == "1"
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])
    with pytest.raises(ConfigError):
        limit_threads(0)
