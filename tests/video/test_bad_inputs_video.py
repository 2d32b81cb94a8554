"""Every bad or odd input gives one clear error or the right frames, with what was lost counted."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from stf_depth.errors import InputError, InputNotFoundError, SequenceError, UnreadableVideoError
from stf_depth.video import VideoReader, open_video
from stf_depth.video import container as container_module
from stf_depth.video.discover import discover

WH = (96, 64)


def noise_frames(count: int, wh: tuple[int, int] = WH) -> np.ndarray:
    rng = np.random.default_rng(5)
    small = rng.integers(0, 255, (count, max(1, wh[1] // 8), max(1, wh[0] // 8), 3)).astype(np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize(wh)) for image in small])


def encode(
    path: Path, frames: np.ndarray, codec: str = "libx264", pixel_format: str = "yuv420p", **options: str
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def read(path: Path, **options: Any) -> tuple[np.ndarray, np.ndarray, VideoReader]:
    with open_video(path, **options) as video:
        batches = list(video.batches(7))
    seconds = np.concatenate([batch.pts_seconds for batch in batches])
    assert (np.diff(seconds) > 0).all()
    return np.concatenate([batch.rgb for batch in batches]), seconds, video


def assert_refused(path: Path, kind: type[InputError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        read(path)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nothing.mp4", InputNotFoundError, "no such file")


def test_zero_bytes(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert_refused(tmp_path / "empty.mp4", UnreadableVideoError, "empty")


@pytest.mark.parametrize("content", [b"just words\n" * 50, b"\0" * 5000, bytes(range(256)) * 40])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".gif", ".txt"])
def test_not_a_video(tmp_path: Path, content: bytes, suffix: str) -> None:
    path = tmp_path / f"words{suffix}"
    path.write_bytes(content)
    assert_refused(path, UnreadableVideoError, "cannot read the video|no frame|no video")


def test_single_image_is_not_a_video(tmp_path: Path) -> None:
    Image.fromarray(noise_frames(1)[0]).save(tmp_path / "image.png")
    assert_refused(tmp_path / "image.png", UnreadableVideoError, "cannot read the video")


def test_animated_webp_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "moving.webp"
    images = [Image.new("RGB", (32, 24), (shade, 0, 0)) for shade in (0, 100, 200)]
    images[0].save(path, save_all=True, append_images=images[1:])
    for place in (path, tmp_path):
        with pytest.raises(InputError, match=r"magick moving\.webp"):
            open_video(place)


def test_unreadable_special_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.mp4")
    assert_refused(tmp_path / "pipe.mp4", UnreadableVideoError, "not a regular file")


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{secret}'\n",
    ],
)
def test_playlists_that_name_other_files_are_not_followed(tmp_path: Path, text: str) -> None:
    secret = encode(tmp_path / "secret.ts", noise_frames(5))
    path = tmp_path / "list.mp4"
    path.write_text(text.format(secret=secret.name))
    assert_refused(path, UnreadableVideoError, "cannot read the video")


def test_wrong_extension_is_read_by_content(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mkv", noise_frames(4), "ffv1")
    renamed = path.rename(tmp_path / "clip.mp4")
    assert len(read(renamed)[0]) == 4


@pytest.mark.parametrize(
    ("suffix", "written_as", "codec"),
    [
        (".h264", ".h264", "libx264"),
        (".h265", ".hevc", "libx265"),
        (".hevc", ".hevc", "libx265"),
        (".m2v", ".m2v", "mpeg2video"),
        (".3g2", ".3g2", "mpeg4"),
        (".qt", ".mov", "libx264"),
    ],
)
def test_rare_suffixes_are_found_and_read(suffix: str, written_as: str, codec: str, tmp_path: Path) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    encode(tmp_path / f"a{written_as}", noise_frames(3), codec, **quiet).rename(tmp_path / f"clip{suffix}")
    (item,) = discover([tmp_path])
    assert item.path.name == f"clip{suffix}"
    assert len(read(item.path)[0]) == 3


def test_audio_only(tmp_path: Path) -> None:
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert_refused(path, UnreadableVideoError, "no video stream.*audio")


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".gif"])
def test_one_and_two_frames(tmp_path: Path, count: int, suffix: str) -> None:
    codec, pixels = ("gif", "rgb8") if suffix == ".gif" else ("libx264", "yuv420p")
    rgb, seconds, _ = read(encode(tmp_path / f"short{suffix}", noise_frames(count), codec, pixels))
    assert len(rgb) == count and seconds[0] == 0


@pytest.mark.parametrize("wh", [(1, 1), (1, 9), (3, 5), (2000, 2), (2, 2000)])
def test_tiny_and_extreme_sizes(tmp_path: Path, wh: tuple[int, int]) -> None:
    frames = noise_frames(2, wh)
    rgb, _, _ = read(encode(tmp_path / "odd.mov", frames, "png", "rgb24"))
    assert np.array_equal(rgb, frames)


@pytest.mark.slow
def test_eight_k(tmp_path: Path) -> None:
    frames = np.zeros((1, 4320, 7680, 3), np.uint8)
    rgb, _, _ = read(encode(tmp_path / "large.mkv", frames, "ffv1", "yuv420p"))
    assert rgb.shape == (1, 4320, 7680, 3)


def test_frames_beyond_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encode(tmp_path / "large.mp4", noise_frames(2))
    monkeypatch.setattr(container_module, "MAX_FRAME_PIXELS", 96 * 64 - 1)
    assert_refused(path, UnreadableVideoError, "too large.*96x64")


def truncated(path: Path, fraction: float) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * fraction)])
    return path


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        (".mkv", "libx264", {}),
        (".avi", "mpeg4", {}),
        (".ts", "libx264", {}),
        (".webm", "libvpx-vp9", {"cpu-used": "8", "deadline": "realtime"}),
    ],
)
@pytest.mark.parametrize("fraction", [0.5, 0.8])
def test_truncated_stream_gives_what_is_there(
    tmp_path: Path, suffix: str, codec: str, options: dict[str, str], fraction: float
) -> None:
    whole = encode(tmp_path / f"whole{suffix}", noise_frames(30), codec, g="5", **options)
    before, _, _ = read(whole)
    rgb, _, _ = read(truncated(whole, fraction))
    assert 3 <= len(rgb) < 30
    same = [np.array_equal(one, other) for one, other in zip(rgb, before, strict=False)]
    assert np.mean(same) >= 0.75


def test_truncated_mp4_with_its_index_at_the_end(tmp_path: Path) -> None:
    path = truncated(encode(tmp_path / "cut.mp4", noise_frames(30)), 0.6)
    assert_refused(path, UnreadableVideoError, "cannot read the video")


def test_truncated_mp4_with_its_index_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "fast.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = *WH, "yuv420p"
        for image in noise_frames(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    whole = len(read(path)[0])
    rgb, _, video = read(truncated(path, 0.6))
    assert whole == 30 and 5 <= len(rgb) < 30
    assert video.info.frame_count_from_header == 30
    assert video.failed_frames + len(rgb) == 30
    _, _, part = read(path, max_frames=3)
    assert part.failed_frames == 0
    _, _, later = read(path, start_seconds=0.2)
    assert later.failed_frames == video.failed_frames


@pytest.mark.parametrize(("suffix", "codec"), [(".mp4", "libx264"), (".mkv", "ffv1"), (".avi", "mpeg4")])
def test_damage_in_the_middle_is_counted_and_decoding_goes_on(tmp_path: Path, suffix: str, codec: str) -> None:
    path = encode(tmp_path / f"hurt{suffix}", noise_frames(40), codec, g="4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = np.random.default_rng(0).bytes(400)
    path.write_bytes(bytes(content))
    rgb, seconds, video = read(path)
    assert len(rgb) + video.failed_frames >= 36
    assert seconds[-1] == pytest.approx(39 / 25, abs=0.1)
    # What the H.264 decoder conceals it does not always report.
    assert suffix == ".mp4" or video.failed_frames + video.damaged_frames + (40 - len(rgb)) > 0
    again, _, other = read(path)
    assert np.array_equal(rgb, again) and other.failed_frames == video.failed_frames


@pytest.mark.parametrize("value", [0, 90, 255])
def test_black_constant_and_white_video(tmp_path: Path, value: int) -> None:
    rgb, _, _ = read(encode(tmp_path / "flat.mp4", np.full((5, 64, 96, 3), value, np.uint8)))
    assert np.abs(rgb.astype(int) - value).max() <= 2


@pytest.mark.parametrize(
    "name", ["影片 🎬.mp4", "a b'c\"d.mp4", "http:clip.mp4", "100%d.mp4", "x" * 250 + ".mp4", "-i.mp4"]
)
def test_strange_names(tmp_path: Path, name: str) -> None:
    path = encode(tmp_path / "plain.mp4", noise_frames(3)).rename(tmp_path / name)
    assert len(read(path)[0]) == 3


def test_symlink(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", noise_frames(3))
    (tmp_path / "link.mp4").symlink_to(path)
    assert len(read(tmp_path / "link.mp4")[0]) == 3


class TestSequence:
    def save(self, folder: Path, names: list[str], wh: tuple[int, int] = WH) -> Path:
        folder.mkdir(exist_ok=True)
        for name, image in zip(names, noise_frames(len(names), wh), strict=True):
            Image.fromarray(image).save(folder / name)
        return folder

    def test_gap(self, tmp_path: Path) -> None:
        folder = self.save(tmp_path / "s", ["f_0001.png", "f_0002.png", "f_0005.png"])
        assert_refused(folder, SequenceError, r"missing.*no 3, 4.*--set video\.allow_gaps=true")
        rgb, seconds, video = read(folder, allow_gaps=True)
        assert len(rgb) == 3 and video.gaps == "no 3, 4"
        np.testing.assert_allclose(seconds, [0, 1 / 30, 2 / 30])
        assert np.concatenate([batch.index for batch in video]).tolist() == [0, 1, 2]
        assert video.names == ("f_0001.png", "f_0002.png", "f_0005.png")

    def test_huge_gap_names_only_the_first(self, tmp_path: Path) -> None:
        folder = self.save(tmp_path / "s", ["1.png", "999999999.png"])
        with pytest.raises(SequenceError) as caught:
            open_video(folder)
        assert len(str(caught.value)) < 400 and "2, 3, 4" in str(caught.value)

    def test_names_without_numbers_and_with_several(self, tmp_path: Path) -> None:
        assert len(read(self.save(tmp_path / "a", ["one.png", "two.png"]))[0]) == 2
        assert len(read(self.save(tmp_path / "b", ["take1_8bit.png", "take2_8bit.png"]))[0]) == 2

    def test_mixed_sizes(self, tmp_path: Path) -> None:
        folder = self.save(tmp_path / "s", ["1.png"])
        self.save(folder, ["2.png"], (48, 48))
        assert_refused(folder, SequenceError, "several sizes.*96x64.*48x48 in 2.png")

    def test_no_images_or_only_broken_ones(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").write_text("hello")
        assert_refused(tmp_path, SequenceError, "no images")
        (tmp_path / "1.png").write_bytes(b"not a png")
        assert_refused(tmp_path, SequenceError, "no readable image")

    @pytest.mark.parametrize("damage", [b"", b"not an image", None])
    def test_one_broken_image_is_counted(self, tmp_path: Path, damage: bytes | None) -> None:
        folder = self.save(tmp_path / "s", ["1.png", "2.png", "3.png"])
        content = (folder / "2.png").read_bytes()
        (folder / "2.png").write_bytes(content[: len(content) // 2] if damage is None else damage)
        rgb, seconds, video = read(folder)
        assert len(rgb) == 2 and video.failed_frames == 1
        np.testing.assert_allclose(seconds, [0, 2 / 30])

    def test_too_large(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from stf_depth.video import sequence

        monkeypatch.setattr(sequence, "MAX_FRAME_PIXELS", 96 * 64 - 1)
        with pytest.raises(SequenceError, match="too large"):
            open_video(self.save(tmp_path / "s", ["1.png"]))

    def test_modes_become_rgb(self, tmp_path: Path) -> None:
        grey16 = np.linspace(0, 65535, 96 * 64).reshape(64, 96).astype(np.uint16)
        Image.fromarray(grey16).save(tmp_path / "1.png")
        Image.fromarray((grey16 >> 8).astype(np.uint8)).save(tmp_path / "2.png")
        rgba = np.full((64, 96, 4), 200, np.uint8)
        rgba[:, :48, 3] = 0
        Image.fromarray(rgba).save(tmp_path / "3.png")
        Image.fromarray(noise_frames(1)[0]).quantize(16).save(tmp_path / "4.png")
        rgb, _, _ = read(tmp_path)
        assert np.abs(rgb[0, ..., 0].astype(float) - grey16 / 257).max() <= 0.51
        assert np.array_equal(rgb[1, ..., 0], grey16 >> 8)
        assert rgb[2, 5, 5].tolist() == [0, 0, 0] and rgb[2, 5, 90, 0] in range(156, 201)
        assert rgb.shape == (4, 64, 96, 3)

    def test_exif_orientation(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        image = noise_frames(1)[0]
        Image.fromarray(image).save(tmp_path / "1.png", exif=exif)
        rgb, _, video = read(tmp_path)
        assert np.array_equal(rgb[0], np.rot90(image, -1))
        assert (video.info.width_px, video.info.height_px) == (64, 96)


class StumblingContainer:
    """A container whose demuxer raises after the last packet, as PyAV does when a damaged stream grows new tracks."""

    def __init__(self, real: Any, error: Exception) -> None:
        self._real, self._error = real, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def demux(self, stream: Any) -> Any:
        yield from (packet for packet in self._real.demux(stream) if packet.size)
        raise self._error


@pytest.mark.parametrize(("error", "failed"), [(IndexError("list index"), 0), (OSError("read error"), 1)])
def test_a_demuxer_that_stumbles_loses_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, failed: int
) -> None:
    path = encode(tmp_path / "clip.mp4", noise_frames(12), bf="3")
    opened = container_module.open_container
    monkeypatch.setattr(container_module, "open_container", lambda path: StumblingContainer(opened(path), error))
    rgb, _, video = read(path)
    assert len(rgb) == 12
    assert video.failed_frames == failed
