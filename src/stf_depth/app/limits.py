"""How much one visitor may ask of the server."""

from __future__ import annotations

from pydantic import Field

from stf_depth.config import FrozenConfig

__all__ = ["AppLimits"]


class AppLimits(FrozenConfig):
    """Bounds of the web page.

    upload_mb: size of a file. frames, pixels: of a video; later frames are not processed, larger frames refused.
    waiting_jobs: jobs that may wait in all. running_jobs: jobs processed at once. session_seconds: after this time
    without a request a visitor's files are removed. demo_frames: length of the synthetic clip.
    """

    upload_mb: int = Field(500, ge=1)
    frames: int = Field(900, ge=1)
    pixels: int = Field(4096 * 2304, ge=1)
    waiting_jobs: int = Field(16, ge=1)
    running_jobs: int = Field(1, ge=1, le=16)
    session_seconds: int = Field(4 * 3600, ge=60)
    demo_frames: int = Field(32, ge=2, le=480)
