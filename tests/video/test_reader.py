"""One contract for every container: what was encoded comes back, upright, in time, in colour, in order."""

from __future__ import annotations

import threading
import tracemalloc
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from stf_depth.errors import UnreadableVideoError, UsageError
from stf_depth.video import VideoReader, open_video
from stf_depth.video.prefetch import prefetched

WH = (64, 48)
FRAMES = 12


def colourful(count: int = FRAMES, wh: tuple[int, int] = WH) -> np.ndarray:
    """Smooth frames that no codec blurs beyond recognition: a ramp in red and blue, the frame number in green."""
    width, height = wh
    x, y = np.meshgrid(np.linspace(30, 220, width), np.linspace(30, 220, height))
    frames = [np.stack([x, np.full_like(x, 40 + 14 * index), y], axis=-1) for index in range(count)]
    return np.rint(np.array(frames)).astype(np.uint8)


def encode(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    ticks: list[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    options: dict[str, str] | None = None,
    source_format: str = "rgb24",
    rotation: int | None = None,
    context: dict[str, Any] | None = None,
    sample_aspect: Fraction | None = None,
) -> Path:
    """An encoder of its own, so that the reader is not tested against our writer."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], pixel_format
        stream.codec_context.time_base = time_base
        for name, value in (context or {}).items():
            setattr(stream.codec_context, name, value)
        if sample_aspect is not None:
            stream.codec_context.sample_aspect_ratio = sample_aspect
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format=source_format)
            if frame.format.name != pixel_format:
                frame = frame.reformat(format=pixel_format)
            for name in ("color_range", "colorspace", "color_trc", "color_primaries"):
                if name in (context or {}):
                    setattr(frame, name, (context or {})[name])
            frame.pts = index if ticks is None else ticks[index]
            frame.time_base = time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_all(path: Path, size: int = 5, **options: Any) -> tuple[np.ndarray, np.ndarray, VideoReader]:
    with open_video(path, **options) as video:
        batches = list(video.batches(size))
    index = np.concatenate([batch.index for batch in batches])
    assert index.tolist() == list(range(len(index)))
    return (
        np.concatenate([batch.rgb for batch in batches]),
        np.concatenate([batch.pts_seconds for batch in batches]),
        video,
    )


@dataclass(frozen=True)
class Case:
    suffix: str
    codec: str
    pixel_format: str
    options: dict[str, str] = field(default_factory=dict)
    tolerance: float = 4.0
    wh: tuple[int, int] = WH


CASES = {
    "mp4-h264": Case(".mp4", "libx264", "yuv420p"),
    "mp4-h264-bframes": Case(".mp4", "libx264", "yuv420p", {"bf": "3", "b_strategy": "0", "g": "6"}),
    "mov-h264-444": Case(".mov", "libx264", "yuv444p"),
    "mkv-ffv1": Case(".mkv", "ffv1", "yuv420p"),
    "mkv-h265-10bit": Case(".mkv", "libx265", "yuv420p10le", {"x265-params": "log-level=none"}),
    "mp4-odd-444": Case(".mp4", "libx264", "yuv444p", wh=(63, 47)),
    "mkv-odd-ffv1": Case(".mkv", "ffv1", "yuv420p", wh=(35, 27)),
    "avi-mpeg4": Case(".avi", "mpeg4", "yuv420p", {"qscale": "2"}, tolerance=6.0),
    "avi-mjpeg": Case(".avi", "mjpeg", "yuvj420p", {"qscale": "2"}, tolerance=6.0),
    "mov-prores-10bit": Case(".mov", "prores_ks", "yuv422p10le"),
    "mkv-ffv1-12bit": Case(".mkv", "ffv1", "yuv422p12le"),
    "mkv-ffv1-rgb": Case(".mkv", "ffv1", "bgr0", tolerance=0.01),
    "webm-vp9": Case(".webm", "libvpx-vp9", "yuv420p", {"cpu-used": "8", "crf": "10", "b:v": "0"}, tolerance=6.0),
    "gif": Case(".gif", "gif", "rgb8", tolerance=45.0),
    "ts-h264": Case(".ts", "libx264", "yuv420p"),
}


@pytest.fixture(scope="module", params=sorted(CASES))
def encoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Case]:
    case = CASES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    path = encode(
        folder / f"clip{case.suffix}",
        colourful(wh=case.wh),
        codec=case.codec,
        pixel_format=case.pixel_format,
        options=case.options,
    )
    return path, case


def test_every_frame_comes_back_in_order_and_in_colour(encoded: tuple[Path, Case]) -> None:
    path, case = encoded
    rgb, seconds, video = read_all(path)
    expected = colourful(wh=case.wh).astype(np.float64)
    assert rgb.shape == expected.shape
    assert video.failed_frames == video.damaged_frames == 0
    assert np.abs(rgb - expected).mean() < case.tolerance
    order = [int(np.argmin([np.abs(image - other).mean() for other in expected])) for image in rgb.astype(np.float64)]
    # Eight levels of green are all that a gif made this way has.
    assert order == (sorted(order) if path.suffix == ".gif" else list(range(FRAMES)))
    # Containers keep times to a millisecond (mkv), a hundredth (gif) or better.
    np.testing.assert_allclose(seconds, np.arange(FRAMES) / 25, atol=6e-3)
    assert (np.diff(seconds) > 0).all() and seconds[0] == 0


def test_description_agrees_with_the_container(encoded: tuple[Path, Case]) -> None:
    path, case = encoded
    with open_video(path) as video, av.open(str(path)) as oracle:
        stream = oracle.streams.video[0]
        assert (video.info.width_px, video.info.height_px) == (stream.width, stream.height) == case.wh
        assert float(video.info.frame_rate) == pytest.approx(25, rel=0.02)
        assert video.info.codec == stream.codec_context.name
        assert not video.info.has_audio and not video.info.is_sequence and not video.info.is_hdr


def test_ranges_and_limits(encoded: tuple[Path, Case]) -> None:
    path, _ = encoded
    whole, times, _ = read_all(path)
    inside = (times >= 0.12 - 1e-6) & (times < 0.32 - 1e-6)
    part, part_times, _ = read_all(path, start_seconds=0.12, end_seconds=0.32)
    np.testing.assert_allclose(part_times, times[inside])
    assert np.array_equal(part, whole[inside])
    first, _, _ = read_all(path, max_frames=7)
    assert np.array_equal(first, whole[:7])


def test_batch_size_changes_nothing_and_a_reader_can_be_read_twice(encoded: tuple[Path, Case]) -> None:
    path, _ = encoded
    with open_video(path) as video:
        single = np.concatenate([batch.rgb for batch in video])
        again = np.concatenate([batch.rgb for batch in video.batches(100)])
    assert np.array_equal(single, again)


def test_a_later_beginning_gives_the_same_frames_times_and_numbers(encoded: tuple[Path, Case]) -> None:
    path, _ = encoded
    with open_video(path, start_seconds=0.1, max_frames=6) as video:
        whole = list(video.batches(4))
        later = list(video.batches(4, first=4))
        assert len(whole) == 2
        for one, other in zip(whole[1:], later, strict=True):
            assert np.array_equal(one.rgb, other.rgb)
            assert one.pts_seconds.tolist() == other.pts_seconds.tolist()
            assert one.index.tolist() == other.index.tolist()
        assert list(video.batches(4, first=6)) == list(video.batches(4, first=50)) == []
        with pytest.raises(UsageError):
            video.batches(4, first=-1)


@pytest.mark.parametrize("rotation", [0, 90, 180, -90])
def test_rotation_metadata_is_applied(tmp_path: Path, rotation: int) -> None:
    frames = colourful(3)
    path = encode(tmp_path / "turned.mp4", frames, pixel_format="yuv444p", rotation=rotation)
    rgb, _, video = read_all(path)
    expected = np.rot90(frames, rotation // 90, axes=(1, 2))
    assert rgb.shape == expected.shape
    assert np.abs(rgb - expected.astype(np.float64)).mean() < 4
    assert video.info.rotation_degrees == -rotation % 360
    assert (video.info.width_px, video.info.height_px) == (expected.shape[2], expected.shape[1])


@pytest.mark.parametrize("matrix", [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0)])
def test_mirrored_display_matrices_are_applied(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    frames = colourful(2)
    path = tmp_path / "mirrored.mp4"
    a, b, c, d = (value * 65536 for value in matrix)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = *WH, "yuv444p"
        stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    rgb, _, _ = read_all(path)
    expected = frames.transpose(0, 2, 1, 3) if a == 0 else frames[:, :: 1 if d > 0 else -1, :: 1 if a > 0 else -1]
    assert rgb.shape == expected.shape
    assert np.abs(rgb - expected.astype(np.float64)).mean() < 4


def test_variable_frame_rate_keeps_every_time(tmp_path: Path) -> None:
    ticks = [0, 1000, 1500, 4000, 4100, 9000]
    path = encode(tmp_path / "vfr.mp4", colourful(6), ticks=ticks, time_base=Fraction(1, 10_000))
    _, seconds, video = read_all(path)
    np.testing.assert_allclose(seconds, np.array(ticks) / 10_000, atol=1e-4)
    assert video.corrected_times == 0


def test_negative_and_late_first_times_start_at_zero(tmp_path: Path) -> None:
    for ticks in ([-50, -49, -48], [700, 701, 702]):
        path = encode(tmp_path / f"{ticks[0]}.mkv", colourful(3), codec="ffv1", ticks=ticks)
        _, seconds, _ = read_all(path)
        np.testing.assert_allclose(seconds, np.arange(3) / 25, atol=2e-3)


def test_missing_times_are_made_from_the_rate_and_counted(tmp_path: Path) -> None:
    source = encode(tmp_path / "clip.mp4", colourful(6), options={"bf": "0"})
    raw = tmp_path / "clip.h264"
    with av.open(str(source)) as container, av.open(str(raw), "w", format="h264") as target:
        stream = target.add_stream_from_template(container.streams.video[0])
        for packet in container.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    rgb, seconds, video = read_all(raw)
    assert len(rgb) == 6
    assert (np.diff(seconds) > 0).all() and seconds[0] == 0
    np.testing.assert_allclose(seconds, np.arange(6) / float(video.info.frame_rate), atol=1e-3)


def test_pixel_aspect_is_corrected(tmp_path: Path) -> None:
    frames = colourful(2)
    for aspect, wh in ((Fraction(4, 3), (85, 48)), (Fraction(1, 2), (64, 96))):
        path = encode(tmp_path / f"{aspect.numerator}.mp4", frames, pixel_format="yuv444p", sample_aspect=aspect)
        rgb, _, video = read_all(path)
        assert (video.info.width_px, video.info.height_px) == wh
        assert rgb.shape[1:3] == (wh[1], wh[0])
        assert np.abs(rgb[0, 0].mean(0) - frames[0, 0].mean(0)).max() < 8


@pytest.mark.parametrize(("matrix", "name"), [(1, "ITU709"), (5, "ITU601")])
@pytest.mark.parametrize("full", [False, True])
def test_tagged_matrix_and_range_give_the_right_colours(tmp_path: Path, matrix: int, name: str, full: bool) -> None:
    rgb = np.zeros((2, *WH[::-1], 3), np.uint8)
    rgb[:, :, :32], rgb[:, :, 32:] = (200, 40, 60), (30, 180, 250)
    code = 2 if full else 1
    source = av.VideoFrame.from_ndarray(rgb[0], format="rgb24")
    yuv = source.reformat(format="yuv444p", dst_colorspace=name, src_color_range=2, dst_color_range=code)
    path = tmp_path / "tagged.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *WH, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, code
        yuv.colorspace, yuv.color_range, yuv.pts = matrix, code, 0
        container.mux(stream.encode(yuv))
        container.mux(stream.encode(None))
    decoded, _, _ = read_all(path)
    assert np.abs(decoded[0].astype(int) - rgb[0]).max() <= 3


def test_ten_bit_gradient_stays_smooth(tmp_path: Path) -> None:
    ramp = np.linspace(64 * 64, 940 * 64, 512).astype(np.uint16)
    grey = np.broadcast_to(ramp, (64, 512))
    path = tmp_path / "ramp.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 512, 64, "yuv420p10le"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray16le").reformat(format="yuv420p10le")
        luma = np.frombuffer(bytes(frame.planes[0]), "<u2").reshape(64, -1)[:, :512]
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    rgb, _, _ = read_all(path)
    expected = np.clip((luma.astype(np.float64) - 64) / 876 * 255, 0, 255)
    assert np.abs(rgb[0].astype(np.float64).mean(-1) - expected).max() <= 1.0
    columns = rgb[0].astype(np.float64).mean((0, 2))
    assert (np.diff(columns) > -0.6).all() and np.diff(columns).max() <= 1.0


def hdr_frame(signal: float, transfer: int) -> np.ndarray:
    return np.full((1, 32, 64, 3), round(signal * 65535), np.uint16)


@pytest.mark.parametrize(("transfer", "reference_white"), [(16, 0.5807), (18, 0.75)])
def test_hdr_is_tone_mapped_monotonically(tmp_path: Path, transfer: int, reference_white: float) -> None:
    levels = []
    for number, signal in enumerate((0.0, 0.5 * reference_white, reference_white, 1.0)):
        context = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9, "color_range": 1}
        path = encode(
            tmp_path / f"{number}.mkv",
            hdr_frame(signal, transfer),
            codec="ffv1",
            pixel_format="yuv444p10le",
            source_format="rgb48le",
            context=context,
        )
        rgb, _, video = read_all(path)
        assert video.info.is_hdr
        assert np.ptp(rgb) <= 6
        levels.append(float(rgb.mean()))
    assert levels[0] < 3 and (np.diff(levels) > 15).all()
    # Reference white must neither clip nor fall into the shadows.
    assert 160 < levels[2] < 235
    assert levels[3] > 245


def test_alpha_is_composited_on_black(tmp_path: Path) -> None:
    rgba = np.zeros((2, 48, 64, 4), np.uint8)
    rgba[..., 0], rgba[:, :, 32:, 3] = 200, 255
    path = encode(tmp_path / "alpha.mov", rgba, codec="qtrle", pixel_format="argb", source_format="rgba")
    rgb, _, _ = read_all(path)
    assert rgb[0, 5, 5].tolist() == [0, 0, 0]
    assert rgb[0, 5, 60].tolist() == [200, 0, 0]


def test_grey_video_becomes_equal_channels(tmp_path: Path) -> None:
    grey = np.tile(np.arange(64, dtype=np.uint8) * 4, (2, 48, 1))
    path = encode(tmp_path / "grey.mkv", grey, codec="ffv1", pixel_format="gray", source_format="gray")
    rgb, _, _ = read_all(path)
    assert np.array_equal(rgb, np.repeat(grey[..., None], 3, axis=-1))


def test_interlaced_video_is_flagged_and_combing_removed(tmp_path: Path) -> None:
    frames = np.full((4, 48, 64, 3), 60, np.uint8)
    frames[:, 1::2] = 200
    path = encode(
        tmp_path / "fields.mp4",
        frames,
        pixel_format="yuv420p",
        options={"x264-params": "interlaced=1:tff=1", "crf": "1"},
    )
    rgb, _, video = read_all(path)
    assert video.info.is_interlaced
    assert len(rgb) == 4
    assert np.ptp(rgb.astype(int).mean((2, 3)), axis=1).max() < 30


def test_audio_is_announced(tmp_path: Path) -> None:
    path = with_audio(tmp_path / "sound.mp4")
    _, _, video = read_all(path)
    assert video.info.has_audio


def with_audio(path: Path, *, picture: bool = True, seconds: float = 1.0) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25) if picture else None
        if stream is not None:
            stream.width, stream.height, stream.pix_fmt = *WH, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout="mono")
        for _ in range(round(25 * seconds) if stream is not None else 0):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(colourful(1)[0], format="rgb24")))
        for index in range(round(48_000 * seconds / 1024)):
            tone = np.sin(2 * np.pi * 440 * (np.arange(1024) + 1024 * index) / 48_000)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 1024 * index, Fraction(1, 48_000)
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
        if stream is not None:
            container.mux(stream.encode(None))
    return path


@pytest.mark.shared
def test_the_shared_videos_decode_whole(shared_dir: Path) -> None:
    counts = {"davis_rollercoaster.mp4": 70, "kitti360_seq_0000.mp4": 85, "lady-running.mp4": 65}
    for name, count in counts.items():
        with open_video(shared_dir / "data" / "videos" / name) as video:
            assert sum(len(batch) for batch in video.batches(16)) == count
            assert video.failed_frames == 0


@pytest.mark.parametrize("options", [{"start_seconds": -1}, {"start_seconds": 2, "end_seconds": 1}, {"max_frames": 0}])
def test_empty_ranges_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    path = encode(tmp_path / "clip.mp4", colourful(2))
    with pytest.raises(UsageError):
        open_video(path, **options)
    with open_video(path) as video, pytest.raises(UsageError):
        video.batches(0)


def test_a_range_beyond_the_end_says_so(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", colourful(4))
    with (
        open_video(path, start_seconds=60) as video,
        pytest.raises(UnreadableVideoError, match="no frame in the range"),
    ):
        list(video.batches(4))


def test_leaving_the_reader_ends_its_passes(tmp_path: Path) -> None:
    path = encode(tmp_path / "clip.mp4", colourful(6))
    with open_video(path) as video:
        passing = video.batches(2)
        next(passing)
    assert list(passing) == []


class TestPrefetched:
    def test_same_items_in_order(self) -> None:
        assert list(prefetched(iter(range(50)), capacity=3)) == list(range(50))

    def test_an_error_arrives_after_the_items_before_it_and_the_thread_ends(self) -> None:
        def items():
            yield from range(3)
            raise UnreadableVideoError("broken in the middle")

        ahead = prefetched(items(), capacity=1)
        assert [next(ahead) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(UnreadableVideoError, match="in the middle"):
            next(ahead)
        assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]

    def test_stopping_early_closes_the_source_and_ends_the_thread(self) -> None:
        closed = threading.Event()

        def items():
            try:
                while True:
                    yield 0
            finally:
                closed.set()

        ahead = prefetched(items(), capacity=2)
        next(ahead)
        ahead.close()
        assert closed.is_set()
        assert not [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def test_image_sequence_keeps_the_contract(tmp_path: Path) -> None:
    frames = colourful(11)
    for index, image in enumerate(frames):
        Image.fromarray(image).save(tmp_path / f"shot_{index + 1}.png")
    rgb, seconds, video = read_all(tmp_path, sequence_rate=Fraction(24))
    assert np.array_equal(rgb, frames)
    np.testing.assert_allclose(seconds, np.arange(11) / 24)
    assert (
        video.info.is_sequence and video.names[:2] == ("shot_1.png", "shot_2.png") and video.names[-1] == "shot_11.png"
    )
    part, times, _ = read_all(tmp_path, sequence_rate=Fraction(24), start_seconds=3 / 24, end_seconds=6 / 24)
    assert np.array_equal(part, frames[3:6])
    np.testing.assert_allclose(times, np.arange(3, 6) / 24)
    (tmp_path / "shot_2.png").write_bytes(b"damaged")
    with open_video(tmp_path) as sequence:
        later = list(sequence.batches(4, first=4))
    assert np.array_equal(np.concatenate([batch.rgb for batch in later]), np.delete(frames, 1, axis=0)[4:])
    assert sequence.failed_frames == 1


def test_memory_does_not_grow_with_length(tmp_path: Path) -> None:
    def peak_bytes(count: int) -> int:
        path = encode(tmp_path / f"{count}.mkv", np.repeat(colourful(1, (160, 120)), count, axis=0))
        tracemalloc.start()
        with open_video(path) as video:
            assert sum(len(batch) for batch in video.batches(8)) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    assert peak_bytes(240) < 1.15 * peak_bytes(40)
