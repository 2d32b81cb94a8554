"""Write videos with exact times: H.264, H.265, or lossless grey of 16 bits."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import OutputError, ShapeError, StfDepthError, UnreadableVideoError
from stf_depth.types import Float64Array
from stf_depth.video.sound import SoundCopy

__all__ = ["ENCODINGS", "Encoding", "VideoWriter"]

log = logging.getLogger(__name__)

TIME_BASE = Fraction(1, 90_000)
BT709 = 1  # the code of BT.709 in FFmpeg's tables of matrices, primaries and transfer curves
LIMITED_RANGE = 1


@dataclass(frozen=True)
class Encoding:
    """An encoder with its pixel format; ``grey`` ones take (N, H, W) uint16 using the full range of 16 bits.

    even_size: odd sizes are padded. min_side_px: of the frames, before that.
    """

    codec: str
    pixel_format: str
    options: dict[str, str] = field(default_factory=dict)
    grey: bool = False
    even_size: bool = True
    min_side_px: int = 1


# x265 gives the packets of a clip shorter than its B-frame delay decoding times that it never set: no B-frames there.
ENCODINGS: dict[str, Encoding] = {
    # Plays everywhere. At this quality the slower presets make files no smaller in two to three times the time.
    # x264's macroblock tree reads memory that it never set where the processor has AVX-512 and the picture an odd
    # number of macroblocks in a row: the same frames gave other bytes each time. Without it files are 13 % larger.
    "h264": Encoding("libx264", "yuv420p", {"crf": "17", "preset": "veryfast", "mbtree": "0"}),
    # Smaller and without banding in smooth gradients.
    "h265": Encoding(
        "libx265",
        "yuv420p10le",
        {"crf": "20", "preset": "medium", "x265-params": "bframes=0:log-level=error"},
        min_side_px=15,
    ),
    # Ten bits of grey, lossless, for tools that read HEVC; mkv (FFmpeg's mp4 writer refuses grey HEVC).
    "h265-grey10": Encoding(
        "libx265",
        "gray10le",
        {"preset": "medium", "x265-params": "lossless=1:bframes=0:log-level=error"},
        grey=True,
        min_side_px=15,
    ),
    # Sixteen bits of grey, lossless; mkv.
    "ffv1-grey16": Encoding("ffv1", "gray16le", {"level": "3", "slicecrc": "1"}, grey=True, even_size=False),
}


class VideoWriter:
    """Encode frames into ``path``, which appears complete when the writer closes and not at all after an error.

    wh: size of the frames; odd sizes are padded by one repeated column or row where the encoding needs even ones.
    The first frame lies at time zero; differences between times are kept to 1/90000 s (mkv: 1 ms). audio_from: a
    video whose first audio stream is copied along, cut to the same range. sound_damage: what was missing of it once the
    writer is closed, which is logged as a warning; empty where nothing was.

    Raises InputNotFoundError for sound from a file that is not there, OutputError for a file that cannot be written or
    frames too small for the encoding, ShapeError for frames of another size or type, or times that do not increase.

    >>> import numpy as np, tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "grey.mp4"
    >>> with VideoWriter(path, wh=(32, 18), frame_rate=25) as writer:
    ...     writer.write(np.full((2, 18, 32, 3), 128, np.uint8), np.array([0.0, 0.04]))
    >>> path.exists()
    True
    """

    def __init__(
        self,
        path: Path,
        *,
        wh: tuple[int, int],
        frame_rate: float | Fraction,
        encoding: Literal["h264", "h265", "h265-grey10", "ffv1-grey16"] = "h264",
        audio_from: Path | None = None,
    ) -> None:
        self._path = path
        self._wh = wh
        self._encoding = ENCODINGS[encoding]
        self._partial = path.with_name(f".{path.stem[:40]}.partial-{os.getpid()}{path.suffix}")
        self._first_seconds: float | None = None
        self._last_ticks = -1
        self._sound: SoundCopy | None = None
        self.sound_damage = ""
        self._container: Any = None
        rate = Fraction(frame_rate).limit_denominator(100_000)
        self._refuse_tiny()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if audio_from is None or not self._begins_with_sound(rate, audio_from):
                self._begin(rate)
        except (OSError, av.FFmpegError, ValueError) as error:
            self.abort()
            raise OutputError("cannot write the video", where=path, got=_reason(error)) from error
        except StfDepthError:
            self.abort()
            raise

    def _refuse_tiny(self) -> None:
        smallest = self._encoding.min_side_px
        if min(self._wh) < smallest:
            expected, got = f"at least {smallest}x{smallest}", "{}x{}".format(*self._wh)
            hint = "Choose another format, or a larger size"
            what = "the frames are too small for this encoding"
            raise OutputError(what, where=self._path, expected=expected, got=got, hint=hint)

    def _begins_with_sound(self, rate: Fraction, audio_from: Path) -> bool:
        """Begin the file, unless the sound is damaged so that no encoder or container takes it."""
        try:
            self._begin(rate, audio_from)
        except (OSError, av.FFmpegError, ValueError, UnreadableVideoError) as error:
            self.abort()
            self._sound = None
            self.sound_damage = _reason(error)
        return not self.sound_damage

    def _begin(self, rate: Fraction, audio_from: Path | None = None) -> None:
        self._container = av.open(f"file:{self._partial}", "w")
        self._stream = self._add_stream(rate)
        self._sound = SoundCopy.of(audio_from, self._container) if audio_from is not None else None
        self._container.start_encoding()

    def _add_stream(self, frame_rate: Fraction) -> Any:
        encoding = self._encoding
        stream = self._container.add_stream(encoding.codec, rate=frame_rate, options=dict(encoding.options))
        width, height = self._wh
        if encoding.even_size:
            width, height = width + width % 2, height + height % 2
        stream.width, stream.height, stream.pix_fmt = width, height, encoding.pixel_format
        stream.codec_context.time_base = TIME_BASE
        if not encoding.grey:
            context = stream.codec_context
            context.color_range, context.colorspace = LIMITED_RANGE, BT709
            context.color_primaries = context.color_trc = BT709
        return stream

    def write(self, frames: NDArray[np.uint8] | NDArray[np.uint16], pts_seconds: Float64Array) -> None:
        """Append frames (N, H, W, 3) uint8, or (N, H, W) uint16 for grey encodings, at (N,) increasing times."""
        width, height = self._wh
        grey = self._encoding.grey
        expected, dtype = ((height, width), np.uint16) if grey else ((height, width, 3), np.uint8)
        if frames.shape[1:] != expected or frames.dtype != dtype or len(frames) != len(pts_seconds):
            raise ShapeError(
                "frames do not fit the video", where=self._path, expected=f"{expected} {np.dtype(dtype)}",
                got=f"{frames.shape[1:]} {frames.dtype}, {len(frames)} frames for {len(pts_seconds)} times",
            )  # fmt: skip
        try:
            for image, seconds in zip(frames, pts_seconds, strict=True):
                self._encode(image, float(seconds))
        except (OSError, av.FFmpegError) as error:
            raise OutputError("cannot write the video", where=self._path, got=_reason(error)) from error

    def _encode(self, image: NDArray[Any], seconds: float) -> None:
        if self._first_seconds is None:
            self._first_seconds = seconds
        ticks = round((seconds - self._first_seconds) / TIME_BASE)
        if ticks <= self._last_ticks:
            raise ShapeError("times must increase", where=self._path, got=f"{seconds} s")
        self._last_ticks = ticks
        frame = self._frame(image)
        frame.pts, frame.time_base = ticks, TIME_BASE
        self._container.mux(self._stream.encode(frame))
        if self._sound is not None:
            for packet in self._sound.until(self._first_seconds, seconds):
                self._mux_sound(self._sound, packet)

    def _mux_sound(self, sound: SoundCopy, packet: Any) -> None:
        try:
            self._container.mux(packet)
        except av.ArgumentError:
            sound.refused()

    def _frame(self, image: NDArray[Any]) -> av.VideoFrame:
        pad_x, pad_y = self._stream.width - image.shape[1], self._stream.height - image.shape[0]
        if pad_x or pad_y:
            image = np.pad(image, ((0, pad_y), (0, pad_x)) + ((0, 0),) * (image.ndim - 2), mode="edge")
        if self._encoding.grey:
            return _grey_frame(image, self._encoding.pixel_format)
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
        converted = frame.reformat(format=self._encoding.pixel_format, dst_colorspace="ITU709")
        converted.color_range, converted.colorspace = LIMITED_RANGE, BT709
        return converted

    def close(self) -> None:
        """Finish the file and move it to its place; without any frame nothing is written.

        Raises OutputError when the rest cannot be written.
        """
        if self._last_ticks < 0:
            self.abort()
            return
        try:
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._sound.close()
            self._container.close()
            with self._partial.open("rb+") as handle:
                os.fsync(handle.fileno())
            self._partial.replace(self._path)
            self._tell_damage()
        except (OSError, av.FFmpegError) as error:
            self.abort()
            raise OutputError("cannot write the video", where=self._path, got=_reason(error)) from error

    def _tell_damage(self) -> None:
        if self._sound is not None:
            self.sound_damage = self._sound.damage
        if self.sound_damage:
            log.warning("%s: the sound of the source is damaged: %s", self._path, self.sound_damage)

    def abort(self) -> None:
        """Drop everything written so far."""
        if self._sound is not None:
            self._sound.close()
        if self._container is not None:
            # The file is thrown away: that its end cannot be written (disk full) changes nothing.
            with suppress(OSError, av.FFmpegError, ValueError):
                self._container.close()
        with suppress(OSError):
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


def _grey_frame(image: NDArray[np.uint16], pixel_format: str) -> av.VideoFrame:
    if pixel_format == "gray16le":
        return av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray16le")
    # Exact rounding to ten bits: 65535 becomes 1023.
    values = ((image.astype(np.uint32) * 1023 + 32767) // 65535).astype("<u2")
    frame = av.VideoFrame(image.shape[1], image.shape[0], "gray10le")
    plane = frame.planes[0]
    rows = np.zeros((plane.height, plane.line_size // 2), "<u2")
    rows[:, : image.shape[1]] = values
    plane.update(rows.tobytes())
    return frame


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
