"""The sound of the source goes along, whatever its codec and container."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [("mp4", "aac"), ("mov", "pcm_s16le"), ("avi", "pcm_s16le"), ("mkv", "flac")],
)
@pytest.mark.parametrize("target", ["mp4", "mkv"])
def test_sound_goes_along(tmp_path: Path, suffix: str, codec: str, target: str) -> None:
    source = write_source(tmp_path / f"source.{suffix}", codec)
    out = tmp_path / f"out.{target}"
    writer = VideoWriter(out, wh=(32, 24), frame_rate=Fraction(25), audio_from=source)
    for index in range(FRAMES):
        writer.write(np.full((1, 24, 32, 3), index * 9, np.uint8), np.array([index / 25]))
    writer.close()
    with av.open(str(out)) as container:
        frames = list(container.decode(audio=0))
    samples = np.concatenate([frame.to_ndarray().astype(np.float64).ravel() for frame in frames])
    assert 0.85 * RATE <= len(samples) <= 1.1 * RATE
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    assert np.argmax(spectrum) * RATE / len(samples) == pytest.approx(440, abs=5)
