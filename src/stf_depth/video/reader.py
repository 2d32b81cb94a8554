"""One door to every source of frames."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from stf_depth.video.container import ContainerReader
from stf_depth.video.sequence import DEFAULT_SEQUENCE_RATE, SequenceReader
from stf_depth.video.source import VideoReader

__all__ = ["VideoReader", "open_video"]


def open_video(
    path: Path,
    *,
    start_seconds: float = 0.0,
    end_seconds: float | None = None,
    max_frames: int | None = None,
    sequence_rate: Fraction = DEFAULT_SEQUENCE_RATE,
    allow_gaps: bool = False,
) -> VideoReader:
    """Open a video file or an image-sequence folder for frames with start <= time < end.

    Times are relative to the first frame of the source. sequence_rate: frames a second of a sequence. allow_gaps:
    read a sequence whose numbering has gaps instead of refusing it.

    Raises InputNotFoundError, UnreadableVideoError or SequenceError when the input cannot be used, UsageError for an
    empty range.

    >>> import tempfile, pathlib
    >>> from stf_depth.synthetic import render_clip, scene, write_video
    >>> clip = render_clip(scene("room"), frames=3, wh=(32, 18))
    >>> path = write_video(clip, pathlib.Path(tempfile.mkdtemp()) / "room.mp4")
    >>> with open_video(path) as video:
    ...     [len(batch) for batch in video.batches(2)]
    [2, 1]
    """
    if path.is_dir():
        return SequenceReader(
            path,
            start_seconds=start_seconds,
            end_seconds=end_seconds,
            max_frames=max_frames,
            frame_rate=sequence_rate,
            allow_gaps=allow_gaps,
        )
    return ContainerReader(path, start_seconds=start_seconds, end_seconds=end_seconds, max_frames=max_frames)
