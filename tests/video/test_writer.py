"""What the writer writes, read back by PyAV and by our reader."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stf_depth.cache.files import remove_partials
from stf_depth.errors import OutputError, ShapeError
from stf_depth.synthetic import SyntheticClip, write_video
from stf_depth.video import VideoWriter, open_video

TIMES = np.array([0.0, 0.04, 0.05, 0.2, 0.9])


def ramp(count: int, wh: tuple[int, int]) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(20, 230, wh[0]), np.linspace(20, 230, wh[1]))
    return np.array([np.stack([x, y, np.full_like(x, 30 + 20 * i)], -1) for i in range(count)]).astype(np.uint8)


def decode(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize("encoding", ["h264", "h265"])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov"])
def test_colours_and_irregular_times_survive(tmp_path: Path, encoding: str, suffix: str) -> None:
    frames = ramp(5, (64, 48))
    path = tmp_path / f"clip{suffix}"
    with VideoWriter(path, wh=(64, 48), frame_rate=25, encoding=encoding) as writer:
        writer.write(frames[:2], TIMES[:2])
        writer.write(frames[2:], TIMES[2:])
    with open_video(path) as video:
        (batch,) = video.batches(10)
    np.testing.assert_allclose(batch.pts_seconds, TIMES, atol=1e-3)
    assert np.abs(batch.rgb.astype(int) - frames).mean() < 5


@pytest.mark.parametrize("wh", [(63, 47), (1, 1), (64, 33), (16, 400)])
def test_odd_sizes_are_padded_by_repetition(tmp_path: Path, wh: tuple[int, int]) -> None:
    frames = ramp(2, wh)
    path = tmp_path / "odd.mp4"
    with VideoWriter(path, wh=wh, frame_rate=25) as writer:
        writer.write(frames, TIMES[:2])
    decoded = [frame.to_ndarray(format="rgb24") for frame in decode(path)]
    assert decoded[0].shape == (wh[1] + wh[1] % 2, wh[0] + wh[0] % 2, 3)
    assert len(decoded) == 2


@pytest.mark.parametrize("encoding", ["h265", "h265-grey10"])
def test_the_smallest_size_is_told(encoding: str, tmp_path: Path) -> None:
    for wh in ((14, 64), (64, 14)):
        with pytest.raises(OutputError, match=rf"at least 15x15, got {wh[0]}x{wh[1]}"):
            VideoWriter(tmp_path / "clip.mov", wh=wh, frame_rate=25, encoding=encoding)
    with VideoWriter(tmp_path / "clip.mov", wh=(15, 15), frame_rate=25, encoding=encoding) as writer:
        frames = ramp(1, (15, 15))
        writer.write(frames[..., 0].astype(np.uint16) if "grey" in encoding else frames, np.zeros(1))
    assert len(decode(tmp_path / "clip.mov")) == 1


def test_grey_of_sixteen_bits_is_lossless(tmp_path: Path, rng: np.random.Generator) -> None:
    grey = rng.integers(0, 65536, (3, 21, 33)).astype(np.uint16)
    path = tmp_path / "depth.mkv"
    with VideoWriter(path, wh=(33, 21), frame_rate=30, encoding="ffv1-grey16") as writer:
        writer.write(grey, TIMES[:3])
    decoded = np.stack([frame.to_ndarray(format="gray16le") for frame in decode(path)])
    assert np.array_equal(decoded, grey)


def test_grey_of_ten_bits_keeps_ten_bits(tmp_path: Path) -> None:
    levels = np.arange(1024)
    grey = np.tile(np.rint(levels / 1023 * 65535).astype(np.uint16)[None, None], (2, 64, 1))
    path = tmp_path / "depth.mkv"
    with VideoWriter(path, wh=(1024, 64), frame_rate=30, encoding="h265-grey10") as writer:
        writer.write(grey, TIMES[:2])
    frame = decode(path)[0]
    assert frame.format.name == "gray10le"
    plane = np.frombuffer(bytes(frame.planes[0]), "<u2").reshape(64, -1)[:, :1024]
    assert np.array_equal(plane, np.tile(levels, (64, 1)))


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(10, 900), min_size=1, max_size=12), st.integers(0, 5000))
def test_any_increasing_times_survive(tmp_path_factory: pytest.TempPathFactory, steps: list[int], first: int) -> None:
    seconds = (first + np.cumsum([0, *steps])) / 1000
    path = tmp_path_factory.mktemp("times") / "clip.mp4"
    with VideoWriter(path, wh=(16, 16), frame_rate=25) as writer:
        writer.write(np.zeros((len(seconds), 16, 16, 3), np.uint8), seconds)
    with open_video(path) as video:
        (batch,) = video.batches(20)
    np.testing.assert_allclose(batch.pts_seconds, seconds - seconds[0], atol=1e-4)


def test_what_a_killed_writer_leaves_is_removed_by_the_next_run(tmp_path: Path) -> None:
    killed = VideoWriter(tmp_path / "depth.mp4", wh=(32, 32), frame_rate=10)
    killed.write(ramp(99, (32, 32)), np.arange(99) / 10)
    assert list(tmp_path.iterdir())
    remove_partials(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_error_leaves_neither_the_file_nor_a_partial_one(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"older")
    with pytest.raises(ZeroDivisionError), VideoWriter(path, wh=(16, 16), frame_rate=25) as writer:
        writer.write(np.zeros((1, 16, 16, 3), np.uint8), TIMES[:1])
        raise ZeroDivisionError
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_without_frames(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", wh=(16, 16), frame_rate=25):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "clip.mp4", wh=(16, 16), frame_rate=25) as writer:
        for bad in (
            np.zeros((1, 16, 18, 3), np.uint8),
            np.zeros((1, 16, 16, 3), np.float32),
            np.zeros((1, 16, 16), np.uint8),
        ):
            with pytest.raises(ShapeError, match="do not fit"):
                writer.write(bad, TIMES[:1])
        with pytest.raises(ShapeError, match="do not fit"):
            writer.write(np.zeros((2, 16, 16, 3), np.uint8), TIMES[:1])
        with pytest.raises(ShapeError, match="increase"):
            writer.write(np.zeros((2, 16, 16, 3), np.uint8), np.array([1.0, 1.0]))


def test_an_unwritable_place_is_one_clear_line(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write the video") as caught:
        VideoWriter(blocked / "clip.mp4", wh=(16, 16), frame_rate=25)
    assert "\n" not in str(caught.value)
    with pytest.raises(OutputError):
        VideoWriter(tmp_path / "clip.unknown", wh=(16, 16), frame_rate=25)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_same_frames_give_the_same_bytes(room_clip: SyntheticClip, tmp_path: Path) -> None:
    first, second = (write_video(room_clip, tmp_path / name / "clip.mp4") for name in ("one", "two"))
    assert first.read_bytes() == second.read_bytes()


ENCODE = """
import sys, hashlib, pathlib, numpy as np
from stf_depth.video import VideoWriter
width, height, path = int(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3])
ground = np.cumsum(np.random.default_rng(0).normal(0, 3, (height + 40, width + 40, 3)), 1) + 120
with VideoWriter(path, wh=(width, height), frame_rate=25) as writer:
    for i in range(16):
        picture = ground[i : i + height, 2 * i : 2 * i + width].clip(0, 255).astype(np.uint8)
        writer.write(picture[None], np.array([i / 25]))
