"""Streams: cameras, URLs and files, pushed frame by frame and written as they come."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from stf_depth.cache.store import StageStore
from stf_depth.cli.main import main
from stf_depth.cli.original import main as original_main
from stf_depth.config import RunConfig, preset
from stf_depth.errors import (
    ConfigError,
    InputError,
    InputNotFoundError,
    OutputError,
    SequenceError,
    UnreadableVideoError,
    UsageError,
)
from stf_depth.export import export_result
from stf_depth.live import LiveDepth, result_name, run_live
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip, render_clip, scene
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


@pytest.mark.parametrize("lookahead", [0, 2])
def test_what_is_infinitely_far_stays_known(lookahead: int, tmp_path: Path, rng: np.random.Generator) -> None:
    clip = render_clip(scene("street"), frames=6, wh=(128, 80))
    sky = ~np.isfinite(clip.depth)
    z = clip.depth * rng.uniform(0.7, 1.4, (6, 1, 1))
    np.savez(tmp_path / "d.npz", depth=z, valid=np.ones(z.shape, bool), representation="z_depth", ambiguity="metric")
    config = preset("fast", depth=f"precomputed:{tmp_path / 'd.npz'}", device="cpu")
    live = LiveDepth(config.with_values({"causal.lookahead_frames": lookahead}))
    frames = live.push(clip.rgb, clip.pts_seconds) + live.flush()
    assert all(frame.valid.all() for frame in frames)
    depth = np.stack([frame.depth for frame in frames])
    assert np.isfinite(depth).all() and (depth >= 0).all()
    assert (depth[~sky] > 0).all()  # nothing near was turned to infinity
    assert np.mean((depth[sky] == 0) | (depth[sky] > 20)) > 0.9


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


def test_a_sequence_with_gaps(config: RunConfig, room_sequence: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gappy"
    folder.mkdir()
    for image in sorted((room_sequence / "color").iterdir())[::2]:
        (folder / image.name).symlink_to(image)
    with pytest.raises(SequenceError, match=r"video\.allow_gaps=true"):
        run_live(str(folder), config, tmp_path / "o")
    result = run_live(str(folder), config.with_values({"video.allow_gaps": True}), tmp_path / "o")
    np.testing.assert_allclose(result.pts_seconds, np.arange(6) / 30)


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
    told = capsys.readouterr().err
    assert "latency p50" in told and "--working-dir" not in told
    with np.load(tmp_path / room_video.stem / "depth.npz", allow_pickle=False) as content:
        assert content["depth"].shape == (6, 64, 96)
    assert main([*arguments[:2], "--mode", "sideways", "--output-dir", str(tmp_path)]) == 2


def interrupted_once(monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    """Ctrl-C at the first chunk that is written: the signal itself, or its exception before or after the writing."""
    real, calls = StageStore.write, []

    def write(self: StageStore, *arguments: object) -> None:
        calls.append(arguments)
        if moment == "before" and len(calls) == 1:
            raise KeyboardInterrupt
        real(self, *arguments)  # type: ignore[arg-type]
        if moment == "after" and len(calls) == 1:
            raise KeyboardInterrupt
        if moment == "signal" and len(calls) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(StageStore, "write", write)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal: shells start what runs in the background with it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("moment", ["before", "after", "signal"])
def test_an_interrupt_while_a_chunk_is_written_loses_and_doubles_no_frame(
    moment: str, config: RunConfig, room_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stf_depth.live._CHUNK_BYTES", 4 * 64 * 96 * 4)
    ahead = config.with_values({"causal.lookahead_frames": 2})
    whole = run_live(str(room_video), ahead.with_values({"video.max_frames": 6}), tmp_path / "whole")
    interrupted_once(monkeypatch, moment)
    ended = run_live(str(room_video), ahead, tmp_path / "ended")
    assert len(ended) == 6
    np.testing.assert_array_equal(ended.pts_seconds, whole.pts_seconds)
    np.testing.assert_array_equal(ended.depth[:], whole.depth[:])
    assert [(shot.start, shot.stop) for shot in ended.shots] == [(0, 6)]


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_cut_a_frame_in_two(
    config: RunConfig, room_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = LiveDepth.push, []

    def push(self: LiveDepth, *arguments: object, **named: object) -> object:
        ready = real(self, *arguments, **named)  # type: ignore[arg-type]
        calls.append(ready)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)  # where the exception would come, with the frame in nobody's hands
        return ready

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(LiveDepth, "push", push)
    assert len(run_live(str(room_video), config, tmp_path)) == 3
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("interruptible")
def test_a_second_interrupt_does_not_wait(
    config: RunConfig, room_video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = []

    def push(self: LiveDepth, *arguments: object, **named: object) -> object:
        for press in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            reached.append(press)
        return []

    monkeypatch.setattr(LiveDepth, "push", push)
    with pytest.raises(UnreadableVideoError, match="no frame came"):
        run_live(str(room_video), config, tmp_path)
    assert reached == [0]


@pytest.mark.parametrize("source", ["...mp4", "in/...mp4", "a\\b.mp4", "..", "/"])
def test_no_name_leads_out_of_the_output_folder(source: str, tmp_path: Path) -> None:
    name = result_name(source)
    assert (tmp_path / name).resolve().parent == tmp_path.resolve()
    assert (tmp_path / name).resolve() != tmp_path.resolve()


def test_a_given_name_stays_in_the_output_folder(config: RunConfig, room_video: Path, tmp_path: Path) -> None:
    short = config.with_values({"video.max_frames": 1})
    assert run_live(str(room_video), short, tmp_path / "o", name="../up").folder == tmp_path / "o" / "_up"


def test_exports_of_the_depth_before_go_with_it(config: RunConfig, room_video: Path, tmp_path: Path) -> None:
    short = config.with_values({"video.max_frames": 2})
    result = run_live(str(room_video), short, tmp_path)
    export_result(result, ["npz"], result.folder)
    assert (result.folder / "depth.npz").is_file()
    run_live(str(room_video), short, tmp_path)
    assert not (result.folder / "depth.npz").exists()


@pytest.mark.parametrize("source", ["http://127.0.0.1:9/room.mp4", "{damaged}/room.mp4", "{missing}/room.mp4"])
def test_a_source_without_a_frame_leaves_the_result_as_it_is(
    source: str, config: RunConfig, room_video: Path, tmp_path: Path
) -> None:
    places = {"damaged": tmp_path / "damaged", "missing": tmp_path / "missing"}
    for place in places.values():
        place.mkdir()
        (place / "room.mp4").write_bytes(room_video.read_bytes())
    source = source.format(**places)
    result = run_live(str(room_video), config.with_values({"video.max_frames": 2}), tmp_path / "o", name="one")
    manifest = json.loads((result.folder / "manifest.json").read_text())
    manifest["input"]["path"] = source
    (result.folder / "manifest.json").write_text(json.dumps(manifest))
    export_result(result, ["npz"], result.folder)
    before = {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()}
    (places["damaged"] / "room.mp4").write_bytes(b"")
    (places["missing"] / "room.mp4").unlink()
    with pytest.raises(InputError):
        run_live(source, config, tmp_path / "o", name="one")
    assert {path: path.read_bytes() for path in result.folder.rglob("*") if path.is_file()} == before


def test_the_result_of_another_video_is_not_replaced(
    config: RunConfig, room_video: Path, room_sequence: Path, tmp_path: Path
) -> None:
    short = config.with_values({"video.max_frames": 2})
    run_live(str(room_video), short, tmp_path / "o", name="one")
    (tmp_path / "copy.mp4").write_bytes(room_video.read_bytes())
    result = run_live(str(tmp_path / "copy.mp4"), short, tmp_path / "o", name="one")
    for other in (str(room_sequence / "color"), "0"):
        with pytest.raises(OutputError, match="the result of another video"):
            run_live(other, short, tmp_path / "o", name="one")
    assert DepthResult(result.folder).source == tmp_path / "copy.mp4"


def test_sources_of_the_same_name_get_results_of_their_own(
    maps: Path, room_video: Path, room_sequence: Path, tmp_path: Path
) -> None:
    sources = []
    for place in ("x", "y"):
        (tmp_path / place / f"{place}_room").mkdir(parents=True)
        sources.append(tmp_path / place / "clip.mp4")
        sources[-1].write_bytes(room_video.read_bytes())
        (tmp_path / place / f"{place}_room" / "color").symlink_to(room_sequence / "color")
        sources.append(tmp_path / place / f"{place}_room")
    sources.append(tmp_path / "...mp4")
    sources[-1].write_bytes(room_video.read_bytes())
    arguments = ["--mode", "causal", "--depth", f"precomputed:{maps}", "--device", "cpu", "--max-frames", "1"]
    again = [tmp_path / "x" / ".." / "x" / "clip.mp4", tmp_path / "absent.mp4"]
    assert main(["run", *map(str, [*sources, *again]), *arguments, "--output-dir", str(tmp_path / "o")]) == 1
    made = sorted(path.parent.name for path in tmp_path.rglob("manifest.json"))
    assert made == ["clip", "clip_mp4", "video", "x_room", "y_room"]
    assert {path.parent.parent for path in tmp_path.rglob("manifest.json")} == {tmp_path / "o"}


def test_streams_of_the_same_name_get_results_of_their_own(tmp_path: Path, room_video: Path) -> None:
    from stf_depth.cli.causal import _sources

    named_like_a_camera = tmp_path / "camera_0.mp4"
    named_like_a_camera.write_bytes(room_video.read_bytes())
    streams = ["0", "rtsp://host/live?channel=1", "rtsp://host/live?channel=2", "0"]
    assert _sources([*streams, named_like_a_camera], tmp_path) == [
        ("0", "camera_0"),
        ("rtsp://host/live?channel=1", "rtsp___host_live"),
        ("rtsp://host/live?channel=2", "rtsp___host_live_2"),
        (str(named_like_a_camera), "camera_0_mp4"),
    ]


def test_what_the_original_interface_always_says_does_no_harm(
    maps: Path, room_video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--input_dir", str(room_video), "--output_dir", str(tmp_path / "o"), "--working_dir", str(tmp_path / "w")]
    options = ["--mode", "causal", "--depth", f"precomputed:{maps}", "--max-frames", "1", "--visualize", "--no-resume"]
    assert original_main([*places, *options]) == 0
    assert "--working-dir is not used" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()
