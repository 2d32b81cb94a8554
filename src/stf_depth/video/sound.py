"""The sound of a source beside new pictures. Damage in it is counted and told; it never ends the video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av

from stf_depth.video.container import open_container

__all__ = ["SoundCopy"]

# What every player accepts inside mp4 and mov.
_COPIED = frozenset({"aac", "mp3", "mp3float", "ac3", "alac"})
# PyAV raises ValueError for sound that changes its layout or rate in the middle, and IndexError for streams that appear
# after opening.
_DAMAGE = (av.FFmpegError, OSError, ValueError, IndexError)


class SoundCopy:
    """Packets of a source's first audio stream, handed out up to a time."""

    def __init__(self, source: Any, container: Any) -> None:
        self._source = source
        self._stream = source.streams.audio[0]
        self._target, self._packets = self._connected(container)
        self._pending: Any = None
        self._left_out = 0
        self._end = ""
        video = source.streams.video
        start = video[0].start_time if video else None
        self._video_start_seconds = float(start * video[0].time_base) if start is not None else 0.0

    @classmethod
    def of(cls, path: Path, container: Any) -> SoundCopy | None:
        """Add the sound of ``path`` to a container that is not begun; None when there is none.

        A codec that the container cannot hold is encoded anew as AAC. Raises InputNotFoundError, UnreadableVideoError,
        or what PyAV raises for sound whose description is damaged.
        """
        source = open_container(path)
        if not source.streams.audio:
            source.close()
            return None
        try:
            return cls(source, container)
        except BaseException:
            source.close()
            raise

    @property
    def damage(self) -> str:
        """What was wrong with the sound so far, in words; empty for sound without fault."""
        parts = [f"packets left out: {self._left_out}"] if self._left_out else []
        return "; ".join([*parts, *([f"it ends early ({self._end})"] if self._end else [])])

    def _connected(self, container: Any) -> tuple[Any, Iterator[Any]]:
        stream = self._stream
        if stream.codec_context.name in _COPIED or "matroska" in container.format.name:
            return container.add_stream_from_template(stream), self._demuxed()
        target = container.add_stream("aac", rate=stream.rate)
        # AVI does not say which of its channels is which.
        target.layout = {1: "mono", 2: "stereo"}.get(stream.channels, stream.layout.name)
        return target, self._as_aac(target)

    def _demuxed(self) -> Iterator[Any]:
        yield from self._source.demux(self._stream)

    def _as_aac(self, target: Any) -> Iterator[Any]:
        resampler = av.AudioResampler(format="fltp", layout=target.layout, rate=self._stream.rate)
        for frame in self._decoded():
            for part in resampler.resample(frame):
                yield from target.encode(part)
        for part in resampler.resample(None):
            yield from target.encode(part)
        yield from target.encode(None)

    def _decoded(self) -> Iterator[Any]:
        """Frames with their own times, so that what follows a gap stays with its pictures."""
        for packet in self._demuxed():
            try:
                frames = packet.decode()
            except (av.FFmpegError, OSError):
                self._left_out += 1
                continue
            yield from frames

    def until(self, first_seconds: float, seconds: float) -> Iterator[Any]:
        """Packets of the source between ``first_seconds`` and ``seconds`` not handed out yet, shifted to zero."""
        shift = self._video_start_seconds + first_seconds
        while True:
            packet = self._pending or self._next()
            self._pending = None
            if packet is None or packet.dts is None or packet.pts is None:
                return
            start = float(packet.pts * packet.time_base)
            if start > self._video_start_seconds + seconds:
                self._pending = packet
                return
            if start >= shift:
                offset = round(shift / packet.time_base)
                packet.pts, packet.dts = packet.pts - offset, packet.dts - offset
                packet.stream = self._target
                yield packet

    def _next(self) -> Any:
        try:
            return next(self._packets, None)
        except _DAMAGE as error:
            self._end = str(error)
            return None

    def refused(self) -> None:
        """Count a packet with times that the container does not take, as only damage makes them."""
        self._left_out += 1

    def close(self) -> None:
        self._source.close()