print(hashlib.sha256(path.read_bytes()).hexdigest())
"""


@pytest.mark.parametrize("wh", [(496, 128), (322, 182)])
def test_bytes_do_not_depend_on_what_memory_held_before(tmp_path: Path, wh: tuple[int, int]) -> None:
    found = set()
    for filling in ("0", "17", "85", "170"):  # glibc fills what is allocated with it
        command = [sys.executable, "-c", ENCODE, *map(str, wh), str(tmp_path / f"{filling}.mp4")]
        environment = {**os.environ, "MALLOC_PERTURB_": filling}
        found.add(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert len(found) == 1


def source_with_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        for _ in range(50):
            container.mux(video.encode(av.VideoFrame(32, 32, "yuv420p")))
        for index in range(94):
            tone = np.sin(np.arange(1024) / 20 + 51.2 * index)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 1024 * index, Fraction(1, 48_000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        container.mux(video.encode(None))
    return path


def test_sound_of_the_source_is_copied_and_cut_to_the_range(tmp_path: Path) -> None:
    source = source_with_sound(tmp_path / "source.mp4")
    path = tmp_path / "copy.mp4"
    with VideoWriter(path, wh=(32, 32), frame_rate=25, audio_from=source) as writer:
        seconds = 0.4 + np.arange(25) / 25
        writer.write(np.zeros((25, 32, 32, 3), np.uint8), seconds)
    with av.open(str(path)) as copy:
        packets = [packet for packet in copy.demux(audio=0) if packet.pts is not None]
        start, stop = (float(packet.pts * packet.time_base) for packet in (packets[0], packets[-1]))
        assert -0.03 <= start <= 0.03 and 0.9 <= stop <= 1.0
    with av.open(str(path)) as copy:
        samples = np.concatenate([frame.to_ndarray() for frame in copy.decode(audio=0)], axis=1)
    assert samples.std() > 0.4


def test_a_silent_source_gives_a_silent_copy(room_video: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.mp4"
    with VideoWriter(path, wh=(32, 32), frame_rate=25, audio_from=room_video) as writer:
        writer.write(np.zeros((2, 32, 32, 3), np.uint8), TIMES[:2])
    with av.open(str(path)) as copy:
        assert not copy.streams.audio
