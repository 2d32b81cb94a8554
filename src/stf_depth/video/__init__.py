"""Videos in and out: reading, image sequences, shots, digests, writing."""

from __future__ import annotations

from stf_depth.video.reader import VideoReader, open_video
from stf_depth.video.writer import VideoWriter

__all__ = ["VideoReader", "VideoWriter", "open_video"]
