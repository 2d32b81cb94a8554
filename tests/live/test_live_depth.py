"""Streams: cameras, URLs and files, pushed frame by frame and written as they come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from stf_depth.cli.main import main
from stf_depth.config import RunConfig, preset
from stf_depth.errors import ConfigError, InputNotFoundError, UsageError
from stf_depth.live import LiveDepth, run_live
from stf_depth.synthetic import SyntheticClip
from stf_depth.video.live import is_live_source, open_live
from stf_depth.video.reader import open_video


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Depth for the twelve frames of the room: its own size and noise, in metres."""
    path = tmp_path_factory.mktemp("maps") / "depth.npz"
    z = np.random.default_rng(4).uniform(1, 3, (12, 32, 48)).astype(np.float32)
    np.savez(path, depth=z, representation="z_depth", ambiguity="metric")
    return path


@pytest.fixture
def config(maps: Path) -> RunConfig:
    return preset("fast", depth=f"precomputed:{maps}", device="cpu", semantic="none", panoptic="none")


@pytest.fixture
def address(room_video: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(room_video.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/{room_video.name}"
    server.shutdown()
    thread.join()
    server.server_close()


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "live"]


def test_push_gives_every_frame_once_in_the_unit_of_the_network(config: RunConfig, room_clip: SyntheticClip) -> None:
    live = LiveDepth(config.with_values({"causal.lookahead_frames": 2}))
    frames = live.push(room_clip.rgb[:5], room_clip.pts_seconds[:5])
    assert [frame.index for frame in frames] == [0, 1, 2]
    frames += live.push(room_clip.rgb[5:], room_clip.pts_seconds[5:]) + live.flush()
    assert [frame.index for frame in frames] == list(range(12))
    np.testing.assert_array_equal([frame.pts_seconds for frame in frames], room_clip.pts_seconds)
    assert frames[0].depth.shape == (64, 96)
    assert (str(live.representation), str(live.ambiguity)) == ("z_depth", "metric")
    assert 1 < np.median(frames[-1].depth[frames[-1].valid]) < 3
    latency = live.latency
    assert latency.frames == 12
    assert 0 < latency.p50_ms <= latency.p95_ms


def test_depth_from_motion_is_refused() -> None:
    with pytest.raises(ConfigError, match="whole shot"):
        LiveDepth(preset("offline"))


def test_a_stream_over_http_equals_the_file(config: RunConfig, address: str, room_video: Path, tmp_path: Path) -> None:
    streamed = run_live(address, config, tmp_path / "stream", drop_frames=False)
    stored = run_live(str(room_video), config, tmp_path / "file")
    assert len(streamed) == len(stored) == 12
    np.testing.assert_array_equal(streamed.depth[:], stored.depth[:])
    assert stored.depth.shape == (12, 64, 96)
    assert [(shot.start, shot.stop) for shot in stored.shots] == [(0, 12)]
    assert stored.manifest["latency_ms"]["p95"] >= stored.manifest["latency_ms"]["p50"] > 0
    assert streamed.manifest["input"]["dropped_frames"] == 0
    assert not threads()


def test_http_frames_are_those_of_the_file(address: str, room_video: Path) -> None:
    with open_live(address, drop_frames=False) as stream, open_video(room_video) as video:
        live = [batch.rgb[0] for batch in stream.frames()]
        stored = [batch.rgb[0] for batch in video.batches(1)]
    np.testing.assert_array_equal(live, stored)


class FakeCapture:
    """Ten frames, as fast as they are asked for; frame k has brightness k."""

    released = 0

    def __init__(self, number: int) -> None:
        self.number, self.left = number, 10

    def isOpened(self) -> bool:  # noqa: N802
        return self.number == 0

    def read(self) -> tuple[bool, np.ndarray | None]:
        self.left -= 1
        return (True, np.full((32, 48, 3), 9 - self.left, np.uint8)) if self.left >= 0 else (False, None)

    def release(self) -> None:
        FakeCapture.released += 1


def test_a_slow_reader_of_a_camera_gets_the_newest_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with open_live("0") as camera:
        frames = camera.frames()
        first = next(frames)
        while camera.dropped_frames < 5:
            time.sleep(0.01)
        rest = list(frames)
    assert first.index.tolist() == [0]
    assert rest[-1].rgb[0, 0, 0, 0] == 9
    assert 1 + len(rest) + camera.dropped_frames == 10
    assert FakeCapture.released > 0
    assert not threads()


def test_sources_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    with pytest.raises(InputNotFoundError, match="no such camera"), open_live("3") as camera:
        list(camera.frames())
    with pytest.raises(InputNotFoundError, match="does not answer"), open_live("http://127.0.0.1:9/x.mp4") as stream:
        list(stream.frames())
    with pytest.raises(UsageError):
        open_live("file:///etc/passwd")
    assert not is_live_source("clip.mp4")
    assert not threads()


def test_the_command_line_runs_causally(maps: Path, room_video: Path, tmp_path: Path, capsys) -> None:
    arguments = ["run", str(room_video), "--mode", "causal", "--depth", f"precomputed:{maps}", "--device", "cpu"]
    code = main([*arguments, "--output-dir", str(tmp_path), "--max-frames", "6", "--export", "npz"])
    assert code == 0
    assert "latency p50" in capsys.readouterr().err
    with np.load(tmp_path / room_video.stem / "depth.npz", allow_pickle=False) as content:
        assert content["depth"].shape == (6, 64, 96)
    assert main([*arguments[:2], "--mode", "sideways", "--output-dir", str(tmp_path)]) == 2
