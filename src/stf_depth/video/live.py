"""Frames of a camera or a network stream as they come; where the reader is too slow, the oldest are dropped."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import av
import cv2
import numpy as np

from stf_depth.errors import InputNotFoundError, UnreadableVideoError, UsageError
from stf_depth.types import FrameBatch, Uint8Array
from stf_depth.video.color import to_rgb

__all__ = ["LiveReader", "is_live_source", "open_live"]

Picture = tuple[Uint8Array, float]  # (H, W, 3) RGB and its time in seconds, relative to the first
Pictures = Callable[[], Generator[Picture]]

URL = re.compile(r"^(https?|rtsps?|rtmps?|rtp|udp|tcp|srt)://", re.IGNORECASE)
# Enough for what these protocols are made of; "file" is absent, so that no playlist reads this machine's files.
PROTOCOLS = "http,https,httpproxy,tls,tcp,udp,rtp,rtsp,rtsps,rtmp,rtmps,srt,crypto,data"
TIMEOUT_SECONDS = 10.0
WAITING_FRAMES = 2
POLL_SECONDS = 0.1


def is_live_source(source: str) -> bool:
    """Whether this is the number of a camera or the URL of a stream.

    >>> [is_live_source(source) for source in ("0", "rtsp://camera/1", "clip.mp4")]
    [True, True, False]
    """
    return source.isdecimal() or URL.match(source) is not None


def open_live(source: str, *, drop_frames: bool = True) -> LiveReader:
    """Open a camera by its number, or a stream by its URL (HTTP, RTSP, RTMP, UDP, SRT).

    drop_frames: whether frames that come faster than they are read are dropped; without it they wait, which suits a
    file that is served over HTTP. Raises UsageError for anything else, and when frames are asked for
    InputNotFoundError where nothing answers and UnreadableVideoError where no video comes.
    """
    if source.isdecimal():
        number = int(source)
        return LiveReader(source, lambda: _camera(number), drop_frames=drop_frames)
    if URL.match(source):
        return LiveReader(source, lambda: _stream(source), drop_frames=drop_frames)
    raise UsageError("not a live source", where=source, expected="the number of a camera, or a URL")


class LiveReader:
    """Frames read in a thread; ``dropped_frames`` counts those that came while nobody asked.

    Time zero is the first frame. The thread has ended when the reader is closed.
    """

    def __init__(self, source: str, pictures: Pictures, *, drop_frames: bool) -> None:
        self.source = source
        self.dropped_frames = 0
        self._pictures, self._drops = pictures, drop_frames
        self._waiting: deque[Picture] = deque()
        self._changed = threading.Condition()
        self._stopping = self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="live", daemon=True)

    def frames(self) -> Iterator[FrameBatch]:
        """The frames one by one until the source ends. Raises the error that ended it."""
        if not self._thread.is_alive() and not self._ended:
            self._thread.start()
        index = 0
        while (picture := self._next()) is not None:
            rgb, seconds = picture
            yield FrameBatch(rgb[None], np.array([seconds], np.float64), np.array([index], np.int64))
            index += 1

    def _next(self) -> Picture | None:
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait(POLL_SECONDS)
            if self._waiting:
                self._changed.notify_all()
                return self._waiting.popleft()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            return None

    def _read(self) -> None:
        try:
            with closing(self._pictures()) as pictures:
                for picture in pictures:
                    self._keep(picture)
                    if self._stopping:
                        break
        except BaseException as error:  # handed to the reader of the frames, who raises it
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _keep(self, picture: Picture) -> None:
        with self._changed:
            while len(self._waiting) >= WAITING_FRAMES and not self._drops and not self._stopping:
                self._changed.wait(POLL_SECONDS)
            self._waiting.append(picture)
            if self._drops and len(self._waiting) > WAITING_FRAMES:
                self._waiting.popleft()
                self.dropped_frames += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Stop reading and wait for the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def __enter__(self) -> LiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _camera(number: int) -> Generator[Picture]:
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise InputNotFoundError("no such camera", where=number, hint="Check that no other program uses it")
        began: float | None = None
        while True:
            there, image = capture.read()
            if not there:
                return
            now = time.monotonic()
            began = now if began is None else began
            yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8), now - began
    finally:
        capture.release()


def _stream(url: str) -> Generator[Picture]:
    options = {"protocol_whitelist": PROTOCOLS}
    if url.lower().startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    try:
        container = av.open(url, options=options, timeout=TIMEOUT_SECONDS)
    except (av.FFmpegError, OSError) as error:
        raise InputNotFoundError("the stream does not answer", where=url, got=error) from error
    with container:
        if not container.streams.video:
            raise UnreadableVideoError("no video in the stream", where=url)
        yield from _decoded(container, url)


def _decoded(container: av.container.InputContainer, url: str) -> Generator[Picture]:
    stream = container.streams.video[0]
    stream.thread_type = "SLICE"  # frame threads would hold frames back
    first: float | None = None
    last = -1.0
    began = time.monotonic()
    try:
        for frame in container.decode(stream):
            seconds = time.monotonic() - began if frame.time is None else float(frame.time)
            first = seconds if first is None else first
            # Times must increase, also where a source starts over.
            last = max(seconds - first, last + 1e-3) if last >= 0 else 0.0
            yield to_rgb(frame), last
    except (av.FFmpegError, OSError) as error:
        raise UnreadableVideoError("the stream broke off", where=url, got=error) from error
