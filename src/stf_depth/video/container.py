"""Video files through PyAV: every damage is counted, none is fatal after the first frame."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import av
import numpy as np

from stf_depth.errors import InputNotFoundError, UnreadableVideoError
from stf_depth.types import VideoInfo
from stf_depth.video.color import Orientation, display_wh, is_hdr, oriented, resized_to_display, to_rgb
from stf_depth.video.source import TimedImage, VideoReader

__all__ = ["MAX_FRAME_PIXELS", "ContainerReader", "open_container"]

MAX_FRAME_PIXELS = 2**26  # 8192 x 8192; a frame beyond would take gigabytes by the time it is a float array
MAX_PIXEL_ASPECT = 8
MAX_RATE = 1000
FALLBACK_RATE = Fraction(30)
# Playlists and concatenation scripts are not here on purpose: they would read other files.
FORMATS = (
    "mov,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,mxf,dv,apng,nut,"
    "yuv4mpegpipe,rm"
)


@dataclass(frozen=True)
class _Picture:
    """A decoded frame and its time relative to the first frame of the stream."""

    frame: Any
    seconds: float


class ContainerReader(VideoReader):
    """Frames of a video file, upright, square pixels, 8-bit RGB.

    Raises InputNotFoundError where there is no file, UnreadableVideoError for a file without a decodable frame or
    with frames beyond MAX_FRAME_PIXELS.
    """

    def __init__(
        self,
        path: Path,
        *,
        start_seconds: float = 0.0,
        end_seconds: float | None = None,
        max_frames: int | None = None,
    ) -> None:
        super().__init__(start_seconds=start_seconds, end_seconds=end_seconds, max_frames=max_frames)
        self._path = path
        self._cut_off = 0
        with closing(open_container(path)) as container:
            stream = _video_stream(container, path)
            frame = next((frame for frame in self._decoded(container, stream)), None)
            if frame is None:
                raise UnreadableVideoError("no frame can be decoded", where=path, hint="The file may be damaged")
            self._origin = frame.pts
            # A frame flushed out of the decoder does not always carry it.
            self._time_base = Fraction(stream.time_base)
            self._coded_wh = (frame.width, frame.height)
            self._orientation = Orientation.of(_display_matrix(frame))
            self._info = _described(path, container, stream, frame, self._orientation)
            self._cut_off = _frames_beyond_the_end(path, container, stream)
        self.failed_frames = self.damaged_frames = 0

    @property
    def info(self) -> VideoInfo:
        """What the container and the first frame say; sizes as displayed."""
        return self._info

    @cached_property
    def first_number(self) -> int:
        """Number of the first frame of the range, known by decoding those before it: no header says it for sure."""
        if self._start_seconds == 0:
            return 0
        counters = self.failed_frames, self.damaged_frames, self.corrected_times
        with closing(open_container(self._path)) as container:
            pictures = self._timed(self._decoded(container, _video_stream(container, self._path)))
            number = sum(1 for _ in takewhile(lambda picture: picture.seconds < self._start_seconds - 1e-6, pictures))
        self.failed_frames, self.damaged_frames, self.corrected_times = counters
        return number

    def _images(self, skip: int) -> Generator[TimedImage]:
        with closing(self._pictures()) as pictures:
            for picture in islice(self._in_range(pictures), skip, None):
                yield self._upright(picture.frame), picture.seconds

    def _in_range(self, pictures: Iterator[_Picture]) -> Iterator[_Picture]:
        for picture in pictures:
            if self._end_seconds is not None and picture.seconds >= self._end_seconds - 1e-6:
                return
            if picture.seconds >= self._start_seconds - 1e-6:
                yield picture

    def _upright(self, frame: Any) -> np.ndarray[Any, np.dtype[np.uint8]]:
        if (frame.width, frame.height) != self._coded_wh:
            frame = frame.reformat(width=self._coded_wh[0], height=self._coded_wh[1])
        rgb = oriented(to_rgb(frame), self._orientation)
        return resized_to_display(rgb, (self._info.width_px, self._info.height_px))

    def _pictures(self) -> Generator[_Picture]:
        """Frames of the whole stream, or from the key frame before the start, with increasing times."""
        with closing(open_container(self._path)) as container:
            stream = _video_stream(container, self._path)
            if self._seeks(container, stream):
                yield from self._timed(self._decoded(container, stream))
                return
        with closing(open_container(self._path)) as container:
            yield from self._timed(self._decoded(container, _video_stream(container, self._path)))

    def _seeks(self, container: Any, stream: Any) -> bool:
        """Jump to the key frame before the start; False where that is not possible and all must be decoded."""
        if self._start_seconds == 0:
            return True
        if self._origin is None or self._info.duration_seconds_from_header is None:
            return False
        target = self._origin + int(self._start_seconds / stream.time_base)
        try:
            container.seek(target, stream=stream, backward=True)
            landed = next((frame.pts for frame in self._decoded(container, stream)), None)
            self.failed_frames = self.damaged_frames = 0
            if landed is None or landed > target:
                return False
            container.seek(target, stream=stream, backward=True)
        except av.FFmpegError:
            return False
        return True

    def _timed(self, frames: Iterator[Any]) -> Iterator[_Picture]:
        period = float(1 / self._info.frame_rate)
        last: float | None = None
        for frame in frames:
            if frame.pts is None or self._origin is None:
                seconds = 0.0 if last is None else last + period
                self.corrected_times += 1
            else:
                seconds = float((frame.pts - self._origin) * self._time_base)
                if last is not None and seconds <= last:
                    # Half a period lets the next sound time fall in line again.
                    seconds = last + period / 2
                    self.corrected_times += 1
            last = seconds
            yield _Picture(frame, seconds)

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        """Frames in display order; a packet that fails is counted and the next one tried."""
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except IndexError:
                # PyAV stumbles at the end over streams that appeared after opening; all packets were handed out.
                packet = None
            except (av.FFmpegError, OSError):
                self.failed_frames += 1
                packet = None
            # Without a packet the decoder gives what it still holds; once it has been flushed, nothing.
            yield from self._checked(stream, packet)
            if packet is None:
                self.failed_frames += self._cut_off
                return

    def _checked(self, stream: Any, packet: Any) -> Iterator[Any]:
        try:
            frames = stream.decode(packet)
        except EOFError:
            return
        except (av.FFmpegError, OSError, ValueError):
            self.failed_frames += 1
            return
        for frame in frames:
            if frame.width * frame.height > MAX_FRAME_PIXELS:
                raise _too_large(self._path, frame.width, frame.height)
            self.damaged_frames += bool(frame.is_corrupt)
            yield frame


def open_container(path: Path) -> Any:
    """A PyAV container over a file, which reads no other file.

    Raises InputNotFoundError where there is none, UnreadableVideoError for what is no video file.
    """
    if not path.exists():
        raise InputNotFoundError("no such file", where=path)
    if not path.is_file():
        raise UnreadableVideoError("not a regular file", where=path)
    try:
        if path.stat().st_size == 0:
            raise UnreadableVideoError("the file is empty", where=path, got="0 bytes")
        options = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        # The prefix keeps a name such as "a:b.mp4" from being taken for a network address.
        return av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        # No decoder here reads what moves in it.
        is_webp = path.suffix.lower() == ".webp"
        hint = f"Split it into a folder of images, for example: magick {path.name} frame_%06d.png" if is_webp else None
        raise UnreadableVideoError("cannot read the video", where=path, got=reason, hint=hint) from error


def _video_stream(container: Any, path: Path) -> Any:
    covers = av.stream.Disposition.attached_pic
    stream = next((one for one in container.streams.video if not one.disposition & covers), None)
    if stream is None:
        kinds = sorted({one.type for one in container.streams}) or ["nothing"]
        raise UnreadableVideoError("no video stream", where=path, got=", ".join(kinds))
    context = stream.codec_context
    if context is None:
        raise UnreadableVideoError("no decoder for this video", where=path)
    if context.width * context.height > MAX_FRAME_PIXELS:
        raise _too_large(path, context.width, context.height)
    # One thread within a frame, none across frames: what a decoder makes of damaged data stays the same every time.
    context.thread_type = "SLICE"
    # A stream may announce another size later on; the decoder then refuses to allocate it.
    context.options = {"max_pixels": str(MAX_FRAME_PIXELS)}
    return stream


def _frames_beyond_the_end(path: Path, container: Any, stream: Any) -> int:
    """How many frames the index of a file lists that lie wholly behind its end, as where a download was cut off.

    Other containers than MP4 and QuickTime do not list every frame.
    """
    if not container.format.name.startswith("mov"):
        return 0
    size = path.stat().st_size
    return sum(entry.pos >= size and not entry.is_discard for entry in stream.index_entries)


def _too_large(path: Path, width: int, height: int) -> UnreadableVideoError:
    limit = f"at most {MAX_FRAME_PIXELS} pixels a frame"
    return UnreadableVideoError("the frames are too large", where=path, expected=limit, got=f"{width}x{height}")


def _display_matrix(frame: Any) -> np.ndarray[Any, np.dtype[np.int32]] | None:
    try:
        data = frame.side_data["DISPLAYMATRIX"]
    except KeyError:
        return None
    return np.frombuffer(bytes(data), np.int32)[:9]


def _described(path: Path, container: Any, stream: Any, frame: Any, orientation: Orientation) -> VideoInfo:
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, MAX_PIXEL_ASPECT) <= aspect <= MAX_PIXEL_ASPECT:
        aspect = Fraction(1)
    width, height = display_wh((frame.width, frame.height), aspect)
    if width * height > MAX_FRAME_PIXELS:
        raise _too_large(path, width, height)
    if orientation.transpose:
        width, height = height, width
    duration = None
    if stream.duration is not None and stream.time_base:
        duration = float(stream.duration * stream.time_base)
    elif container.duration is not None:
        duration = container.duration / 1_000_000
    return VideoInfo(
        path=path,
        width_px=width,
        height_px=height,
        frame_rate=_frame_rate(stream),
        frame_count_from_header=stream.frames or None,
        duration_seconds_from_header=duration,
        codec=stream.codec_context.name,
        pixel_format=frame.format.name,
        rotation_degrees=orientation.rotation_degrees,
        is_hdr=is_hdr(frame),
        has_audio=bool(container.streams.audio),
        is_interlaced=bool(frame.interlaced_frame),
    )


def _frame_rate(stream: Any) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and 0 < rate <= MAX_RATE:
            return Fraction(rate)
    return FALLBACK_RATE
