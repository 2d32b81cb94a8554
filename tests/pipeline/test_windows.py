"""Windows of a video, filled apart and brought together, give the bytes of one run and no frame twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stf_depth.cache.lock import folder_lock
from stf_depth.config import RunConfig
from stf_depth.errors import LockedError, ModelError
from stf_depth.perception.base import BackendInfo
from stf_depth.perception.registry import create
from stf_depth.pipeline.backends import Backends
from stf_depth.pipeline.plan import CHUNK_FRAMES, VideoFolders
from stf_depth.pipeline.process import Delivery, Outcome, process_video
from stf_depth.pipeline.progress import SilentReporter
from stf_depth.pipeline.split import Part, Splitting, fill_window, plan_windows
from stf_depth.pipeline.windows import Window, cut_windows
from stf_depth.synthetic import render_clip, scene, write_video
from stf_depth.types import DepthMaps, Uint8Array
from stf_depth.video.discover import discover

FRAMES = 40
SILENT = SilentReporter()


@given(st.sets(st.integers(0, 60)), st.integers(1, 9))
def test_windows_hold_every_missing_chunk_once(missing: set[int], pieces: int) -> None:
    windows = cut_windows(sorted(missing), pieces)
    assert [chunk for first, stop in windows for chunk in range(first, stop)] == sorted(missing)
    assert all(stop - first <= -(-len(missing) // pieces) for first, stop in windows)


class Failing:
    """Gives up at frame ``at`` of those that it sees."""

    def __init__(self, network: Any, at: int) -> None:
        self._network, self._at = network, at

    @property
    def info(self) -> BackendInfo:
        return self._network.info

    def infer(self, rgb: Uint8Array) -> DepthMaps:
        if self._network.frames + len(rgb) > self._at:
            raise ModelError("the network gives up")
        return self._network.infer(rgb)


class Passed(SilentReporter):
    """Counts the frames that pass."""

    def __init__(self) -> None:
        self.frames = 0

    def advance(self, frames: int) -> None:
        self.frames += frames


@dataclass
class Setup:
    """One video whose windows are planned, filled and used with networks that are counted."""

    root: Path
    video: Path
    config: RunConfig
    depth: Any
    semantic: Any

    @property
    def folders(self) -> VideoFolders:
        return VideoFolders(self.root / "working", self.root / "output")

    @property
    def backends(self) -> Backends:
        return Backends(self.depth, self.semantic, None, create("flow", "dis"))

    def plan(self, part: Part = "inference", workers: int = 2, least: int = 1, resume: bool = True) -> list[Window]:
        splitting = Splitting(part, workers, least)
        item = discover([self.video])[0]
        return plan_windows(item, self.config, self.backends, self.folders, splitting, SILENT, resume=resume)

    def fill(self, window: Window) -> int:
        """Fill a window; returns how many frames it reported."""
        passed = Passed()
        fill_window(discover([self.video])[0], window, self.config, self.backends, self.folders, passed)
        return passed.frames

    def process(self) -> Outcome:
        delivery = Delivery(visualize=False, standard=False)
        return process_video(discover([self.video])[0], self.config, self.backends, self.folders, delivery, SILENT)

    def done(self, window: Window, stage: str) -> list[int]:
        """Chunks of a stage that a window has filled."""
        cache = window.folders(self.folders).cache
        return sorted(int(path.stem) for path in cache.glob(f"{stage}-*/done/*.json"))


@pytest.fixture
def setup(bench: Any, long_video: Path, tmp_path: Path) -> Setup:
    return Setup(tmp_path / "split", long_video, bench.config(), type(bench.depth)(), type(bench.semantic)())


@pytest.fixture
def whole(bench: Any, long_video: Path, data_files: Callable[[Path], dict[str, bytes]]) -> dict[str, bytes]:
    """The depth store of one run."""
    bench.run(long_video, "whole")
    return data_files(bench.root / "whole" / "output")


def test_windows_give_the_bytes_of_one_run_and_each_frame_is_seen_once(setup: Setup, whole, data_files) -> None:
    windows = setup.plan()
    assert [(one.start, one.stop, one.stages) for one in windows] == [
        (0, 2 * CHUNK_FRAMES, ("depth", "semantic")),
        (2 * CHUNK_FRAMES, None, ("depth", "semantic")),
    ]
    for window, chunks in zip(reversed(windows), ([2], [0, 1]), strict=True):
        setup.fill(window)
        assert [setup.done(window, stage) for stage in window.stages] == [chunks, chunks]
    assert setup.depth.frames == setup.semantic.frames == FRAMES
    setup.process()
    assert setup.depth.frames == setup.semantic.frames == FRAMES
    assert data_files(setup.folders.output) == whole
    assert not setup.folders.windows.exists()
    assert setup.plan() == []
    assert setup.process().reused


def test_a_window_goes_on_where_it_stopped(setup: Setup) -> None:
    window = setup.plan()[0]
    network, setup.depth = setup.depth, Failing(setup.depth, at=CHUNK_FRAMES + 3)
    with pytest.raises(ModelError, match="gives up"):
        setup.fill(window)
    assert setup.done(window, "depth") == [0]
    setup.depth = replace(network, frames=0)
    assert setup.fill(window) == setup.fill(window) == 2 * CHUNK_FRAMES
    assert setup.depth.frames == CHUNK_FRAMES
    assert setup.done(window, "depth") == [0, 1]


def test_what_a_killed_run_left_in_windows_is_taken_over_by_the_next_plan(setup: Setup, whole, data_files) -> None:
    setup.fill(setup.plan()[1])
    again = setup.plan(workers=3)
    assert [(one.start, one.stop) for one in again] == [(0, CHUNK_FRAMES), (CHUNK_FRAMES, 2 * CHUNK_FRAMES)]
    setup.process()
    assert setup.depth.frames == FRAMES
    assert data_files(setup.folders.output) == whole


def test_only_stages_that_lack_something_are_split(setup: Setup) -> None:
    setup.process()
    setup.semantic = replace(setup.semantic, info=replace(setup.semantic.info, weights_digest="2"))
    assert {window.stages for window in setup.plan()} == {("semantic",)}


def test_the_end_may_be_elsewhere_than_the_header_says(setup: Setup, whole, data_files, monkeypatch) -> None:
    for said in (20, 200):
        monkeypatch.setattr("stf_depth.pipeline.split._expected_frames", lambda *_, said=said: said)
        setup.root = setup.root.with_name(f"said {said}")
        setup.depth = replace(setup.depth, frames=0)
        for window in setup.plan(workers=4):
            setup.fill(window)
        assert setup.depth.frames == FRAMES
        setup.process()
        assert setup.depth.frames == FRAMES
        assert data_files(setup.folders.output) == whole


def test_the_range_of_a_run_holds_for_its_windows(setup: Setup) -> None:
    setup.config = setup.config.with_values({"video.start_seconds": 0.1, "video.max_frames": 34})
    for window in setup.plan(workers=3):
        setup.fill(window)
    assert setup.depth.frames == 34
    outcome = setup.process()
    assert (outcome.frames, setup.depth.frames) == (34, 34)


def test_short_videos_and_maps_that_are_only_read_stay_whole(setup: Setup, tmp_path: Path) -> None:
    assert setup.plan(least=2) == []
    assert setup.plan(workers=1) == []
    assert setup.plan("structure") == []  # this configuration solves no camera
    np.savez(tmp_path / "maps.npz", depth=np.ones((FRAMES, 8, 12)), representation="disparity", ambiguity="affine")
    setup.depth = create("depth", f"precomputed:{tmp_path / 'maps.npz'}")
    assert {window.stages for window in setup.plan()} == {("semantic",)}


def test_a_cache_that_is_not_resumed_is_gone_before_windows_are_filled(setup: Setup) -> None:
    setup.process()
    assert setup.plan() == []
    windows = setup.plan(resume=False)
    setup.fill(windows[0])
    assert setup.plan(resume=False) == windows
    assert not setup.folders.windows.exists()


def test_a_video_is_held_as_long_as_one_of_its_windows(setup: Setup) -> None:
    window = setup.plan()[0]
    with folder_lock(window.folders(setup.folders).working):
        unfinished = window.folders(setup.folders).working / f"{'.partial-'}1-file"
        unfinished.touch()
        for use in (setup.process, setup.plan, lambda: setup.fill(window)):
            with pytest.raises(LockedError):
                use()
        assert unfinished.exists()
    setup.process()


def test_structure_in_windows_gives_the_bytes_of_one_run(setup: Setup, bench: Any, long_video, data_files) -> None:
    options = {"geometry.enabled": True, "fusion.mode": "full"}
    setup.config = bench.config(**options)
    bench.run(long_video, "whole", **options)
    assert [one.stages for one in setup.plan()] == [("depth", "semantic")] * 2
    windows = setup.plan("structure", workers=3)
    assert [(one.start, one.stop) for one in windows] == [(0, 16), (16, 32), (32, None)]
    # The middle one is never filled: the gap is closed by the video's own run, and nothing else is done again.
    assert [setup.fill(window) for window in windows[::2]] == [16, FRAMES - 32]
    assert [setup.done(one, "structure") for one in windows] == [[0], [], [2]]
    before = {path: path.stat().st_mtime_ns for path in setup.folders.windows.glob("*/cache/*/data.zarr/*/c/*/*/*")}
    outcome = setup.process()
    assert "structure" in outcome.stages_run
    taken = {path.stat().st_mtime_ns for path in setup.folders.cache.glob("structure-*/data.zarr/*/c/*/*/*")}
    assert before
    assert set(before.values()) <= taken
    assert data_files(setup.folders.output) == data_files(bench.root / "whole" / "output")


def test_structure_without_a_reliable_camera_is_not_worth_windows(setup: Setup, bench: Any, tmp_path: Path) -> None:
    clip = render_clip(scene("static_camera_movers"), frames=FRAMES, wh=(96, 64))
    setup.video = write_video(clip, tmp_path / "still.mp4")
    setup.config = bench.config(**{"geometry.enabled": True, "fusion.mode": "full"})
    assert setup.plan("structure", workers=3) == []
    assert setup.depth.frames == FRAMES
