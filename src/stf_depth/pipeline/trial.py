"""Decoding in a process of its own, for a file on which an earlier run died: a crash ends that process only."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stf_depth.cache.files import output_errors
from stf_depth.errors import StfDepthError, UnreadableVideoError
from stf_depth.video.reader import open_video

__all__ = ["decoder_crashes", "survived_decoding"]

# There while a video is decoded; only the death of the process leaves it.
MARKER = ".decoding"
_COMMAND = (sys.executable, "-m", "stf_depth.pipeline.trial")


@contextmanager
def survived_decoding(folder: Path, path: Path, **reading: float | int | None) -> Iterator[None]:
    """Remember in ``folder`` that ``path`` is being decoded, until the block ends in whatever way.

    reading: options of ``open_video``. Raises UnreadableVideoError for a file on which an earlier run died, when a
    trial shows that it was the decoder.
    """
    marker = folder / MARKER
    if marker.exists() and decoder_crashes(path, **reading):
        hint = "The other videos are not concerned; convert this file with another tool"
        raise UnreadableVideoError("the decoder crashes on this file", where=path, hint=hint)
    with output_errors(marker):
        marker.touch()
    try:
        yield
    finally:
        marker.unlink(missing_ok=True)


def decoder_crashes(path: Path, **reading: float | int | None) -> bool:
    """Whether decoding kills its process."""
    request = json.dumps([str(path), reading])
    done = subprocess.run([*_COMMAND, request], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return done.returncode not in (0, 1)


def _decode(path: str, reading: dict[str, float | int | None]) -> None:
    with open_video(Path(path), **reading) as reader:  # type: ignore[arg-type]
        for _batch in reader.batches(1):
            pass


if __name__ == "__main__":
    try:
        _decode(*json.loads(sys.argv[1]))
    except StfDepthError:
        sys.exit(1)
