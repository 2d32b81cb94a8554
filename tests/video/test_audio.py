"""The sound of the source goes along, whatever its codec and container."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stf_depth.errors import InputNotFoundError
from stf_depth.export import export_result
from stf_depth.result import DepthResult
from stf_depth.synthetic import SyntheticClip
from stf_depth.video.writer import VideoWriter

RATE = 48_000
FRAMES = 25


def write_source(path: Path, codec: str) -> Path:
    """One second of noise pictures with a 440 Hz tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = container.add_stream(codec, rate=RATE, layout="mono")
        tone = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE)
        for index in range(FRAMES):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), index * 9, np.uint8), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray((tone * 20_000).astype(np.int16)[None], format="s16", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = RATE, 0, Fraction(1, RATE)
        resampler = av.AudioResampler(format=audio.format.name, layout="mono", rate=RATE, frame_size=audio.frame_size)
        for part in [*resampler.resample(sound), *resampler.resample(None)]:
            container.mux(audio.encode(part))
        container.mux(audio.encode(None))
    return path


def write_with_sound(out: Path, source: Path) -> str:
    """A second of grey with the sound of ``source``; returns what was wrong with the sound."""
    writer = VideoWriter(out, wh=(32, 24), frame_rate=Fraction(25), audio_from=source)
    for index in range(FRAMES):
        writer.write(np.full((1, 24, 32, 3), index * 9, np.uint8), np.array([index / 25]))
    writer.close()
    with av.open(str(out)) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES
    return writer.sound_damage


def with_damaged_packets(source: Path, numbers: range) -> Path:
    """Flip bits in some packets of the sound of a file."""
    with av.open(str(source)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(source.read_bytes())
    for position, size in (packets[number] for number in numbers):
        data[position + 8 : position + size] = bytes(byte ^ 0x5A for byte in data[position + 8 : position + size])
    source.write_bytes(data)
    return source


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "aac"), ("mov", "pcm_s16le"), ("avi", "pcm_s16le"), ("mkv", "flac")],
)
@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_sound_goes_along(tmp_path: Path, suffix: str, codec: str, target: str) -> None:
    source = write_source(tmp_path / f"source.{suffix}", codec)
    out = tmp_path / f"out.{target}"
    assert write_with_sound(out, source) == ""
    with av.open(str(out)) as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray().astype(np.float64).ravel() for frame in frames])
    assert 0.85 * RATE <= len(samples) <= 1.1 * RATE
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * RATE / len(samples) == pytest.approx(440, abs=5)


def test_sound_goes_on_in_time_after_damaged_packets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    source = with_damaged_packets(write_source(tmp_path / "source.mkv", "flac"), range(4, 7))
    damage = write_with_sound(tmp_path / "out.mp4", source)
    assert damage == "packets left out: 3"
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'out.mp4'}: the sound of the source is damaged: {damage}"
    ]
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = np.array([frame.time for frame in container.decode(audio=0)])
    # 96 ms a packet: the gap reaches from 0.384 s to 0.672 s, and the rest is not moved into it.
    assert np.diff(times).max() == pytest.approx(0.288, abs=0.05)
    assert times[-1] == pytest.approx(0.96, abs=0.05)


def test_sound_that_cannot_be_read_on_ends_and_the_video_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stf_depth.video import sound

    def broken(self: sound.SoundCopy) -> object:
        yield from list(self._source.demux(self._stream))[:5]
        raise av.InvalidDataError(1094995529, "Invalid data found when processing input")

    source = write_source(tmp_path / "source.mp4", "aac")
    monkeypatch.setattr(sound.SoundCopy, "_demuxed", broken)
    assert "it ends early" in write_with_sound(tmp_path / "out.mp4", source)


def test_sound_that_no_encoder_takes_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stf_depth.video import sound

    source = write_source(tmp_path / "source.mkv", "flac")
    real = sound.SoundCopy._connected

    def with_bad_rate(self: sound.SoundCopy, container: object) -> object:
        target, packets = real(self, container)
        target.rate = 7
        return target, packets

    monkeypatch.setattr(sound.SoundCopy, "_connected", with_bad_rate)
    assert write_with_sound(tmp_path / "out.mp4", source)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


def test_packets_that_the_container_refuses_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stf_depth.video import sound

    def backwards(self: sound.SoundCopy) -> object:
        for number, packet in enumerate(self._source.demux(self._stream)):
            if number == 20 and packet.dts is not None:
                packet.dts -= 10 * 1024
            yield packet

    source = write_source(tmp_path / "source.mp4", "aac")
    monkeypatch.setattr(sound.SoundCopy, "_demuxed", backwards)
    assert write_with_sound(tmp_path / "out.mp4", source) == "packets left out: 1"


def test_sound_comes_from_media_files_only(tmp_path: Path) -> None:
    write_source(tmp_path / "source.mkv", "flac")
    script = tmp_path / "list.txt"
    script.write_text("ffconcat version 1.0\nfile source.mkv\n")
    assert "cannot read the video" in write_with_sound(tmp_path / "out.mp4", script)
    with pytest.raises(InputNotFoundError, match=r"absent\.mkv"):
        VideoWriter(tmp_path / "no.mp4", wh=(32, 24), frame_rate=25, audio_from=tmp_path / "absent.mkv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "out.mp4", "source.mkv"]


def test_damaged_sound_does_not_fail_an_export(
    tmp_path: Path, room_clip: SyntheticClip, make_result: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    source = with_damaged_packets(write_source(tmp_path / "source.mkv", "flac"), range(2, 4))
    export_result(DepthResult(make_result(room_clip, source)), "mp4", tmp_path / "out")
    assert "the sound of the source is damaged" in caplog.text
    with av.open(str(tmp_path / "out" / "depth.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(room_clip)
