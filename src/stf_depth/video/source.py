"""What every source of frames is: a description and a stream of batches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from stf_depth.errors import UnreadableVideoError, UsageError
from stf_depth.types import FrameBatch, Uint8Array, VideoInfo

__all__ = ["VideoReader"]

TimedImage = tuple[Uint8Array, float]


class VideoReader(ABC):
    """Frames of a video or of an image sequence, decoded as they are asked for; memory does not grow with length.

    ``info`` describes the source. Three counters refer to the latest pass. ``failed_frames``: packets or images
    that could not be decoded, with the frames that an MP4 or QuickTime file lists behind its end.
    ``damaged_frames``: frames that the decoder calls corrupt (some decoders conceal small damage without a word).
    ``corrected_times``: frames whose time was missing or did not increase, and was set from the frame rate. Every
    call of ``batches`` starts a new pass. ``gaps``: numbers that an image sequence leaves out, in words, and
    ``places``: of its images in their numbering.

    Raises UsageError for an empty range.
    """

    def __init__(self, *, start_seconds: float, end_seconds: float | None, max_frames: int | None) -> None:
        if start_seconds < 0 or (end_seconds is not None and end_seconds <= start_seconds):
            raise UsageError("empty time range", expected="0 <= start < end", got=(start_seconds, end_seconds))
        if max_frames is not None and max_frames < 1:
            raise UsageError("no frames asked for", expected="max_frames >= 1", got=max_frames)
        self._start_seconds = start_seconds
        self._end_seconds = end_seconds
        self._max_frames = max_frames
        self.failed_frames = 0
        self.damaged_frames = 0
        self.corrected_times = 0
        self.gaps = ""
        self.places: list[int] | None = None
        self._passes: list[Generator[FrameBatch]] = []

    @property
    @abstractmethod
    def info(self) -> VideoInfo:
        """What the container and the first frame say."""

    @property
    @abstractmethod
    def first_number(self) -> int:
        """Number of the first frame of the range, counted from the first frame of the source.

        Whatever lies before may have to be decoded: ask before a pass begins.
        """

    def numbers(self, batch: FrameBatch) -> NDArray[np.int64]:
        """(N,) numbers of frames of the range, counted from the first frame of the source.

        Maps that were made of the whole source are counted like this, so images that cannot be decoded count.
        """
        return batch.index + self.first_number

    @abstractmethod
    def _images(self, skip: int) -> Generator[TimedImage]:
        """Images (H, W, 3) and times of the range without its first ``skip``, in order; the counters know all."""

    def batches(self, size: int, *, first: int = 0) -> Iterator[FrameBatch]:
        """The frames of the range from number ``first`` on, ``size`` at a time; the last batch may be shorter.

        Frames before ``first`` are decoded as well, for a decoder that jumps does not promise the same pictures, but
        not converted. Raises UsageError for a size below one or a negative ``first``, UnreadableVideoError when the
        range holds no frame; one that ends before ``first`` has no batches.
        """
        if size < 1 or first < 0:
            raise UsageError("a batch needs a frame", expected="size >= 1, first >= 0", got=(size, first))
        self.failed_frames = self.damaged_frames = self.corrected_times = 0
        self._passes.append(self._batched(size, first))
        return self._passes[-1]

    def _batched(self, size: int, first: int) -> Generator[FrameBatch]:
        limit = None if self._max_frames is None else max(0, self._max_frames - first)
        with closing(self._images(first)) as images:
            for batch in _grouped(islice(images, limit), size):
                rgb, seconds = zip(*batch, strict=True)
                index = np.arange(first, first + len(batch), dtype=np.int64)
                yield FrameBatch(np.stack(rgb), np.array(seconds, np.float64), index)
                first += len(batch)
        if first == 0:
            span = f"{self._start_seconds} s to {'the end' if self._end_seconds is None else f'{self._end_seconds} s'}"
            raise UnreadableVideoError("no frame in the range", where=self.info.path, got=span)

    def __iter__(self) -> Iterator[FrameBatch]:
        return self.batches(1)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every pass and release its file."""
        for one in self._passes:
            one.close()
        self._passes = []


def _grouped(images: Iterable[TimedImage], size: int) -> Iterator[list[TimedImage]]:
    group: list[TimedImage] = []
    for image in images:
        group.append(image)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group
